"""Direct preference optimization towards one objective."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
from jax import Array

from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.errors import UserError
from jaxmodpo.flags.help_groups import HelpGroup
from jaxmodpo.losses import Link, dpo_loss
from jaxmodpo.methods.align import PolicyRun
from jaxmodpo.methods.terms import preference_terms, with_sft_term
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.policy.distributed import open_together
from jaxmodpo.ranges import CommandSettings
from jaxmodpo.rankings import PairsPerQuestion
from jaxmodpo.schema import Range
from jaxmodpo.training.session import Session
from jaxmodpo.training.settings import PreferenceTrainingConfig
from jaxmodpo.training.step import Batch, LossTerms


@dataclass(frozen=True, kw_only=True)
class DPOConfig(PreferenceTrainingConfig, CommandSettings, help_group="objective"):
    """Align an adapter to one objective's preference pairs."""

    pairs: Path
    """File of preference pairs or rankings."""
    pairs_per_question: Annotated[PairsPerQuestion, HelpGroup("data")] = "best-worst"
    """Pairs that are made of each ranking. best-worst: its two ends; all: every two replies; a
    number: that many pairs, the widest gaps first."""
    label_smoothing: Annotated[float, Range(least=0, below=0.5)] = 0.0
    """Probability that a preference is taken to be wrong. It needs the sigmoid link."""
    link: Link = "sigmoid"
    """Form of the loss. sigmoid: DPO; hinge: SLiC; ipo: a squared error, on log-probabilities that
    are averaged over a completion's tokens."""

    def check(self) -> None:
        super().check()
        if self.label_smoothing and self.link != "sigmoid":
            raise UserError(
                "--label-smoothing is of the sigmoid link alone; leave it out with --link"
                f" {self.link}"
            )

    def cost(self, estimator: Estimates) -> Cost:
        return estimator.training(self, estimator.replies([self.pairs], self.pairs_per_question))


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["beta"],
    meta_fields=["label_smoothing", "link", "sft_weight"],
)
@dataclass(frozen=True)
class DPO:
    """:func:`jaxmodpo.losses.dpo_loss` on pairs: comparisons of a chosen and a rejected reply."""

    beta: float
    label_smoothing: float = 0.0
    link: Link = "sigmoid"
    sft_weight: float = 0.0

    def __call__(self, logps: Array, tokens: Array, batch: Batch) -> LossTerms:
        reference = batch["reference_logps"]
        # IPO's squared error aims at a fixed margin, which a sum over hundreds of tokens would
        # overshoot: it is taken of means, as in TRL. A row that only fills a batch has no tokens.
        length = jnp.maximum(tokens, 1.0) if self.link == "ipo" else 1.0
        policy_chosen, policy_rejected = (logps / length).T
        reference_chosen, reference_rejected = (reference / length).T
        losses = dpo_loss(
            policy_chosen,
            policy_rejected,
            reference_chosen,
            reference_rejected,
            beta=self.beta,
            label_smoothing=self.label_smoothing,
            link=self.link,
        )
        terms = preference_terms(losses, logps, reference, batch["row_weights"], self.beta)
        return with_sft_term(terms, logps, tokens, batch["row_weights"], self.sft_weight)


@in_phase("align dpo", open_together)
def dpo(config: DPOConfig, phase: Phase, session: Session | None = None) -> None:
    """Run ``align dpo``."""
    run = PolicyRun.begin(config, phase, session)
    data = run.read_pairs(config.pairs, config.pairs_per_question)
    method = DPO(float(config.beta), config.label_smoothing, config.link, config.sft_weight)
    run.train(method, data)
