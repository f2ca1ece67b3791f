"""Supervised fine-tuning on chosen responses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
from jax import Array

from jaxmodpo.artifacts import Phase
from jaxmodpo.data.examples import policy_chosen
from jaxmodpo.data.pairs import load_pairs
from jaxmodpo.losses import sft_loss
from jaxmodpo.training.policy import PolicyTrainingConfig, fresh_policy, policy_text, train_policy
from jaxmodpo.training.step import Batch, LossTerms


@dataclass(frozen=True, kw_only=True)
class SFTConfig(PolicyTrainingConfig):
    """Fine-tune an adapter on the chosen responses of preference pairs."""

    pairs: Path
    """preference pairs; the rejected responses are not used"""
    learning_rate: float = 2e-5
    """peak, reached after the warm-up; cosine decay to 0 from there"""


@dataclass(frozen=True)
class SFT:
    """Mean negative log-likelihood over completion tokens."""

    def __call__(self, token_logps: Array, completion_mask: Array, batch: Batch) -> LossTerms:
        mask = completion_mask * batch["row_weights"][:, None, None]
        tokens, rows = jnp.sum(mask), jnp.sum(batch["row_weights"])
        return LossTerms(
            total=sft_loss(token_logps, mask) * tokens,
            denominator=tokens,
            metrics={"logps/chosen": jnp.sum(jnp.where(mask > 0, token_logps, 0.0))},
            rows=rows,
        )


def sft(config: SFTConfig) -> Phase:
    """Run ``align sft``."""
    config.check()
    inputs = {"model": config.model, "pairs": config.pairs}
    phase = Phase.open("align sft", config, config.output_dir, inputs)
    if phase.finished:
        return phase
    text = policy_text(config)
    examples = policy_chosen(load_pairs(config.pairs), text)
    policy = fresh_policy(config)
    train_policy(phase, policy, examples, SFT(), config, text)
    return phase
