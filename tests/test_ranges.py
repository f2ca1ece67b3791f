"""Every command refuses a number that it cannot work with before it does anything else."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from jaxmodpo.commands import COMMANDS, load
from jaxmodpo.data.scored import PairsConfig
from jaxmodpo.errors import UserError
from jaxmodpo.flags.parse import from_mapping
from jaxmodpo.methods.dpo import DPOConfig
from jaxmodpo.methods.score_kl import ScoreKLConfig, score_kl
from jaxmodpo.personas.command import PersonasConfig, personas
from jaxmodpo.ranges import (
    Count,
    FractionBelowOne,
    Probability,
    Seed,
    Settings,
    declared,
    incidental,
    words,
)
from jaxmodpo.sampling.command import ResponsesConfig, responses
from jaxmodpo.schema import Range

# Weights lie on a simplex, which checks of their own say; points of ranks may be any number.
WITHOUT_RANGE = {"weights", "position_weights"}


def required(settings: type) -> dict[str, Any]:
    """Return something for each setting without a default; no file of these names is there."""
    hints = typing.get_type_hints(settings)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        if (
            field.default is not dataclasses.MISSING
            or field.default_factory is not dataclasses.MISSING
        ):
            continue
        hint = hints[field.name]
        if typing.get_origin(hint) is tuple:
            one = Path("missing") if typing.get_args(hint)[0] is Path else "a=missing"
            values[field.name] = (0.5, 0.5) if field.name == "weights" else (one, one)
        elif typing.get_origin(hint) is Literal:
            values[field.name] = typing.get_args(hint)[0]
        else:
            values[field.name] = Path("missing") if hint is Path else "missing"
    return values


def outside(within: Range) -> Iterator[float]:
    """Yield numbers at the ends of a range that are no part of it."""
    if within.least is not None:
        yield within.least - 1
    if within.above is not None:
        yield within.above
    if within.most is not None:
        yield within.most + 1
    if within.below is not None:
        yield within.below


def holds(hint: Any, kind: type) -> bool:
    """Whether a setting of this type may hold a number of this kind."""
    return hint is kind or any(holds(part, kind) for part in typing.get_args(hint))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_number_of_every_command_has_a_range(name):
    settings, _ = load(name)
    assert issubclass(settings, Settings)
    hints = typing.get_type_hints(settings)
    numbers = {
        key for key, hint in hints.items() if holds(hint, int) or holds(hint, float)
    } - WITHOUT_RANGE
    assert numbers - set(declared(settings)) == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_number_outside_its_range_is_refused_before_anything_is_read_or_written(
    name, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    settings, function = load(name)
    hints = typing.get_type_hints(settings)
    wrong = [
        (key, number, within)
        for key, within in declared(settings).items()
        for number in outside(within)
    ]
    floats = [key for key, hint in hints.items() if holds(hint, float) and key not in WITHOUT_RANGE]
    cases = [
        (key, number, f"must be {words(within)}, not {number}") for key, number, within in wrong
    ]
    cases += [
        (key, n, f"must be a finite number, not {n}")
        for key in floats
        for n in (math.nan, math.inf)
    ]
    for key, number, sentence in cases:
        value = (number,) * 3 if typing.get_origin(hints[key]) is tuple or key == "mesh" else number
        with pytest.raises(UserError) as refused:
            function(settings(**required(settings) | {key: value}))  # type: ignore[operator]
        assert str(refused.value) == f"--{key.replace('_', '-')} {sentence}"
    assert list(tmp_path.iterdir()) == []


def test_ranges_are_said_in_words():
    hints = {"a": Count, "b": Probability, "c": FractionBelowOne, "d": Seed}
    sentences = [words(typing.get_args(hint)[1]) for hint in hints.values()]
    assert sentences == [
        "at least 1",
        "above 0 and at most 1",
        "at least 0 and below 1",
        "from 0 to 4294967295",
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: PersonasConfig(output_dir=Path("o"), survey=(Path("s"),), select=10, train=50),
            "--train must be below",
        ),
        (
            lambda: PairsConfig(input=Path("i"), output_dir=Path("o"), least_gap=-1),
            "--least-gap must be above 0, not -1",
        ),
        (
            lambda: DPOConfig(
                model=Path("m"), pairs=Path("p"), output_dir=Path("o"), max_prompt_length=1024
            ),
            "--max-prompt-length must be below --max-length, not 1024 of 1024",
        ),
        (
            lambda: DPOConfig(
                model=Path("m"), pairs=Path("p"), output_dir=Path("o"), lora_targets=("qproj",)
            ),
            "--lora-targets must be some of q_proj",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make().check()


def test_a_wrong_setting_is_complained_of_before_a_missing_model(tmp_path):
    missing, out = tmp_path / "missing", tmp_path / "out"
    with pytest.raises(UserError, match=r"^--temperature must be at least 0, not -1$"):
        responses(
            ResponsesConfig(questions=missing, model=missing, output_dir=out, temperature=-1.0)
        )
    with pytest.raises(UserError, match=r"^--samples must be at least 1, not 0$"):
        score_kl(
            ScoreKLConfig(
                model=missing, adapter=missing, questions=missing, output_dir=out, samples=0
            )
        )
    with pytest.raises(UserError, match=r"^--train must be below --select"):
        personas(PersonasConfig(output_dir=out, survey=(missing,), select=10, train=50))
    assert not out.exists()


def test_a_file_of_settings_is_refused_by_its_name():
    with pytest.raises(
        UserError, match=r"^demo.yaml, phase pairs: --least-gap must be above 0, not -1$"
    ):
        from_mapping(
            PairsConfig,
            {"input": "i", "output_dir": "o", "least_gap": -1},
            "demo.yaml, phase pairs",
        )


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("questions", {"output_dir"}),
        ("score kl", {"output_dir"}),
        (
            "responses",
            {"output_dir", "api_key_env", "send_questions", "max_concurrency", "share"}
            | {"model_table", "dry_run"},
        ),
        (
            "align dpo",
            {
                "output_dir",
                "cache_dir",
                "keep_checkpoints",
                "track",
                "log_every",
                "save_every",
                "profile",
                "remat",
            }
            | {"mesh", "distributed", "coordinator", "processes", "process_id"},
        ),
        (
            "evaluate",
            {
                "output_dir",
                "max_concurrency",
                "api_key_env",
                "send_personas",
                "timeout",
                "budget",
                "budget_calls",
            }
            | {"retry_errors", "ledger", "poll_seconds", "dry_run", "tokenizer", "model_table"},
        ),
    ],
)
def test_what_is_no_part_of_a_runs_identity_is_said_where_it_is_declared(command, names):
    settings, _ = load(command)
    assert incidental(settings) == names


def test_a_search_has_incidental_settings_besides_its_trainings():
    search, training = load("tune dpo")[0], load("align dpo")[0]
    assert incidental(search) - incidental(training) == {"trials", "study", "keep_trials"}
