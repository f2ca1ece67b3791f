"""Searches of several processes that share a study."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy.exc
from forked_programs import ForkedPrograms
from optuna.trial import TrialState
from studies import stored

GIVEN = """
import json, sys, time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
import optuna
from jaxmodpo.search import best, tune
best.write_report = lambda *_: None
given = json.loads(sys.argv[1])
given |= {name: Path(given[name]) for name in ("model", "pairs", "output_dir")}
"""

APART = """
def training(config, session):
    time.sleep(0.2)
    best = {"loss": 1.0, "rewards/accuracies": 1 - config.beta, "rewards/margins": 0.0}
    return SimpleNamespace(results={"updates": 4, "best_epoch": 1.0} | {f"held_out_{n}": v for n, v in best.items()})
ready = given["model"] / "ready"
ready.with_suffix("." + sys.argv[2]).touch()
while len(list(given["model"].glob("ready.*"))) < 2:
    time.sleep(0.01)
"""

TOGETHER = """
import jax
from jaxmodpo.policy.distributed import DeviceConfig, broadcast, start
me = given["process_id"]
begun = 0
def training(config, session):
    global begun
    begun += 1
    broadcast(lambda: "all are here")
    if begun == 1 or begun == 2 + me:  # in both, then in one, then in the other
        raise RuntimeError(f"trial {begun} ran out of memory in {me}")
    if begun == 4:
        session.on_evaluation(1.0, {"rewards/accuracies": 0.5, "rewards/margins": 0.0})
    if begun == 5:
        session.on_evaluation(1.0, {"rewards/accuracies": 0.1, "rewards/margins": 0.0})
        raise AssertionError("it was to be pruned")
    best = {"loss": 1.0, "rewards/accuracies": 0.5, "rewards/margins": 0.0}
    results = {"updates": 4, "best_epoch": 1.0} | {f"held_out_{n}": v for n, v in best.items()}
    return SimpleNamespace(results={} if me else results)
def report(trial, value, step):
    if begun == 4:
        raise OSError("the database is gone")
optuna.Trial.report = report
optuna.Trial.should_prune = lambda trial: begun == 5
"""


def run_together(
    programs: ForkedPrograms, script: str, inputs: Path, *settings: dict[str, Any]
) -> None:
    """Run a search per settings at the same time, each with a training that is pretended."""
    (inputs / "model").mkdir()
    shared = {
        "model": str(inputs / "model"),
        "pairs": str(inputs / "pairs.json"),
        "space": str(inputs / "space.yaml"),
        "lora_alpha": 4.0,
        "study": f"sqlite:///{inputs}/shared.db",
    }
    program = f"{GIVEN}{script}tune.dpo = training\ntune.tune_dpo(tune.TuneDPOConfig(**given))\n"
    running = [
        programs.start(program, [json.dumps(shared | own), str(number)])
        for number, own in enumerate(settings)
    ]
    programs.end_well(running, seconds=150)


def test_a_database_that_another_process_makes_meanwhile_is_waited_for(pretended, monkeypatch):
    opened: list[int] = []

    class Meanwhile(optuna.storages.RDBStorage):
        def __init__(self, *arguments, **named):
            opened.append(1)
            if len(opened) < 3:
                raise sqlalchemy.exc.OperationalError(
                    "", {}, Exception("table studies already exists")
                )
            super().__init__(*arguments, **named)

    monkeypatch.setattr(optuna.storages, "RDBStorage", Meanwhile)
    assert pretended(lambda *_: 0.6).results["complete"] == 1 and len(opened) == 3


@pytest.mark.slow(seconds=25)
def test_two_processes_share_a_new_study(inputs, forked_programs):
    folders = [inputs / "first", inputs / "second"]
    own = {"trials": 8, "distributed": "off"}
    settings = [own | {"output_dir": str(folder)} for folder in folders]
    run_together(forked_programs, APART, inputs, *settings)
    trials = stored(inputs).trials
    # Both may begin a last one at the same moment.
    assert 8 <= len(trials) <= 9 and {trial.state for trial in trials} == {TrialState.COMPLETE}
    by = [trial.user_attrs["process"] for trial in trials]
    assert len(set(by)) == 2 and min(map(by.count, set(by))) >= 2, "both work"
    own = {"beta": 0.1, "lora_alpha": 4}
    assert [t.number for t in trials if t.params == own] == [0], "the settings given are tried once"
    assert {Path(t.user_attrs["folder"]).parent.parent for t in trials} == set(folders)
    for folder in folders:
        assert (folder / "best.yaml").is_file()


@pytest.mark.slow(seconds=25)
def test_a_trial_that_fails_or_is_pruned_in_one_process_of_several_ends_in_all(
    inputs, forked_programs
):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    place = {"distributed": "explicit", "coordinator": coordinator, "processes": 2, "trials": 6}
    place["output_dir"] = str(inputs / "search")
    settings = [place | {"process_id": number} for number in range(2)]
    run_together(forked_programs, TOGETHER, inputs, *settings)
    states = [trial.state.name for trial in stored(inputs).trials]
    assert states == ["FAIL", "FAIL", "FAIL", "FAIL", "PRUNED", "COMPLETE"]
    assert [trial.user_attrs.get("reason") for trial in stored(inputs).trials] == [
        "trial 1 ran out of memory in 0",
        "trial 2 ran out of memory in 0",
        "trial 3 ran out of memory in 1",
        "the study did not take an evaluation: the database is gone",
        None,
        None,
    ]
