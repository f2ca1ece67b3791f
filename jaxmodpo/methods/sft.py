"""Supervised fine-tuning on chosen responses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import Array

from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.methods.align import PolicyRun
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.policy.distributed import open_together
from jaxmodpo.ranges import CommandSettings, Positive
from jaxmodpo.training.session import Session
from jaxmodpo.training.settings import PolicyTrainingConfig
from jaxmodpo.training.step import Batch, LossTerms


@dataclass(frozen=True, kw_only=True)
class SFTConfig(PolicyTrainingConfig, CommandSettings, help_group="data"):
    """Fine-tune an adapter on the chosen responses of preference pairs."""

    pairs: Path
    """File of preference pairs or rankings. The rejected responses are not used."""
    learning_rate: Positive = 2e-5
    """Highest learning rate. It is reached after the warm-up and decays to 0 as a cosine."""

    def cost(self, estimator: Estimates) -> Cost:
        return estimator.training(self, estimator.pairs(self.pairs), has_reference=False)


@jax.tree_util.register_static
@dataclass(frozen=True)
class SFT:
    """Mean negative log-likelihood over completion tokens."""

    def __call__(self, logps: Array, tokens: Array, batch: Batch) -> LossTerms:
        weights = batch["row_weights"][:, None]
        # jaxmodpo.losses.sft_loss with its numerator and denominator apart: divided by the tokens
        # of all microbatches together, every token of an update counts the same.
        total = jnp.sum(logps * weights)
        return LossTerms(
            total=-total,
            denominator=jnp.sum(tokens * weights),
            metrics={"logps/chosen": jax.lax.stop_gradient(total)},
            rows=jnp.sum(weights),
        )


@in_phase("align sft", open_together)
def sft(config: SFTConfig, phase: Phase, session: Session | None = None) -> None:
    """Run ``align sft``."""
    run = PolicyRun.begin(config, phase, session)
    run.train(SFT(), run.read_pairs(config.pairs, chosen_only=True))
