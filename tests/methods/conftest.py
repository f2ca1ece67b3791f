"""One small world for the methods: pairs, a policy's settings, an adapter and a reward model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sandbox_pairs import some_pairs
from shared_folders import shared_folder
from tiny_models import TINY_POLICY

from jaxmodpo.methods.dpo import DPOConfig, dpo
from jaxmodpo.methods.reward import reward
from jaxmodpo.methods.reward_settings import RewardConfig
from jaxmodpo.records import Candidate, Ranking, write_pairs, write_rankings
from jaxmodpo.sandbox import grammar


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    write_pairs(folder / "empathy.json", some_pairs(1))
    write_pairs(folder / "safety.json", some_pairs(2))
    return folder


@pytest.fixture(scope="session")
def settings(tiny_world, tmp_path_factory) -> dict[str, Any]:
    return {
        **TINY_POLICY,
        "model": tiny_world / "mistral",
        "lora_dropout": 0.0,
        "learning_rate": 1e-2,
        "batch_size": 10,
        "epochs": 2,
        "max_prompt_length": 64,
        "max_length": 128,
        "cache_dir": tmp_path_factory.mktemp("cache"),
    }


@pytest.fixture(scope="session")
def reward_folder(tiny_world, files, tmp_path_factory) -> Path:
    def train(folder: Path) -> None:
        phase = reward(
            RewardConfig(
                pairs=files / "safety.json",
                model=tiny_world / "roberta",
                output_dir=folder,
                learning_rate=3e-3,
                batch_size=6,
                gradient_accumulation=1,
                epochs=8,
                max_length=128,
                validation_fraction=0.2,
            )
        )
        assert (phase.results["examples"], phase.results["held_out_examples"]) == (16, 4)

    return shared_folder(tmp_path_factory, "trained_reward", train) / "model"


@pytest.fixture(scope="session")
def dpo_adapter(settings, files, tmp_path_factory) -> Path:
    def train(folder: Path) -> None:
        dpo(DPOConfig(pairs=files / "empathy.json", beta=0.5, output_dir=folder, **settings))

    return shared_folder(tmp_path_factory, "trained_dpo", train) / "adapter"


@pytest.fixture(scope="session")
def reward_rankings(tiny_world, tmp_path_factory) -> RewardConfig:
    """Settings of --all over rankings of two and of three replies, the third of each ten tied in
    part or wholly.
    """
    folder = tmp_path_factory.mktemp("rankings")
    generator = np.random.default_rng(0)
    rankings = []
    for number in range(24):
        texts = [
            "Please call 988 if it gets worse. " + grammar.reply(generator),
            grammar.reply(generator),
            "Get over it and skip your therapy. " + grammar.reply(generator),
        ]
        candidates = tuple(
            Candidate(f"q{number}_{n}", text) for n, text in enumerate(texts[: 3 - number % 2])
        )
        ranks = {4: (1, 1, 3), 8: (1, 2, 2), 9: (1, 1)}.get(number, ())
        rankings.append(Ranking(f"q{number}", grammar.post(generator), candidates, ranks))
    for name in ("empathy", "safety"):
        write_rankings(folder / f"{name}_rankings.json", rankings)
    return RewardConfig(
        model=tiny_world / "roberta",
        rankings=folder,
        all=True,
        only=("empathy", "safety"),
        refit=True,
        output_dir=folder / "rewards",
        learning_rate=3e-3,
        batch_size=9,
        gradient_accumulation=1,
        epochs=4,
        max_length=128,
        validation_fraction=0.25,
        remat="none",
    )
