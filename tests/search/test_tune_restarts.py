"""A search goes on after what happened to it: trials cut off, processes killed, settings changed, a
storage that fails.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from types import SimpleNamespace
from typing import Any, cast

import optuna
import pytest
import sqlalchemy.exc
from optuna.trial import TrialState
from studies import Killed, ending, stored

from jaxmodpo.errors import Preempted, UserError
from jaxmodpo.methods.dpo import DPOConfig
from jaxmodpo.phase import Phase
from jaxmodpo.processes import machine
from jaxmodpo.records import write_pairs
from jaxmodpo.search import trials
from jaxmodpo.search.best import Method
from jaxmodpo.search.study import continue_cut_off, open_storage, storage_in_words
from jaxmodpo.training.session import Session


@pytest.mark.slow(seconds=3)
@pytest.mark.parametrize("end", [Preempted("asked to end"), KeyboardInterrupt(), Killed()])
def test_trials_cut_off_are_queued_again_with_their_settings(pretended, inputs, end):
    folders: list[str] = []
    for _ in range(2):
        with pytest.raises(type(end)):
            pretended(ending(end, folders))

    def well(config: DPOConfig, session: Session) -> float:
        folders.append(config.output_dir.name)
        return 0.6

    assert pretended(well).results["best_trial"] == 2
    assert len(set(folders)) == 1 and len(folders) == 3, (
        "the same settings in the same folder, where the checkpoint lies"
    )
    assert [trial.user_attrs.get("continues") for trial in stored(inputs).trials] == [None, 0, 1]


@pytest.mark.slow(seconds=10)
@pytest.mark.parametrize("prune", [True, False])
def test_a_search_that_is_killed_often_tries_and_prunes_what_an_undisturbed_one_does(
    pretended, inputs, prune
):
    """Fourteen trials: those after the tenth depend on what the earlier ones came to, with their
    evaluations.
    """
    kills = iter([])

    def training(config: DPOConfig, session: Session) -> float:
        config.output_dir.joinpath("begun").touch()
        checkpoint = config.output_dir / "evaluated"
        evaluated = int(checkpoint.read_text()) if checkpoint.exists() else 0
        accuracy = 0.5 + abs(config.beta - 0.3)
        for number in range(evaluated + 1, 5):
            assert session.on_evaluation is not None
            values = {
                "loss": 1.0,
                "rewards/accuracies": accuracy * number / 4,
                "rewards/margins": 0.0,
            }
            session.on_evaluation(number / 2, values)
            checkpoint.write_text(str(number))
            if (end := next(kills, None)) is not None:
                raise end
        return accuracy

    def trials(name: str) -> list[tuple]:
        ended = optuna.load_study(study_name=None, storage=f"sqlite:///{inputs}/{name}.db").trials
        return [
            (t.params, t.state, t.value, t.intermediate_values)
            for t in ended
            if t.state != TrialState.FAIL
        ]

    settings = {"trials": 14, "prune": prune}
    pretended(training, "undisturbed", study=f"sqlite:///{inputs}/undisturbed.db", **settings)
    ends = [
        None,
        Killed(),
        KeyboardInterrupt(),
        None,
        Preempted("end"),
        *[None] * 20,
        Killed(),
        Preempted("end"),
    ]
    kills = iter(ends)
    study = f"sqlite:///{inputs}/disturbed.db"
    for end in filter(None, ends):
        with pytest.raises(type(end)):
            pretended(training, "disturbed", study=study, **settings)
    pretended(training, "disturbed", study=study, **settings)
    assert trials("disturbed") == trials("undisturbed")
    assert any(state == TrialState.PRUNED for _, state, *_ in trials("disturbed")) == prune


@pytest.mark.parametrize("moment", ["asked", "proposed", "broken"])
def test_a_trial_that_ended_before_it_had_a_folder_or_a_reason_keeps_its_place(
    pretended, inputs, monkeypatch, moment
):
    betas: list[float] = []

    def training(config: DPOConfig, session: Session) -> float:
        betas.append(config.beta)
        return 0.6

    pretended(training, "undisturbed", study=f"sqlite:///{inputs}/undisturbed.db", trials=3)
    undisturbed, end = (
        list(betas),
        OSError("the database is gone") if moment == "broken" else Killed(),
    )
    betas.clear()
    pretended(training, trials=1)

    def killing(function):
        def killed(*arguments, **named):
            if moment != "asked":
                function(*arguments, **named)
            raise end

        return killed

    with monkeypatch.context() as patched:
        patched.setattr(trials, "propose", killing(trials.propose))
        with pytest.raises(type(end)):
            pretended(training, trials=3)
    pretended(training, trials=3)
    assert betas == undisturbed


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            "beta: {low: 0.05, high: 0.7}\n  lora_alpha: [4, 8]",
            r"space\.beta\.high was 0\.5, is 0\.7",
        ),
        (
            "beta: {low: 0.05, high: 0.5}\n  lora_alpha: [4, 8, 16]",
            r"space\.lora_alpha was \[4, 8\], is \[4, 8, 16\]",
        ),
        (
            "beta: {low: 0.05, high: 0.5, log: true}\n  lora_alpha: [4, 8]",
            r"space\.beta\.log was False, is True",
        ),
        ("beta: {low: 0.05, high: 0.5}", r"space\.lora_alpha was \[4, 8\], is None"),
    ],
)
@pytest.mark.parametrize("trials", [1, 2])
def test_a_changed_space_is_refused_by_name_also_where_nothing_is_left_to_do(
    pretended, inputs, changed, said, trials
):
    pretended(lambda *_: 0.6)
    (inputs / "space.yaml").write_text(f"preference:\n  {changed}\n")
    with pytest.raises(UserError, match=said):
        pretended(lambda *_: 0.6, trials=trials)
    assert len(stored(inputs).trials) == 1


def test_a_space_that_says_the_same_elsewhere_and_in_another_order_goes_on(pretended, inputs):
    pretended(lambda *_: 0.6)
    (inputs / "moved.yaml").write_text(
        "preference:\n  lora_alpha: [4, 8]  # tried before\n  beta: {high: 5.0e-1, low: 0.05}\n"
    )
    assert (
        pretended(lambda *_: 0.6, trials=2, space=str(inputs / "moved.yaml")).results["trials"] == 2
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"validation_fraction": 0.2}, "validation_fraction was 0.1, is 0.2"),
        ({"prune": False}, "prune was True, is False"),
        ({"evaluations_per_epoch": 4}, "evaluations_per_epoch was 2, is 4"),
        ({"seed": 1}, "seed was 0, is 1"),
        ({}, "the input pairs has changed"),
    ],
)
def test_other_settings_or_pairs_are_no_part_of_a_search_that_began(
    pretended, inputs, changes, said
):
    pretended(lambda *_: 0.6)
    if not changes:
        write_pairs(inputs / "pairs.json", [])
    with pytest.raises(UserError, match=said):
        pretended(lambda *_: 0.6, trials=2, **changes)


def test_a_trial_of_a_process_that_was_killed_goes_on_after_others_are_seen_to_live(
    pretended, inputs
):
    with pytest.raises(Killed):
        pretended(ending(Killed(), []))
    with sqlite3.connect(inputs / "shared.db") as database:
        value = f'"{machine()} {os.getppid()}"'
        database.execute(
            "update trial_user_attributes set value_json = ? where key = 'process'", (value,)
        )
    with pytest.raises(UserError, match="no trial ended well"):
        pretended(lambda *_: 0.6)  # the one trial is under way, by a process that lives
    dead = subprocess.Popen([sys.executable, "-S", "-c", ""])
    dead.wait()
    with sqlite3.connect(inputs / "shared.db") as database:
        value = f'"{machine()} {dead.pid}"'
        database.execute(
            "update trial_user_attributes set value_json = ? where key = 'process'", (value,)
        )
    assert pretended(lambda *_: 0.6).results["best_trial"] == 1


@pytest.mark.slow(seconds=2)
def test_settings_that_kill_their_process_each_time_are_given_up(pretended, inputs):
    folders: list[str] = []
    for _ in range(5):
        with pytest.raises(Killed):
            pretended(ending(Killed(), folders), trials=2)
    assert len(set(folders[:4])) == 1 and folders[4] != folders[0]
    given_up = [t for t in stored(inputs).trials if "reason" in t.user_attrs]
    assert [t.user_attrs["reason"] for t in given_up] == ["4 processes that ran it died"]
    results = pretended(lambda *_: 0.6, trials=2).results
    assert (results["trials"], results["complete"], results["failed"]) == (2, 1, 1), "and it counts"


def test_the_last_trial_is_run_again_where_its_process_died_on_another_machine(pretended, inputs):
    with pytest.raises(Killed):
        pretended(ending(Killed(), []), "elsewhere")
    with sqlite3.connect(inputs / "shared.db") as database:
        database.execute(
            "update trial_user_attributes set value_json = '\"elsewhere:1\"' where key = 'process'"
        )
        database.execute("update trial_heartbeats set heartbeat = '2001-01-01 00:00:00'")
    assert pretended(lambda *_: 0.6).results["best_trial"] == 1
    assert [trial.state.name for trial in stored(inputs).trials] == ["FAIL", "COMPLETE"]


def test_what_becomes_of_anothers_trial_does_not_end_this_search(pretended, inputs):
    """One process is told to end, while another that shares its study trains; and the other way
    round.
    """
    seen: dict[str, list[str]] = {"mine": [], "another's": []}

    def another(config: DPOConfig, session: Session) -> float:
        seen["mine"].append(config.output_dir.name)
        if len(seen["mine"]) == 1:
            with pytest.raises(Preempted):
                pretended(ending(Preempted("asked to end"), seen["another's"]), "another", trials=3)
        return 0.6

    pretended(another, trials=2)
    assert len(seen["mine"]) == 2 and len(seen["another's"]) == 1, (
        "it went on, and left the other's trial alone"
    )

    def both_end(config: DPOConfig, session: Session) -> float:
        seen["mine"].append(config.output_dir.name)
        pretended(lambda *_: 0.7, "another", trials=5)
        raise (
            Preempted("asked to end") if len(seen["mine"]) == 3 else Killed("a search that goes on")
        )

    with pytest.raises(Preempted):
        pretended(both_end, trials=6)
    assert len(seen["mine"]) == 3, (
        "it ended, though the last trial to end was another's and ended well"
    )
    states = [(t.state.name, t.user_attrs.get("continues")) for t in stored(inputs).trials]
    assert ("COMPLETE", 1) in states, "each process goes on with its own"


def test_a_search_that_ends_while_anothers_trial_runs_says_so_and_can_be_ended_later(
    pretended, inputs, caplog
):
    ended: list[Phase] = []

    def training(config: DPOConfig, session: Session) -> float:
        if not ended:
            ended.append(pretended(lambda *_: 0.6, "another", trials=2))
        return 0.9

    caplog.set_level("INFO")
    pretended(training, trials=2)
    sentence = "1 trial still runs in another process; run the same command again when it has ended"
    results = ended[0].results
    assert (results["best_trial"], results["still_running"], results["unfinished"]) == (
        1,
        1,
        sentence,
    )
    assert [record.message for record in caplog.records if record.levelname == "WARNING"].count(
        sentence
    ) == 1
    caplog.clear()
    results = pretended(lambda *_: 0.0, "another", trials=2).results
    assert (results["best_trial"], results["trials"], results["still_running"]) == (0, 2, 0)
    elsewhere = stored(inputs).trials[0].user_attrs["folder"] + "/adapter"
    assert results["best_folder"] == elsewhere and elsewhere.startswith(str(inputs / "search"))
    assert f"its adapter lies in {elsewhere}" in caplog.text and "still run" not in caplog.text


def test_trials_that_were_cut_off_do_not_keep_a_hopeless_search_alive(pretended):
    with pytest.raises(Preempted):
        pretended(ending(Preempted("asked to end"), []), trials=50)
    folders: list[str] = []
    with pytest.raises(UserError, match="the first 5 trials all failed; the last one: broke down"):
        pretended(ending(RuntimeError("broke down\nand more"), folders), trials=50)
    assert len(folders) == 5


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_study_in_memory_is_refused_since_no_later_start_would_find_it(
    tmp_path, monkeypatch, url
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError,
        match=r"^--study names no file; write sqlite:///folder/study\.db, or leave it out$",
    ):
        open_storage(url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_full_disk_under_the_studys_storage_is_a_sentence(wrapped):
    full = sqlalchemy.exc.OperationalError(
        "CREATE TABLE x", {}, sqlite3.OperationalError("database or disk is full")
    )
    sentence = (
        "the study's storage cannot be used: database or disk is full; mend it and run the same"
        " command again, which goes on"
    )
    with pytest.raises(UserError, match=f"^{sentence}$"), storage_in_words():
        if wrapped:
            raise optuna.exceptions.StorageInternalError(
                "an error about postgresql://me:secret@host"
            ) from full
        raise full


def test_a_trial_whose_evaluation_the_storage_did_not_take_goes_on_at_the_next_start(
    tmp_path, monkeypatch
):
    """It has not failed: a search that a busy disk met would choose other settings than one that
    nothing met.
    """
    settings = SimpleNamespace(
        output_dir=tmp_path, beta=0.1, evaluations_per_epoch=2, seed=0, trains=None
    )

    def away(*_: Any) -> None:
        raise sqlalchemy.exc.OperationalError(
            "INSERT", {}, sqlite3.OperationalError("database is locked")
        )

    def run(*_: Any) -> Any:
        monkeypatch.setattr(optuna.Trial, "report", away)
        searching._on_evaluation(0.5, {"rewards/accuracies": 0.5})

    monkeypatch.setattr(trials, "trial_settings", lambda *_: None)
    searching = trials.TrialRunner(cast(Any, settings), Method("align dpo", run), {}, "name")
    study = optuna.create_study()
    sentence = (
        r"did not take an evaluation: .*database is locked; run the same command again, which"
        r" goes on$"
    )
    with pytest.raises(UserError, match=sentence):
        study.optimize(searching.lead, n_trials=1, catch=(trials.TrialFailed,))
    monkeypatch.undo()
    continue_cut_off(study, tmp_path)
    first, again = study.trials
    assert "reason" not in first.user_attrs and first.user_attrs["cut_off"]
    assert (again.state, again.user_attrs["continues"]) == (TrialState.WAITING, first.number)
