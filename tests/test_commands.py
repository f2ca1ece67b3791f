"""Every command of the table: settings that check, name what they read and say their cost, and one
way to run.
"""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

from jaxmodpo.commands import COMMANDS, load
from jaxmodpo.costs import Cost
from jaxmodpo.dry_run import dry_run
from jaxmodpo.errors import UserError
from jaxmodpo.estimate import Estimator, chip_named
from jaxmodpo.experiment import run_experiment
from jaxmodpo.ranges import CommandSettings, incidental

PHASES = sorted(name for name in COMMANDS if name != "run")
"""commands that an experiment file may name"""

JUDGED: dict[str, Any] = {"personas": "p.json", "judge": "endpoint", "judge_model": "m"}
POLICY: dict[str, Any] = {"model": "m", "pairs": "p.json"}
SEARCH = POLICY | {"validation_fraction": 0.1}
SEVERAL: dict[str, Any] = {"weights": [0.5, 0.5]}
MARGINS: dict[str, Any] = SEVERAL | {"margin": {"safety": "r"}}

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "demo": ({"seeds": 0}, "--seeds must be at least 1"),
    "fit": ({"batch_size": 0}, "--batch-size must be at least 1"),
    "questions": ({"input": ["posts.csv"], "test_size": 3}, "--test-size must be at least 4"),
    "personas": ({"synthesize": 20, "select": 10, "train": 50}, "--train must be below --select"),
    "pairs": ({"input": "a.csv", "least_gap": -1}, "--least-gap must be above 0"),
    "reward": ({"model": "m"}, "either --pairs or --rankings"),
    "align sft": (POLICY | {"epochs": 0}, "--epochs must be at least 1"),
    "align dpo": (
        POLICY | {"label_smoothing": 0.1, "link": "ipo"},
        "--label-smoothing is of the sigmoid link alone",
    ),
    "align modpo": (POLICY | MARGINS | {"weights": [0.5, 0.6]}, "sum to 1"),
    "align joint": (POLICY | SEVERAL | {"pairs": {"a": "p.json"}}, "at least two --pairs"),
    "soup": ({"adapters": ["a"], "weights": [1.0]}, "at least two --adapters"),
    "export": ({"model": "m", "adapter": "a", "shard_mib": 0}, "--shard-mib must be at least 1"),
    "responses": ({"questions": "q.csv"}, "needs --model"),
    "preferences": (
        JUDGED | {"responses": "r.csv", "max_concurrency": 0},
        "--max-concurrency must be at least 1",
    ),
    "evaluate": (JUDGED | {"responses": {"a": "r.csv"}}, "at least two models"),
    "probes": ({"samples": 1}, "probes needs --model, a folder"),
    "toxicity": (
        {"responses": {"a": "r.csv"}, "scorer": "classifier"},
        "--scorer classifier needs --model",
    ),
    "votes": ({"ledger": "v.sqlite", "output": "v.txt"}, "parquet"),
    "judges": ({"ledger": ["v.sqlite"], "bootstrap": 0}, "--bootstrap must be at least 1"),
    "score policy": (
        POLICY | {"output": "o.jsonl", "batch_size": 0},
        "--batch-size must be at least 1",
    ),
    "score reward": (
        POLICY | {"output": "o.jsonl", "batch_size": 0},
        "--batch-size must be at least 1",
    ),
    "score kl": (
        {"model": "m", "adapter": "a", "questions": "q.csv", "samples": 0},
        "--samples must be at least 1",
    ),
    "report": ({"inputs": ["out"], "title": [1]}, "title"),
    "verify": ({"folders": []}, "name at least one folder"),
    "study sample": (
        {"evaluation": "e", "models": ["a", "a"]},
        "--models needs two different models",
    ),
    "study simulate": ({"study": "s.json", "tie_rate": 2.0}, "--tie-rate must be from 0 to 1"),
    "study analyze": (
        {"study": "s.json", "annotations": "a.csv", "outcomes": "o.csv", "bootstrap": 0},
        "--bootstrap must be at least 1",
    ),
    "study serve": ({"study": "s.json", "port": 70000}, "--port must be"),
    "study links": ({"study": "s.json", "count": 0}, "say how many links to make with --count"),
    "study status": ({"study": ["s.json"]}, "study takes one value"),
    "study export": ({"study": "s.json", "output": "a.txt"}, "a\\.txt"),
    "tune reward": (SEARCH | {"refit": True}, "takes no --all, --refit or --validation"),
    "tune sft": (SEARCH | {"trials": 0}, "--trials must be at least 1"),
    "tune dpo": (SEARCH | {"space": "nowhere"}, "nowhere"),
    "tune modpo": (SEARCH | MARGINS | {"weights": [0.5, 0.6]}, "sum to 1"),
    "tune joint": (SEARCH | SEVERAL | {"pairs": {"a": "p.json"}}, "at least two --pairs"),
    "sweep": (
        POLICY | {"margin": {"safety": "r"}, "questions": "q.csv", "score": ["empathy=rubric"]},
        "--score must",
    ),
    "schemas": ({"output_dir": [1]}, "output_dir"),
    "bench sample": ({"temperature": 0.0}, "a --temperature above 0"),
    "bench step": ({"batch_size": 0}, "--batch-size must be at least 1"),
    "bench reward": ({"remat": ()}, "needs one of --batchings and --remat at least"),
    "bench losses": ({"losses": ()}, "needs a loss, a length and a vocabulary"),
    "bench logps": ({"rows": 0}, "must be at least 1"),
    "bench parity": ({"seed": -1}, "must be"),
    "bench load": ({"layers": 0}, "must be at least 1"),
    "bench real": ({"data": "d", "reward_epochs": 0}, "must be at least 1"),
    "bench resume": ({"kills": 0}, "must be at least 1"),
    "bench judge": ({"calls": 0}, "must be at least 1"),
    "bench study": ({"raters": 0}, "--raters must be at least 1"),
    "bench injection": ({"max_concurrency": 0}, "must be at least 1"),
    "bench scale": ({"layers": ()}, "--layers needs one number at least"),
    "bench analysis": ({"personas": [0]}, "must be at least 1"),
    "bench coverage": ({"draws": 0}, "--draws must be at least 1"),
    "sandbox world": ({"posts": 0}, "--posts must be at least 1"),
    "sandbox check": ({"responses": [1]}, "responses"),
    "sandbox fronts": ({"seed": -1}, "--seed must be"),
    "sandbox tune": ({"seed": -1}, "--seed must be"),
}
"""of every command, settings that cannot be, and what is said of them"""


def experiment(folder: Path, command: str, settings: dict[str, Any]) -> Path:
    first = {"name": "first", "command": "sandbox world", "settings": {"posts": 40}}
    phases = [first, {"name": "last", "command": command, "settings": settings}]
    path = folder / "e.yaml"
    path.write_text(yaml.safe_dump({"phases": phases}))
    return path


def test_no_command_is_without_a_wrong_setting_here():
    assert sorted(WRONG) == PHASES


@pytest.mark.parametrize("command", PHASES)
def test_a_wrong_setting_of_a_later_phase_is_refused_before_the_first(tmp_path, command):
    settings, told = WRONG[command]
    path = experiment(tmp_path, command, settings)
    with pytest.raises(UserError, match=rf"e\.yaml, phase last.*{told}"):
        run_experiment(path, tmp_path / "out")
    with pytest.raises(UserError, match=rf"e\.yaml, phase last.*{told}"):
        dry_run(path, tmp_path / "out", None, {}, "v5e")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", PHASES)
def test_a_command_is_settings_and_a_function_of_them_alone(command):
    settings, function = load(command)
    assert issubclass(settings, CommandSettings) and dataclasses.is_dataclass(settings)
    assert not inspect.isabstract(settings), "what it costs is to be said, if only as unknown"
    assert callable(function)
    folder = {field.name for field in dataclasses.fields(settings)} & {"output_dir"}
    assert folder <= incidental(settings) or command in (
        "demo",
        "bench real",
        "sandbox tune",
        "sandbox fronts",
    )


@pytest.mark.parametrize("command", PHASES)
def test_what_a_command_costs_is_a_number_or_unknown_and_never_forgotten(command, tmp_path):
    """With inputs that are not there, what computes or buys costs something that is not known."""
    settings, _ = load(command)
    given: dict[str, Any] = {"weights": (0.5, 0.5), "judge": "rubric", "model": tmp_path / "absent"}
    given |= {
        "adapters": (tmp_path / "a", tmp_path / "b"),
        "input": (tmp_path / "posts.csv",),
        "inputs": (),
    }
    if command in ("evaluate", "toxicity"):
        given |= {"responses": ("a=a.csv", "b=b.csv"), "scorer": "classifier"}
    if command in ("align joint", "tune joint"):
        given["pairs"] = ("a=a.json", "b=b.json")
    if command in ("align modpo", "tune modpo", "sweep"):
        given |= {
            "margin": ("safety=r",),
            "score": ("empathy=rubric", "safety=rubric"),
            "weights": "0.1..0.9",
        }
    values = {}
    for field in dataclasses.fields(settings):
        required = (
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        if required or (field.name == "model" and field.default is None):
            values[field.name] = given.get(field.name, tmp_path / "absent")
    if command == "evaluate":
        # None of them is required where votes are there already.
        names = ("responses", "personas", "judge")
        values |= {name: given.get(name, tmp_path / "absent") for name in names}
    cost = Estimator(chip_named("v5e")).phase(settings(**values))
    quick = {
        "schemas",
        "pairs",
        "votes",
        "judges",
        "report",
        "verify",
        "sandbox check",
        "questions",
        "personas",
        "study sample",
        "study serve",
        "study links",
        "study status",
        "study export",
        "study simulate",
        "study analyze",
    }
    assert isinstance(cost, Cost)
    assert bool(cost.unknown) == (command not in quick), cost
