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
from jaxmodpo.data.pairs import load_pairs
from jaxmodpo.errors import UserError
from jaxmodpo.losses import Link, dpo_loss
from jaxmodpo.methods.align import (
    policy_examples,
    preference_terms,
    train_policy,
    with_reference,
    with_sft_term,
)
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.policy.distributed import open_together
from jaxmodpo.policy.prompts import policy_text
from jaxmodpo.rankings import LeftOut, PairsPerQuestion
from jaxmodpo.schema import Range
from jaxmodpo.training.session import Session
from jaxmodpo.training.settings import PreferenceTrainingConfig
from jaxmodpo.training.step import Batch, LossTerms


@dataclass(frozen=True, kw_only=True)
class DPOConfig(PreferenceTrainingConfig):
    """Align an adapter to one objective's preference pairs."""

    pairs: Path
    """preference pairs or rankings"""
    pairs_per_question: PairsPerQuestion = "best-worst"
    """of rankings: the ends alone, all pairs, or a number of pairs, the widest gaps first"""
    label_smoothing: Annotated[float, Range(least=0, below=0.5)] = 0.0
    """probability that a preference is wrong; of the sigmoid link alone"""
    link: Link = "sigmoid"
    """sigmoid: DPO; hinge: SLiC; ipo: squared error, on log-probabilities averaged over a
    completion's tokens"""

    def check(self) -> None:
        super().check()
        if self.label_smoothing and self.link != "sigmoid":
            raise UserError(
                "--label-smoothing is of the sigmoid link alone; leave it out with --link"
                f" {self.link}"
            )

    def cost(self, estimator: Estimates) -> Cost:
        return estimator.training(
            self, estimator.pairs(self.pairs, self.pairs_per_question), sequences=2
        )


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["beta"],
    meta_fields=["label_smoothing", "link", "sft_weight"],
)
@dataclass(frozen=True)
class DPO:
    """:func:`jaxmodpo.losses.dpo_loss` on a batch; its two sequences are chosen and rejected."""

    beta: float
    label_smoothing: float = 0.0
    link: Link = "sigmoid"
    sft_weight: float = 0.0

    def __call__(self, logps: Array, tokens: Array, batch: Batch) -> LossTerms:
        reference = batch["reference_logps"]
        per = jnp.maximum(tokens, 1.0) if self.link == "ipo" else 1.0
        losses = dpo_loss(
            *(logps / per).T,
            *(reference / per).T,
            beta=self.beta,
            label_smoothing=self.label_smoothing,
            link=self.link,
        )
        terms = preference_terms(losses, logps, reference, batch["row_weights"], self.beta)
        return with_sft_term(terms, logps, tokens, batch["row_weights"], self.sft_weight)


@in_phase("align dpo", open_together)
def dpo(config: DPOConfig, phase: Phase, session: Session | None = None) -> None:
    """Run ``align dpo``."""
    session = session or Session()
    text = policy_text(config, phase)
    left_out = LeftOut()
    pairs = load_pairs(config.pairs, config.pairs_per_question, left_out)
    examples = policy_examples([pairs], text, config)
    policy = session.policy(config)
    examples = with_reference(policy, examples, config)
    method = DPO(float(config.beta), config.label_smoothing, config.link, config.sft_weight)
    questions = [pair.question_id for pair in pairs]
    train_policy(
        phase,
        policy,
        examples,
        questions,
        method,
        config,
        text,
        session.on_evaluation,
        **left_out.as_dict(),
    )
