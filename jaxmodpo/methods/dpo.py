"""Direct preference optimisation towards one objective."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jax import Array

from jaxmodpo.artifacts import Phase
from jaxmodpo.data.pairs import load_pairs
from jaxmodpo.losses import dpo_loss
from jaxmodpo.training.distributed import open_phase
from jaxmodpo.training.policy import (
    PreferenceTrainingConfig,
    fresh_policy,
    policy_examples,
    policy_text,
    preference_terms,
    train_policy,
    with_reference,
    with_sft_term,
)
from jaxmodpo.training.step import Batch, LossTerms


@dataclass(frozen=True, kw_only=True)
class DPOConfig(PreferenceTrainingConfig):
    """Align an adapter to one objective's preference pairs."""

    pairs: Path
    """preference pairs"""
    label_smoothing: float = 0.0
    """probability that a preference is wrong"""


@dataclass(frozen=True)
class DPO:
    """:func:`jaxmodpo.losses.dpo_loss` on a batch; its two sequences are chosen and rejected."""

    beta: float
    label_smoothing: float
    sft_weight: float = 0.0

    def __call__(self, logps: Array, tokens: Array, batch: Batch) -> LossTerms:
        reference = batch["reference_logps"]
        losses = dpo_loss(*logps.T, *reference.T, beta=self.beta, label_smoothing=self.label_smoothing)
        terms = preference_terms(losses, logps, reference, batch["row_weights"], self.beta)
        return with_sft_term(terms, logps, tokens, batch["row_weights"], self.sft_weight)


def dpo(config: DPOConfig) -> Phase:
    """Run ``align dpo``."""
    config.check()
    phase = open_phase("align dpo", config, {"model": config.model, "pairs": config.pairs})
    if phase.finished:
        return phase
    text = policy_text(config)
    pairs = load_pairs(config.pairs)
    examples = policy_examples([pairs], text, config)
    policy = fresh_policy(config)
    examples = with_reference(policy, examples, config)
    method = DPO(config.beta, config.label_smoothing, config.sft_weight)
    train_policy(phase, policy, examples, [pair.question_id for pair in pairs], method, config, text)
    return phase
