"""The search: what trials are compared by, what is refused, and what the best trial leaves."""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.trial import TrialState
from studies import stored

from jaxmodpo.config import load_yaml
from jaxmodpo.errors import UserError
from jaxmodpo.files import read_json
from jaxmodpo.flags.parse import from_mapping
from jaxmodpo.methods.dpo import DPOConfig
from jaxmodpo.methods.reward import reward
from jaxmodpo.methods.reward_settings import RewardConfig
from jaxmodpo.search import trials, tune
from jaxmodpo.search.objective import objective
from jaxmodpo.search.report import write_report
from jaxmodpo.search.tune import (
    TuneDPOConfig,
    TuneJointConfig,
    TuneMODPOConfig,
    TuneRewardConfig,
    TuneSFTConfig,
    tune_dpo,
    tune_reward,
)
from jaxmodpo.training.session import Session


def search(inputs: Path, world: Path, **changes) -> TuneRewardConfig:
    settings: dict[str, Any] = {
        "model": world / "roberta", "pairs": inputs / "pairs.json", "space": str(inputs / "space.yaml"),
        "output_dir": inputs / "search", "trials": 3, "learning_rate": 3e-3, "weight_decay": 0.03, "epochs": 2,
        "batch_size": 8, "gradient_accumulation": 1, "max_length": 128, "validation_fraction": 0.3, "remat": "none",
        "dropout": 0.1,
    }  # fmt: skip
    return TuneRewardConfig(**settings | changes)


def test_accuracy_decides_and_the_margin_breaks_ties_whatever_beta():
    def values(accuracy: float, margin: float) -> dict[str, float]:
        return {"loss": 9.0, "rewards/accuracies": accuracy, "rewards/margins": margin}

    assert objective(values(0.6, 100.0)) < objective(values(0.7, -100.0))
    assert objective(values(0.6, 0.5)) > objective(values(0.6, 0.1))
    assert objective(values(0.6, 0.5), beta=0.5) == pytest.approx(
        objective(values(0.6, 0.1), beta=0.1)
    )
    weighted = values(0.9, 0.0) | {"rewards/weighted_accuracies": 0.4}
    assert objective(weighted) == 0.4
    assert objective({"loss": 2.5}) == -2.5


@pytest.mark.slow(seconds=40)
def test_a_search_ends_with_settings_that_reward_takes_and_figures_that_it_carries(
    inputs, tiny_world
):
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
    assert "Optimization history" in (inputs / "search" / "tune.html").read_text()

    settings = yaml.safe_load((inputs / "search" / "best.yaml").read_text())
    final = reward(
        from_mapping(RewardConfig, settings | {"output_dir": str(inputs / "final")}, "best.yaml")
    )
    measured = read_json(folders[best] / "validation.json")
    assert final.results["examples"] == 20, "trained on everything"
    assert final.results["held_out_accuracy"] == measured["accuracy"]
    stopped, planned = (
        study.trials[best].user_attrs["best_epoch"],
        study.trials[best].params["epochs"],
    )
    assert (
        final.results["held_out_on"]
        == f"trial {best} of the search, after {stopped:g} of {planned} epochs"
    )

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
    assert (phase.results["complete"], phase.results["failed"], phase.results["best_trial"]) == (
        1,
        2,
        0,
    )
    assert "training broke down" in (inputs / "search" / "tune.html").read_text()

    monkeypatch.setattr(
        tune, "reward", lambda config, session: breaking(replace(config, weight_decay=0.5), session)
    )
    with pytest.raises(
        UserError, match="the first 5 trials all failed; the last one: training broke down"
    ):
        tune_reward(search(inputs, tiny_world, output_dir=inputs / "hopeless", trials=50))


@pytest.mark.parametrize(
    "undefined", [{"rewards/margins": float("nan")}, {"rewards/accuracies": float("nan")}]
)
def test_a_trial_whose_figures_are_not_finite_is_never_the_best(undefined):
    values = {"loss": 1.0, "rewards/accuracies": 0.9, "rewards/margins": 1.0} | undefined
    assert math.isnan(objective(values))


def test_figures_that_are_missing_since_they_were_not_finite_fail_a_trial(pretended, monkeypatch):
    monkeypatch.setattr(
        trials, "objective", lambda values, beta: float("nan") if beta == 0.1 else 0.5
    )
    results = pretended(lambda *_: 0.9, trials=2).results
    assert (results["best_trial"], results["failed"]) == (1, 1)


def test_of_equal_trials_the_first_is_the_best_and_its_adapter_stays(pretended, inputs):
    def training(config: DPOConfig, session: Session) -> float:
        (config.output_dir / "adapter").mkdir()
        return 0.6

    assert pretended(training, trials=3).results["best_trial"] == 0
    folders = [Path(trial.user_attrs["folder"]) for trial in stored(inputs).trials]
    assert [(folder / "adapter").is_dir() for folder in folders] == [True, False, False]


def test_a_best_trial_whose_folder_is_gone_is_said(pretended, inputs, caplog):
    pretended(lambda *_: 0.6)
    shutil.rmtree(inputs / "search" / "trials")
    caplog.clear()
    assert pretended(lambda *_: 0.5, trials=2).results["best_trial"] == 0
    assert "adapter is gone from" in caplog.text


@pytest.mark.slow(seconds=2)
def test_a_trial_that_is_worse_than_most_at_the_same_point_is_stopped(pretended, inputs):
    """Optuna's pruner itself decides: nobody answers in its place."""
    begun: list[int] = []

    def training(config: DPOConfig, session: Session) -> float:
        begun.append(0)
        accuracy = 0.3 if len(begun) == 6 else 0.6 + 0.01 * len(begun)
        for evaluation in range(1, 5):
            begun[-1] = evaluation
            assert session.on_evaluation is not None
            values = {"loss": 1.0, "rewards/accuracies": accuracy, "rewards/margins": 0.0}
            session.on_evaluation(evaluation / config.evaluations_per_epoch, values)  # type: ignore[operator]
        return accuracy

    results = pretended(training, trials=7).results
    assert (results["complete"], results["pruned"], results["best_trial"]) == (6, 1, 6)
    assert begun == [4, 4, 4, 4, 4, 1, 4]
    assert stored(inputs).trials[5].state == TrialState.PRUNED
    begun.clear()
    assert pretended(training, "patient", trials=7, prune=False).results["pruned"] == 0


def test_where_nothing_is_held_out_the_reason_says_so(pretended, inputs):
    with pytest.raises(
        UserError,
        match="all failed; the last one: nothing was held out: there are too few questions",
    ):
        pretended(lambda *_: None, trials=50)


def test_the_best_settings_are_read_back_whatever_their_paths_are_called(pretended, inputs):
    # A line break of Unicode's own, and a name that YAML would take for a number.
    hostile = inputs / "pairs\x85of\u2028 today" / "1e-4"
    hostile.mkdir(parents=True)
    (inputs / "pairs.json").rename(hostile / "pairs.json")
    cache = Path("1e-4")
    pretended(lambda *_: 0.6, pairs=hostile / "pairs.json", cache_dir=cache)
    settings = load_yaml(inputs / "search" / "best.yaml")
    config = from_mapping(DPOConfig, settings | {"output_dir": "x"}, "best.yaml")
    assert (config.pairs, config.cache_dir) == (hostile / "pairs.json", cache)


def test_the_best_settings_are_for_any_machine(pretended, inputs):
    pretended(lambda *_: 0.6, mesh=(1, 1, 1))
    settings = yaml.safe_load((inputs / "search" / "best.yaml").read_text())
    assert not {
        "mesh",
        "distributed",
        "coordinator",
        "processes",
        "process_id",
        "output_dir",
    } & set(settings)
    assert from_mapping(DPOConfig, settings | {"output_dir": "x"}, "best.yaml").mesh is None


@pytest.mark.parametrize(
    "config", [TuneSFTConfig, TuneDPOConfig, TuneMODPOConfig, TuneJointConfig, TuneRewardConfig]
)
def test_another_metric_than_trials_are_compared_by_is_refused(config):
    needed = {"model": "m", "output_dir": "o", "pairs": "p"}
    if config is TuneMODPOConfig:
        needed |= {"margin": ["a=b"], "weights": [0.5, 0.5]}
    given = {"pairs": ["a=b", "c=d"], "weights": [0.5, 0.5]} if config is TuneJointConfig else {}
    right, wrong = ("loss", "accuracy") if config is TuneSFTConfig else ("accuracy", "loss")
    settings = from_mapping(config, needed | given, "x")
    assert settings.best_metric == right
    with pytest.raises(UserError, match="best-metric"):
        from_mapping(config, needed | given | {"best_metric": wrong}, "x")


def test_the_report_tells_trials_cut_off_from_failed_ones(tmp_path):
    study = optuna.create_study(direction="maximize")
    study.add_trial(optuna.trial.create_trial(value=0.5, params={}))
    for attributes in ({"reason": "broke down"}, {}, {"continues": 2, "reason": "broke down too"}):
        study.add_trial(
            optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL, user_attrs=attributes)
        )
    write_report(study, tmp_path / "tune.html", "reward", "2 trials still run")
    assert "<strong>2 trials still run.</strong>" in (tmp_path / "tune.html").read_text()
    rows = re.findall(
        r"<tr[^>]*><td>(\d)<td class=\"text\">([a-z ]+)", (tmp_path / "tune.html").read_text()
    )
    assert rows == [("0", "complete"), ("1", "fail"), ("2", "cut off"), ("3", "fail")]


def test_a_search_that_cannot_compare_is_refused(inputs, tiny_world):
    for changes, message in (
        ({"validation_fraction": 0.0}, "--validation-fraction above 0"),
        ({"trials": 0}, "--trials must be at least 1"),
        ({"all": True, "refit": False}, "takes no --all"),
        ({"study": "nosuch://user:password@host/db"}, r"cannot open the study's storage \(\w+\)"),
    ):
        with pytest.raises(UserError, match=message) as refused:
            tune_reward(search(inputs, tiny_world, **changes))
        assert "password" not in str(refused.value)


@pytest.mark.slow(seconds=30)
def test_trials_of_equal_shapes_compile_once_and_hopeless_ones_are_pruned(
    inputs, tiny_world, monkeypatch
):
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
    assert (
        from_mapping(DPOConfig, settings | {"output_dir": "x"}, "best.yaml").beta
        == phase.results["best"]["beta"]
    )
