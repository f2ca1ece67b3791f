"""Result files: what is written comes back, and a file of another version or shape is refused."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest

from jaxmodpo.errors import UserError
from jaxmodpo.results.versioned import Result, plain, read_result, write_result
from jaxmodpo.schema import KEY


@dataclass(frozen=True, kw_only=True)
class Part:
    name: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Figures(Result):
    VERSION: ClassVar[int] = 3

    rate: float
    interval: tuple[float, float] | None
    parts: tuple[Part, ...] = ()

    def check(self, source: str) -> None:
        if self.rate > 1:
            raise UserError(f"{source}: rate is above 1")


FIGURES = Figures(rate=0.5, interval=(0.25, 0.75), parts=(Part(name="a"), Part(name="b", note="c")))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_result(tmp_path / "figures.json", FIGURES)
    return tmp_path / "figures.json"


def changed(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_is_written_comes_back_and_the_version_stands_first(path):
    assert read_result(path, Figures) == FIGURES
    written = json.loads(path.read_text())
    assert next(iter(written.items())) == ("version", 3)
    assert written["parts"] == [{"name": "a"}, {"name": "b", "note": "c"}], "defaults are left out"


@pytest.mark.parametrize("version", [2, 4, True, 3.0, "3"])
def test_another_version_is_refused(path, version):
    changed(path, version=version)
    sentence = (
        f"{path} has version {json.dumps(version)}, and this jaxmodpo reads version 3; remove it"
        " and run the command that writes it again, or use the jaxmodpo that wrote it"
    )
    with pytest.raises(UserError, match=f"^{re.escape(sentence)}$"):
        read_result(path, Figures)


def test_a_file_without_a_version_is_refused_whatever_it_holds(path):
    path.write_text('{"anything": 1}')
    with pytest.raises(UserError, match=r"figures\.json has no version: another tool or an early"):
        read_result(path, Figures)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rates": 1}, "figures.json: unknown key 'rates'; did you mean 'rate'?"),
        ({"rate": "high"}, 'figures.json: rate must be a number, not "high"'),
        ({"parts": [{}]}, "figures.json: parts, item 1 lacks the field 'name'"),
        ({"rate": 2}, "figures.json: rate is above 1"),
    ],
)
def test_a_key_that_is_unknown_missing_or_wrong_is_named(path, changes, sentence):
    changed(path, **changes)
    with pytest.raises(UserError, match=re.escape(sentence)):
        read_result(path, Figures)


def test_a_file_that_lacks_a_field_is_refused(path):
    path.write_text('{"version": 3, "rate": 0.5}')
    with pytest.raises(UserError, match=r"figures\.json lacks the field 'interval'"):
        read_result(path, Figures)


def test_dataclasses_inside_mappings_and_lists_become_json_values():
    assert plain({"a": [Part(name="x")], "b": (1, None)}) == {"a": [{"name": "x"}], "b": [1, None]}


@dataclass(frozen=True, kw_only=True)
class Difference(Result):
    difference: float = field(metadata={KEY: "a - b"})


def test_a_field_is_written_and_read_under_the_key_that_it_names(tmp_path):
    path = tmp_path / "difference.json"
    write_result(path, Difference(difference=0.5))
    assert json.loads(path.read_text()) == {"version": 1, "a - b": 0.5}
    assert read_result(path, Difference) == Difference(difference=0.5)
    for content, sentence in (
        ({"version": 1}, "difference.json lacks the field 'a - b'"),
        ({"version": 1, "difference": 0.5}, "difference.json: unknown key 'difference'"),
        ({"version": 1, "a - b": "x"}, 'difference.json: a - b must be a number, not "x"'),
    ):
        path.write_text(json.dumps(content))
        with pytest.raises(UserError, match=re.escape(sentence)):
            read_result(path, Difference)
