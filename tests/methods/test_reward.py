"""Reward models as commands: what they learn, leave out, report and refuse."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sandbox_pairs import some_pairs

from jaxmodpo.data.held_out import held_out
from jaxmodpo.errors import UserError
from jaxmodpo.files import read_json, write_text
from jaxmodpo.methods.modpo import MODPOConfig, modpo
from jaxmodpo.methods.reward import reward
from jaxmodpo.methods.reward_settings import RewardConfig, planned
from jaxmodpo.methods.score import (
    ScoreRewardConfig,
    score_reward,
)
from jaxmodpo.models.roberta import load_roberta
from jaxmodpo.phase import Phase
from jaxmodpo.records import Candidate, Pair, Ranking, write_pairs, write_rankings


def test_a_reward_model_learns_its_pairs_and_is_scored_from_its_folder(
    files, tmp_path, reward_folder
):
    config = ScoreRewardConfig(
        model=reward_folder,
        pairs=files / "safety.json",
        output=tmp_path / "r.jsonl",
        cache_dir=tmp_path / "cache",
    )
    score_reward(config)
    rows = [json.loads(line) for line in config.output.read_text().splitlines()]
    assert [row["question_id"] for row in rows] == [pair.question_id for pair in some_pairs(2)]
    assert np.mean([row["chosen_reward"] > row["rejected_reward"] for row in rows]) > 0.8
    manifest = read_json(reward_folder.parent / "manifest.json")
    assert 0 <= manifest["results"]["held_out_accuracy"] <= 1

    # A second run reads the cache: its values, not the model's, come back.
    cache = next((tmp_path / "cache").iterdir())
    first = config.output.read_bytes()
    cache.touch()
    score_reward(replace(config, output=tmp_path / "again.jsonl"))
    assert (tmp_path / "again.jsonl").read_bytes() == first
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_policy_is_refused_as_a_reward_model(settings, files, tmp_path):
    config = ScoreRewardConfig(
        model=settings["model"], pairs=files / "safety.json", output=tmp_path / "r.jsonl"
    )
    with pytest.raises(UserError, match="mistral"):
        score_reward(config)


def test_a_reward_model_without_a_tokenizer_is_refused(settings, files, tmp_path, reward_folder):
    folder = shutil.copytree(reward_folder, tmp_path / "bare")
    for path in folder.glob("*token*"):
        path.unlink()
    config = MODPOConfig(
        pairs=files / "empathy.json", margin=(f"safety={folder}",), weights=(0.5, 0.5), output_dir=tmp_path / "modpo",
        **settings | {"cache_dir": tmp_path / "cache"},
    )  # fmt: skip
    with pytest.raises(UserError, match="has no tokenizer"):
        modpo(config)


def test_rewards_learn_rankings_refit_on_everything_and_report_what_was_held_out(
    reward_rankings, monkeypatch
):
    config, loaded = reward_rankings, []
    monkeypatch.setattr(
        "jaxmodpo.training.session.load_roberta",
        lambda folder, **how: loaded.append(folder) or load_roberta(folder, **how),
    )
    results = reward(config).results["criteria"]
    assert list(results) == ["empathy", "safety"]
    assert loaded == [config.model], "one loaded base serves every criterion, and both of its runs"
    final = read_json(config.output_dir / "safety" / "manifest.json")["results"]
    first = read_json(config.output_dir / "safety" / "validation" / "manifest.json")["results"]
    validation = read_json(config.output_dir / "safety" / "validation" / "validation.json")
    assert final["examples"] == 23 and final["held_out_examples"] == 0
    assert (final["all_tied_rankings_left_out"], final["tied_pairs_left_out"]) == (1, 2)
    assert (
        final["held_out_accuracy"] == validation["accuracy"] and "the rest" in final["held_out_on"]
    )
    assert final["validated_epochs"] == 4 and final["validated_best_epoch"] == first["best_epoch"]
    assert (
        final["refitted_epochs"] == np.ceil(first["best_epoch"])
        and final["updates"] == 3 * final["refitted_epochs"]
    )
    assert validation["questions"] == 6 and validation["all_pairs"]["pairs"] > 6
    assert read_json(config.output_dir / "safety" / "validation.json") == validation


def test_a_reward_models_training_on_ties_is_refused_where_nothing_else_is_there(
    reward_rankings, tmp_path
):
    level = [
        Ranking(f"q{n}", "post", (Candidate("a", "one"), Candidate("b", "two")), (1, 1))
        for n in range(4)
    ]
    write_rankings(tmp_path / "r.json", level)
    config = replace(
        reward_rankings,
        all=False,
        only=(),
        rankings=tmp_path / "r.json",
        output_dir=tmp_path / "out",
    )
    with pytest.raises(UserError, match="prefers nothing: all replies to each question are tied"):
        reward(config)


def test_replies_that_are_equal_once_cut_are_neither_trained_on_nor_evaluated(
    reward_rankings, tmp_path, monkeypatch
):
    """Of each question's three replies the last two differ behind the cut alone; of a pair of them
    nothing is left.
    """

    class Trained(Exception):
        pass

    def trained_on(**changes: Any) -> list[tuple[int, ...]]:
        """Return the shapes of the tokens to train on and of those held out, without a training."""
        with pytest.raises(Trained) as shapes:
            reward(replace(config, output_dir=tmp_path / "out", **changes))
        shutil.rmtree(tmp_path / "out")
        return list(shapes.value.args)

    def train(problem, batches, config, held, *_):
        raise Trained(batches.examples.tokens.shape[:2], held.examples.tokens.shape[:2])

    monkeypatch.setattr("jaxmodpo.methods.reward.train", train)
    config = replace(reward_rankings, all=False, only=(), refit=False, max_length=24)
    long = "word " * 60
    replies = [
        tuple(map(Candidate, "abc", ("Short.", f"{long}{n} first", f"{long}{n} second")))
        for n in range(8)
    ]
    rankings = [Ranking(f"q{n}", "post", candidates) for n, candidates in enumerate(replies)]
    write_rankings(tmp_path / "r.json", rankings)
    assert trained_on(rankings=tmp_path / "r.json") == [(6, 2), (2, 2)]

    held = held_out([r.question_id for r in rankings], config.validation_fraction, config.seed)
    equal = {int(np.flatnonzero(held)[0]), int(np.flatnonzero(~held)[0])}

    def pairs(equal: set[int]) -> Path:
        rows = [
            Pair(f"q{n}", "post", three[n in equal], three[2]) for n, three in enumerate(replies)
        ]
        write_pairs(tmp_path / "p.json", rows)
        return tmp_path / "p.json"

    assert trained_on(rankings=None, pairs=pairs(equal)) == [(5, 2), (1, 2)]
    with pytest.raises(
        UserError, match="the replies to every held-out question are equal once cut to --max-length"
    ):
        reward(
            replace(
                config,
                rankings=None,
                pairs=pairs(set(np.flatnonzero(held).tolist())),
                output_dir=tmp_path / "none",
            )
        )


@dataclass(frozen=True)
class NoSettings:
    """A command that has none."""


def test_every_criterion_leaves_out_what_is_no_objective_and_shares_what_is_trained(tmp_path):
    for name in ("therapeutic", "gricean"):
        (tmp_path / name).mkdir()
    config = RewardConfig(
        model=tmp_path, pairs=tmp_path / "therapeutic", all=True, output_dir=tmp_path / "rewards"
    )
    files, shared = planned(config)
    assert list(files) == [
        "empathy", "active_listening", "self_motivated_change", "trust_rapport", "patient_autonomy", "safety",
    ]  # fmt: skip
    assert not shared and "overall" in planned(replace(config, only=("overall",)))[0]
    path = tmp_path
    for name, path in files.items():
        write_text(path, "[]")
        Phase.open("reward", NoSettings(), tmp_path / "rewards" / name, {"pairs": path}).finish()
    assert planned(config) == (files, {}), "what was trained on this very file is not another's"
    gricean = replace(config, criteria="gricean", pairs=tmp_path / "gricean")
    files, shared = planned(gricean)
    assert list(files) == ["quantity", "quality", "relation", "manner"]
    assert shared == {"safety": str(tmp_path / "therapeutic" / "safety_pairs.json")}
    assert config.phase_dir != gricean.phase_dir, "both sets may have one folder"
    Phase.open("reward", NoSettings(), tmp_path / "rewards" / "safety", {"pairs": path}).reopen()
    assert "safety" in planned(gricean)[0]


def test_reward_refuses_what_does_not_fit(reward_rankings, tmp_path):
    config = replace(reward_rankings, output_dir=tmp_path / "other")
    one = replace(config, all=False, only=(), rankings=config.rankings / "safety_rankings.json")
    for changed, message in (
        (replace(config, only=("trust_rapport",)), r"no such file: .*trust_rapport_rankings\.json"),
        (replace(config, all=False, rankings=None), "either --pairs or --rankings"),
        (replace(one, refit=False, validation=tmp_path / "x.json"), "--validation-fraction 0"),
        (
            replace(config, refit=False, validation_fraction=0.0, validation=tmp_path / "x.json"),
            "--validation holds the figures of one model",
        ),
        (replace(config, dropout=1.0), r"--dropout must be at least 0 and below 1, not 1"),
        (replace(one, validation_fraction=0.0), "--refit needs a --validation-fraction"),
        (
            replace(one, validation_fraction=0.01),
            r"0\.01 of the questions in .* is not one question to validate on",
        ),
    ):
        with pytest.raises(UserError, match=message):
            reward(changed)
        assert not (tmp_path / "other").exists()
