"""A search in this process, with a training in DPO's place that is told its settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from studies import Training

from jaxmodpo.methods.dpo import DPOConfig
from jaxmodpo.phase import Phase
from jaxmodpo.records import Candidate, Pair, write_pairs
from jaxmodpo.sandbox import grammar
from jaxmodpo.search import best as best_of_search
from jaxmodpo.search import tune
from jaxmodpo.search.tune import (
    TuneDPOConfig,
    tune_dpo,
)
from jaxmodpo.training.session import Session

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
            Candidate("c", "Please call 988 if it gets worse. " + grammar.reply(generator)),
            Candidate("r", "Get over it and skip your therapy. " + grammar.reply(generator)),
        )
        for number in range(20)
    ]
    write_pairs(tmp_path / "pairs.json", pairs)
    (tmp_path / "space.yaml").write_text(SPACE)
    return tmp_path


@pytest.fixture
def pretended(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Phase]:
    """Search, in this process, with a training in DPO's place that is told its settings and returns
    an accuracy.

    Without an accuracy nothing was held out.
    """
    (inputs / "model").mkdir()

    def pretend(training: Training, name: str = "search", **changes) -> Phase:
        def run(config: DPOConfig, session: Session) -> SimpleNamespace:
            config.output_dir.mkdir(parents=True, exist_ok=True)
            accuracy = training(config, session)
            if accuracy is None:
                return SimpleNamespace(results={"updates": 4})
            best = {"loss": 1.0, "rewards/accuracies": accuracy, "rewards/margins": 0.0}
            held_out = {f"held_out_{name}": value for name, value in best.items()}
            return SimpleNamespace(results={"updates": 4, "best_epoch": 0.5} | held_out)

        settings: dict[str, Any] = {
            "model": inputs / "model", "pairs": inputs / "pairs.json", "space": str(inputs / "space.yaml"), "trials": 1,
            "output_dir": inputs / name, "lora_alpha": 4.0, "study": f"sqlite:///{inputs}/shared.db",
            "distributed": "off",
        }  # fmt: skip
        with monkeypatch.context() as patched:
            patched.setattr(tune, "dpo", run)
            patched.setattr(
                best_of_search, "write_report", lambda *_: None
            )  # its plots take seconds
            return tune_dpo(TuneDPOConfig(**settings | changes))

    return pretend
