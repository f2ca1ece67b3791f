"""``bench real`` on two made-up sets in the layouts of the real ones."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxmodpo.bench import real
from jaxmodpo.bench.real import COUNSEL, HARMLESS, BenchRealConfig, bench_real
from jaxmodpo.data.pairs import load_pairs
from jaxmodpo.errors import UserError
from jaxmodpo.files import read_json, write_table
from jaxmodpo.methods.dpo import DPOConfig
from jaxmodpo.methods.modpo import MODPOConfig
from jaxmodpo.methods.reward_settings import RewardConfig
from jaxmodpo.models.adapters import save_adapter
from jaxmodpo.models.model_folder import read_model_config
from jaxmodpo.models.roberta import load_roberta, save_roberta
from jaxmodpo.policy.loaded import load_policy
from jaxmodpo.records import Pair
from jaxmodpo.sandbox import grammar


def made_up(folder: Path, questions: int = 20) -> Path:
    """Write as many HH-RLHF transcripts, and as many questions of three answers with upvotes."""
    generator = np.random.default_rng(0)
    lines, answers = [], []
    for number in range(questions):
        start = f"\n\nHuman: {grammar.post(generator)}\n\nAssistant: "
        better, worse = (
            start + grammar.reply(generator) + f" {side} {number}." for side in ("Yes", "No")
        )
        lines.append(json.dumps({"chosen": better, "rejected": worse}) + "\n")
        post = f"{grammar.post(generator)} {number}"
        for votes in range(3):
            answer = f"<p>{grammar.reply(generator)} {votes}.</p>"
            answers.append({"questionText": post, "answerText": answer, "upvotes": str(votes)})
    for name in (HARMLESS, COUNSEL):
        (folder / name).parent.mkdir(parents=True)
    (folder / HARMLESS).write_bytes(gzip.compress("".join(lines).encode()))
    write_table(folder / COUNSEL, answers, ["questionText", "answerText", "upvotes"])
    return folder


@pytest.mark.slow(seconds=8)
def test_every_model_is_judged_on_both_held_out_sets(tiny_world, tmp_path, capsys, monkeypatch):
    """All but the training: pretraining, rewards and policies would compile for more than a minute.

    Their commands have tests of their own; here they leave untrained models behind.
    """
    trained: list[Any] = []

    def pretrained(config: BenchRealConfig, known: Sequence[Pair]) -> None:
        files = [
            load_pairs(config.output_dir / f"{name}_train.json") for name in ("harmless", "counsel")
        ]
        assert [*known] == [pair for found in files for pair in found], (
            "nothing held out is pretrained on"
        )
        shutil.copytree(tiny_world / "roberta", config.output_dir / "encoder")
        shutil.copytree(tiny_world / "mistral", config.output_dir / "decoder")

    def reward(config: RewardConfig) -> None:
        config.check()
        trained.append(config)
        settings = read_model_config(config.model) | {"reward_max_length": config.max_length}
        encoder = load_roberta(config.model, fresh_head_seed=len(trained))
        save_roberta(config.output_dir / "model", encoder, settings, tokenizer_from=config.model)

    def align(config: DPOConfig | MODPOConfig) -> None:
        config.check()
        trained.append(config)
        policy = load_policy(config.model, base_dtype=config.base_dtype, fresh=config.lora)
        save_adapter(
            config.output_dir / "adapter",
            policy.adapter,
            policy.lora,
            policy.config,
            str(config.model),
        )

    for name, function in (
        ("_pretrain", pretrained),
        ("reward", reward),
        ("dpo", align),
        ("modpo", align),
    ):
        monkeypatch.setattr(real, name, function)
    monkeypatch.setattr(real, "MAX_LENGTH", 128)
    bench_real(
        BenchRealConfig(data=made_up(tmp_path / "data"), output_dir=tmp_path / "out", pairs=20)
    )
    assert [config.pairs.stem for config in trained] == ["harmless_train", *["counsel_train"] * 3]
    assert all(source.folder.exists() for source in trained[-1].sources().values())
    rows = read_json(tmp_path / "out" / "results.json")
    models = ["the longer answer", "reward model", "DPO", "MODPO"]
    assert {(row["model"], row["judged_on"]) for row in rows} == {
        (m, d) for m in models for d in ("harmless", "counsel")
    }
    # One question of counsel is held out: nothing can be said of others from it, so it has no
    # interval.
    assert {row["judged_on"] for row in rows if row["interval"] is None} == {"counsel"}
    intervals = [(row["interval"], row["accuracy"]) for row in rows if row["interval"] is not None]
    assert all(0 <= low <= accuracy <= high <= 1 for (low, high), accuracy in intervals)
    # A fresh adapter is its own reference: no reply is any likelier.
    assert {row["accuracy"] for row in rows if "DPO" in row["model"]} == {0.5}
    for name in ("harmless", "counsel"):
        held = {row["pairs"] for row in rows if row["judged_on"] == name}
        kept = len(read_json(tmp_path / "out" / f"{name}_train.json"))
        assert len(held) == 1 and kept + held.pop() == 20
    assert capsys.readouterr().out.count("| MODPO") == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pretraining_epochs": 0}, "--pretraining-epochs must be at least 1, not 0"),
        ({"reward_epochs": -1}, "--reward-epochs must be at least 1, not -1"),
        ({"pairs": -5}, "--pairs must be at least 0, not -5"),
        ({"pairs": 1}, "1 pairs of harmless are too few"),
    ],
)
def test_what_trains_nothing_is_refused(tmp_path, monkeypatch, changes, said):
    monkeypatch.setattr(real, "_pretrain", None)
    with pytest.raises(UserError, match=said):
        bench_real(
            BenchRealConfig(data=made_up(tmp_path / "data"), output_dir=tmp_path / "out", **changes)
        )


def test_a_set_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=f"no such file: .*{HARMLESS}"):
        bench_real(BenchRealConfig(data=tmp_path, output_dir=tmp_path / "out"))


def test_a_folder_that_was_begun_with_other_settings_is_refused(tmp_path):
    """Its models were pretrained by those, and would be judged as if by these."""
    config = BenchRealConfig(data=tmp_path, output_dir=tmp_path / "out", pretraining_epochs=2)
    real._keep_settings(config)
    real._keep_settings(config)
    with pytest.raises(
        UserError, match=r"out was begun with --pretraining-epochs 2, --seed 0; choose another"
    ):
        real._keep_settings(replace(config, pretraining_epochs=3, seed=1))
    assert read_json(tmp_path / "out" / "settings.json")["pretraining_epochs"] == 2
