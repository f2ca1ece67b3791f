"""From losses to what the training step adds up: the reductions that preference methods share.

A method computes one loss for each row of a batch, and reduces them::

    terms = preference_terms(losses, logps, reference_logps, batch["row_weights"], beta=0.1)
    terms = with_sft_term(terms, logps, tokens, batch["row_weights"], weight=0.5)
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from jaxmodpo.training.step import LossTerms


def preference_terms(
    losses: Array,
    policy_logps: Array,
    reference_logps: Array,
    row_weights: Array,
    beta: float,
    weighted_accuracies: Array | None = None,
) -> LossTerms:
    """Reduce the losses of a batch's rows, with TRL's metrics.

    Args:
        losses: ``[rows]``.
        policy_logps: ``[rows, 2 × objectives]``, chosen and rejected of each objective in turn.
        reference_logps: the same shape.
        row_weights: ``[rows]``, 0 for rows that only fill up the batch.
        beta: of the implicit rewards β (log π − log π_ref).
        weighted_accuracies: ``[rows]``, of several objectives: the weights' share of those whose
            preference the implicit rewards agree with.
    """
    assert losses.ndim == 1 and policy_logps.shape == reference_logps.shape
    # The metrics are looked at and not learned from: no gradient may flow through them.
    rewards = jax.lax.stop_gradient(beta * (policy_logps - reference_logps))
    chosen_rewards = rewards[:, 0::2]
    rejected_rewards = rewards[:, 1::2]
    row_metrics = {
        "rewards/chosen": chosen_rewards.mean(1),
        "rewards/rejected": rejected_rewards.mean(1),
        "rewards/accuracies": (chosen_rewards > rejected_rewards).mean(1, dtype=jnp.float32),
        "rewards/margins": (chosen_rewards - rejected_rewards).mean(1),
        "logps/chosen": jax.lax.stop_gradient(policy_logps[:, 0::2].mean(1)),
        "logps/rejected": jax.lax.stop_gradient(policy_logps[:, 1::2].mean(1)),
    }
    if weighted_accuracies is not None:
        row_metrics["rewards/weighted_accuracies"] = jax.lax.stop_gradient(weighted_accuracies)
    return LossTerms.of_rows(losses, row_weights, row_metrics)


def with_sft_term(
    terms: LossTerms,
    logps: Array,
    tokens: Array,
    row_weights: Array,
    weight: float,
    objectives: Sequence[float] = (1.0,),
) -> LossTerms:
    """Add the chosen completions' negative log-likelihood, so that alignment does not make them
    less likely.

    A preference loss cares for differences alone and may lower chosen and rejected together, moving
    probability to texts that nobody wrote. Per row the term is
    ``weight × Σ_k objectives_k × mean over tokens of −log π(chosen_k)``.

    Args:
        terms: of the preference loss.
        logps: ``[rows, 2 × objectives]``, of completions.
        tokens: the same shape, how many tokens each has.
        row_weights: ``[rows]``, 0 for rows that only fill up the batch.
        weight: of the term; with 0 nothing is added.
        objectives: each objective's weight.

    References:
        Pang et al., *Iterative Reasoning Preference Optimization*, 2024; TRL's ``rpo_alpha``.
    """
    if weight == 0:
        return terms
    # A row that only fills up the batch has no tokens, and 0 / 0 times a weight of 0 is not 0.
    chosen_logps = logps[:, 0::2]
    chosen_tokens = tokens[:, 0::2]
    nll = -chosen_logps / jnp.maximum(chosen_tokens, 1.0)
    row_nll = jnp.sum(nll * jnp.asarray(objectives, jnp.float32), axis=1)
    total_nll = jnp.sum(row_nll * row_weights)
    metrics = {**terms.metrics, "nll_loss": jax.lax.stop_gradient(total_nll)}
    total = terms.total + weight * total_nll
    return LossTerms(total, terms.denominator, metrics, terms.rows)
