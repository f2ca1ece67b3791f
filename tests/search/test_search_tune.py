"""The search: spaces, what trials are compared by, and a study that survives what happens to it."""

from __future__ import annotations

import re
import socket
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
import yaml

from jaxmodpo.artifacts import Candidate, Pair, read_json, write_pairs
from jaxmodpo.config import from_mapping
from jaxmodpo.errors import Preempted, UserError
from jaxmodpo.methods.dpo import DPOConfig
from jaxmodpo.methods.reward import RewardConfig, reward
from jaxmodpo.sandbox import grammar
from jaxmodpo.search import tune
from jaxmodpo.search.report import write_report
from jaxmodpo.search.space import Dimension, load_space
from jaxmodpo.search.tune import TuneDPOConfig, TuneRewardConfig, objective, tune_dpo, tune_reward

SPACE = """
reward:
  learning_rate: {low: 1.0e-5, high: 1.0e-2, log: true}
  weight_decay: {low: 0.01, high: 0.15}
  epochs: {low: 1, high: 2}
preference:
  beta: {low: 0.05, high: 0.5}
  lora_alpha: [4, 8]
"""


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    generator = np.random.default_rng(2)
    pairs = [
        Pair(
            f"q{number}",
            grammar.post(generator),
            Candidate("c", "Please call 988 if you feel unsafe. " + grammar.reply(generator)),
            Candidate("r", "You must work harder. " + grammar.reply(generator)),
        )
        for number in range(20)
    ]
    write_pairs(tmp_path / "pairs.json", pairs)
    (tmp_path / "space.yaml").write_text(SPACE)
    return tmp_path


def search(inputs: Path, world: Path, **changes) -> TuneRewardConfig:
    settings = {
        "model": world / "roberta", "pairs": inputs / "pairs.json", "space": str(inputs / "space.yaml"),
        "output_dir": inputs / "search", "trials": 3, "learning_rate": 3e-3, "weight_decay": 0.03, "epochs": 2,
        "batch_size": 8, "gradient_accumulation": 1, "max_length": 128, "validation_fraction": 0.3, "remat": "none",
        "dropout": 0.1,
    }  # fmt: skip
    return TuneRewardConfig(**settings | changes)  # type: ignore[arg-type]


# --------------------------------------------------------------------------- parts


def test_accuracy_decides_and_the_margin_breaks_ties_whatever_beta():
    def values(accuracy: float, margin: float) -> dict[str, float]:
        return {"loss": 9.0, "rewards/accuracies": accuracy, "rewards/margins": margin}

    assert objective(values(0.6, 100.0)) < objective(values(0.7, -100.0))
    assert objective(values(0.6, 0.5)) > objective(values(0.6, 0.1))
    assert objective(values(0.6, 0.5), beta=0.5) == pytest.approx(objective(values(0.6, 0.1), beta=0.1))
    weighted = values(0.9, 0.0) | {"rewards/weighted_accuracies": 0.4}
    assert objective(weighted) == 0.4
    assert objective({"loss": 2.5}) == -2.5


def test_the_papers_space_holds_the_papers_defaults():
    for part, settings in (("preference", DPOConfig), ("reward", RewardConfig)):
        space = load_space("paper", part, settings)
        for name, dimension in space.items():
            default = next(f.default for f in settings.__dataclass_fields__.values() if f.name == name)
            if default is not None and (part, name) not in {("reward", "batch_size")}:
                assert dimension.holds(default), (part, name)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("preference: {betta: [1]}", "unknown setting"),
        ("preference: {beta: {low: 2, high: 1}}", "low the smaller one"),
        ("preference: {beta: {low: 0.0, high: 1.0, log: true}}", "above 0 where log"),
        ("preference: {beta: 3}", "a list of choices, or low, high"),
        ("preference: {beta: {low: 1, hihg: 2}}", "a list of choices, or low, high"),
        ("sft: {epochs: [1]}", "no space for 'preference'"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(tmp_path, text, said):
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(UserError, match=said):
        load_space(str(tmp_path / "s.yaml"), "preference", DPOConfig)


def test_whole_ends_make_whole_numbers():
    trial = optuna.trial.FixedTrial({"a": 2, "b": 0.5, "c": "x"})
    assert Dimension(low=1, high=3).suggest(trial, "a") == 2  # type: ignore[arg-type]
    assert Dimension(low=0.0, high=1.0).suggest(trial, "b") == 0.5  # type: ignore[arg-type]
    assert Dimension(choices=("x", "y")).suggest(trial, "c") == "x"  # type: ignore[arg-type]


# --------------------------------------------------------------------------- searches


@pytest.mark.slow(seconds=40)
def test_a_search_ends_with_settings_that_reward_takes_and_figures_that_it_carries(inputs, tiny_world):
    config = search(inputs, tiny_world)
    phase = tune_reward(config)
    assert phase.results["trials"] == 3 and phase.results["failed"] == 0
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{inputs}/search/study.db")
    assert study.study_name.startswith("tune reward ")
    own = {"learning_rate": 3e-3, "weight_decay": 0.03, "epochs": 2}
    assert study.trials[0].params == own, "the settings given are the first trial"
    best = phase.results["best_trial"]
    assert study.trials[best].value == max(t.value for t in study.trials if t.value is not None)
    folders = {t.number: Path(t.user_attrs["folder"]) for t in study.trials}
    assert [n for n, folder in folders.items() if (folder / "model").exists()] == [best]
    assert "Optimisation history" in (inputs / "search" / "tune.html").read_text()

    settings = yaml.safe_load((inputs / "search" / "best.yaml").read_text())
    final = reward(from_mapping(RewardConfig, settings | {"output_dir": str(inputs / "final")}, "best.yaml"))
    measured = read_json(folders[best] / "validation.json")
    assert final.results["examples"] == 20, "trained on everything"
    assert final.results["held_out_accuracy"] == measured["accuracy"]
    assert final.results["held_out_on"] == f"trial {best} of the search"

    assert tune_reward(config).finished
    more = tune_reward(replace(config, trials=4))
    assert more.results["trials"] == 4, "a finished search goes on when more trials are asked for"


@pytest.mark.slow(seconds=30)
def test_a_failed_trial_has_a_reason_and_is_never_the_best(inputs, tiny_world, monkeypatch):
    run = tune.reward

    def breaking(config, session):
        if config.weight_decay != 0.03:
            raise UserError("training broke down")
        return run(config, session)

    monkeypatch.setattr(tune, "reward", breaking)
    phase = tune_reward(search(inputs, tiny_world))
    assert (phase.results["complete"], phase.results["failed"], phase.results["best_trial"]) == (1, 2, 0)
    assert "training broke down" in (inputs / "search" / "tune.html").read_text()

    monkeypatch.setattr(tune, "reward", lambda config, session: breaking(replace(config, weight_decay=0.5), session))
    with pytest.raises(UserError, match="the first 5 trials all failed; the last one: training broke down"):
        tune_reward(search(inputs, tiny_world, output_dir=inputs / "hopeless", trials=50))


def test_trials_cut_off_are_queued_again_with_their_settings(inputs, tiny_world, monkeypatch):
    started: list[dict] = []

    def ended(config, session):
        started.append({"weight_decay": config.weight_decay, "folder": config.output_dir.name})
        raise Preempted("asked to end")

    monkeypatch.setattr(tune, "reward", ended)
    config = search(inputs, tiny_world)
    for _ in range(2):
        with pytest.raises(Preempted):
            tune_reward(config)
    assert started[0] == started[1], "the same settings in the same folder, where the checkpoint lies"
    # A process that was killed leaves its trial running.
    with sqlite3.connect(inputs / "search" / "study.db") as database:
        database.execute("update trials set state = 'RUNNING' where number = 1")
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        value = f'"{socket.gethostname()}:{dead.pid}"'
        database.execute(
            "update trial_user_attributes set value_json = ? where key = 'process' and trial_id = 2", (value,)
        )
        database.execute("delete from trial_user_attributes where key = 'cut_off' and trial_id = 2")
    with pytest.raises(Preempted):
        tune_reward(config)
    assert started[2] == started[0]


def test_the_report_tells_trials_cut_off_from_failed_ones(tmp_path):
    study = optuna.create_study(direction="maximize")
    study.add_trial(optuna.trial.create_trial(value=0.5, params={}))
    for attributes in ({"reason": "broke down"}, {}, {"continues": 2, "reason": "broke down too"}):
        study.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL, user_attrs=attributes))
    write_report(study, tmp_path / "tune.html", "reward")
    rows = re.findall(r"<tr[^>]*><td>(\d)<td class=\"text\">([a-z ]+)", (tmp_path / "tune.html").read_text())
    assert rows == [("0", "complete"), ("1", "fail"), ("2", "cut off"), ("3", "fail")]


def test_a_search_that_cannot_compare_is_refused(inputs, tiny_world):
    for changes, said in (
        ({"validation_fraction": 0.0}, "--validation-fraction above 0"),
        ({"trials": 0}, "--trials of at least 1"),
        ({"all": True, "refit": False}, "takes no --all"),
        ({"study": "nosuch://user:password@host/db"}, r"cannot open the study's storage \(\w+\)"),
    ):
        with pytest.raises(UserError, match=said) as refused:
            tune_reward(search(inputs, tiny_world, **changes))
        assert "password" not in str(refused.value)


@pytest.mark.slow(seconds=30)
def test_trials_of_equal_shapes_compile_once_and_hopeless_ones_are_pruned(inputs, tiny_world, monkeypatch):
    from jaxmodpo.training.step import train_step

    compiled: dict[int, int] = {}

    def should_prune(self: optuna.Trial) -> bool:
        compiled[self.number] = train_step._cache_size()  # type: ignore[attr-defined]
        return self.number == 2

    monkeypatch.setattr(optuna.Trial, "should_prune", should_prune)
    phase = tune_dpo(
        TuneDPOConfig(
            model=tiny_world / "mistral", pairs=inputs / "pairs.json", space=str(inputs / "space.yaml"),
            output_dir=inputs / "search", trials=3, base_dtype="float32", lora_rank=4, lora_alpha=8.0, beta=0.1,
            lora_dropout=0.1, learning_rate=1e-3, batch_size=8, gradient_accumulation=1, epochs=1,
            max_prompt_length=64, max_length=128, remat="none", validation_fraction=0.3, cache_dir=inputs / "cache",
        )
    )  # fmt: skip
    assert set(compiled) == {0, 1, 2} and len(set(compiled.values())) == 1
    assert phase.results["pruned"] == 1
    settings = yaml.safe_load((inputs / "search" / "best.yaml").read_text())
    assert from_mapping(DPOConfig, settings | {"output_dir": "x"}, "best.yaml").beta == phase.results["best"]["beta"]
