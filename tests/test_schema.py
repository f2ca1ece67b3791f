"""Shapes of files: what fits comes back as it was, and what does not is named by file and key."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest

from jaxmodpo.errors import UserError
from jaxmodpo.ranges import Positive
from jaxmodpo.schema import Fields, Range, Tally, is_number, read_as


class Outcome(TypedDict):
    wins: Tally
    p: NotRequired[float | None]


@dataclass(frozen=True)
class Chip:
    name: str
    flops: Positive
    kind: Literal["gpu", "tpu"] = "gpu"
    steps: tuple[int, ...] = ()


WRONG: list[tuple[Any, Any, str]] = [
    ([1], dict[str, int], "f.json must hold a mapping with texts as keys, not [1]"),
    ({5: 1}, dict[str, int], 'f.json must hold a mapping with texts as keys, not {"5": 1}'),
    ({"a": [1, "b"]}, dict[str, list[int]], 'f.json: a, item 2 must be a whole number, not "b"'),
    ({"a": True}, dict[str, int], "f.json: a must be a whole number, not true"),
    ({"a": float("nan")}, dict[str, float], "f.json: a must be a number, not NaN"),
    ({"a": 10**400}, dict[str, float], f"f.json: a must be a number, not 1{'0' * 79}…"),
    ({"a": None}, dict[str, str | float], "f.json: a must be a text or a number, not null"),
    ({"a": [1]}, dict[str, tuple[float, float]], "f.json: a must be a list of 2, not [1]"),
    ({"e": [{"wins": -1}]}, dict[str, list[Outcome]],
     f"f.json: e, item 1, wins must be a whole number from 0 to {2**63 - 1}, not -1"),
    ({"e": [{"p": 1}]}, dict[str, list[Outcome]], "f.json: e, item 1 lacks the field 'wins'"),
    ({"e": 5}, dict[str, Outcome], "f.json: e must be a mapping with texts as keys, not 5"),
    ({"name": "a"}, Chip, "f.json lacks the field 'flops'"),
    ({"name": "a", "flop": 1}, Chip, "f.json: unknown key 'flop'; did you mean 'flops'?"),
    ({"name": "a", "flops": 0}, Chip, "f.json: flops must be a number above 0, not 0"),
    ({"name": "a", "flops": 1, "kind": "cpu"}, Chip, 'f.json: kind must be gpu or tpu, not "cpu"'),
    (1.5, Annotated[float, Range(least=0, below=1)], "f.json must hold a number from 0 to below 1, not 1.5"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "shape", "sentence"), WRONG)
def test_what_does_not_fit_is_named_by_file_and_key(value, shape, sentence):
    with pytest.raises(UserError) as refused:
        read_as(value, shape, "f.json")
    assert str(refused.value) == sentence


def test_a_typed_dict_keeps_what_a_later_version_may_add():
    value = {"e": [{"wins": 3, "p": None, "new": [1]}]}
    assert read_as(value, dict[str, list[Outcome]], "f.json") == value


def test_a_dataclass_is_made_with_its_defaults():
    assert read_as({"name": "a", "flops": 2, "steps": [1, 2]}, Chip, "f.json") == Chip(
        "a", 2, "gpu", (1, 2)
    )


def test_of_two_mappings_the_one_that_fits_is_taken():
    shape: Any = Outcome | Chip
    assert read_as({"wins": 1}, shape, "f") == {"wins": 1}
    assert read_as({"name": "a", "flops": 1}, shape, "f") == Chip("a", 1)


def test_numbers_that_no_float_holds_are_none():
    values = [1, 1.5, -(10**308), True, None, "1", float("inf"), float("nan"), 10**309]
    assert [is_number(value) for value in values] == [True, True, True, *[False] * 6]


def test_a_field_that_is_null_is_absent():
    fields = Fields(json.loads('{"a": null, "b": 2}'), "f.json")
    assert (fields.integer("a", 7), fields.integer("b")) == (7, 2)
    with pytest.raises(UserError, match=r"^f.json: the field 'c' is missing$"):
        fields.integer("c")
