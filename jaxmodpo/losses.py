"""The losses: pure functions of arrays, jittable and differentiable, nothing but JAX and NumPy.

Log-probabilities are sums over a completion's tokens, end-of-sequence token included, in nats. Each
preference loss returns one float32 value per pair, so that the caller decides how to weigh and
average. Arguments must have exactly the shapes named: a ``[pairs, 1]`` array against a ``[pairs]``
one is refused, since broadcasting it would compare every pair with every other.

A pair that the policy already prefers more than the reference does costs less than log 2::

    chosen, rejected = jnp.array([-10.0]), jnp.array([-14.0])
    reference = jnp.array([-12.0])
    dpo_loss(chosen, rejected, reference, reference, beta=0.1)      # [0.513]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

__all__ = [
    "Link",
    "bradley_terry_loss",
    "dpo_loss",
    "joint_dpo_loss",
    "modpo_loss",
    "plackett_luce_loss",
    "sft_loss",
]

Link = Literal["sigmoid", "hinge", "ipo"]


def dpo_loss(
    policy_chosen_logps: ArrayLike,
    policy_rejected_logps: ArrayLike,
    reference_chosen_logps: ArrayLike,
    reference_rejected_logps: ArrayLike,
    *,
    beta: float,
    label_smoothing: float = 0.0,
    link: Link = "sigmoid",
) -> Array:
    r"""Direct preference optimization.

    With :math:`d = (\log\pi_w - \log\pi^{ref}_w) - (\log\pi_l - \log\pi^{ref}_l)` and
    label smoothing :math:`\varepsilon`, the loss is

    - ``sigmoid`` (DPO):
      :math:`-(1-\varepsilon)\log\sigma(\beta d) - \varepsilon\log\sigma(-\beta d)`;
    - ``hinge`` (SLiC): :math:`\max(0, 1 - \beta d)`;
    - ``ipo``: :math:`(d - \tfrac{1}{2\beta})^2`. Its authors average log-probabilities over each
      completion's tokens instead of summing them, or β would mean something else at each length:
      give such averages.

    Args:
        policy_chosen_logps: ``[pairs]``, log-probability of the chosen completion.
        policy_rejected_logps: ``[pairs]``.
        reference_chosen_logps: ``[pairs]``, the same under the reference policy.
        reference_rejected_logps: ``[pairs]``.
        beta: strength of the pull towards the reference, > 0.
        label_smoothing: probability that a label is flipped, in [0, 0.5); of ``sigmoid`` alone.
        link: what becomes of the difference.

    Returns:
        ``[pairs]`` float32.

    Raises:
        ValueError: shapes differ or are not ``[pairs]``; a constant is out of range; an unknown
            link.

    References:
        Rafailov et al., *Direct Preference Optimization*, 2023, eq. 7; Mitchell, *A note on DPO
        with noisy preferences*, 2023, for label smoothing; Zhao et al., *SLiC-HF*, 2023; Azar et
        al., *A General Theoretical Paradigm to Understand Learning from Human Preferences*, 2023,
        eq. 17, for IPO.

    Example:
        >>> import jax.numpy as jnp
        >>> float(dpo_loss(jnp.zeros(1), jnp.zeros(1), jnp.zeros(1), jnp.zeros(1), beta=0.1)[0])
        0.6931471824645996
    """
    if not 0.0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing must lie in [0, 0.5), not {label_smoothing}")
    if label_smoothing and link != "sigmoid":
        raise ValueError(f"label_smoothing belongs to the sigmoid link, not to {link}")
    beta = _check_beta(beta)
    difference = _log_ratio_difference(
        policy_chosen_logps,
        policy_rejected_logps,
        reference_chosen_logps,
        reference_rejected_logps,
        ndim=1,
    )
    if link == "ipo":
        return (difference - 1 / (2 * beta)) ** 2
    logits = beta * difference
    if link == "hinge":
        return jax.nn.relu(1 - logits)
    if link != "sigmoid":
        raise ValueError(f"the link must be sigmoid, hinge or ipo, not {link}")
    as_labeled = jax.nn.log_sigmoid(logits)
    flipped = jax.nn.log_sigmoid(-logits)
    return -(1 - label_smoothing) * as_labeled - label_smoothing * flipped


def modpo_loss(
    policy_chosen_logps: ArrayLike,
    policy_rejected_logps: ArrayLike,
    reference_chosen_logps: ArrayLike,
    reference_rejected_logps: ArrayLike,
    reward_margins: ArrayLike,
    *,
    beta: float,
    weights: Sequence[float] | ArrayLike,
) -> Array:
    r"""Multi-objective direct preference optimization.

    On pairs of the primary objective :math:`k`, with the margins
    :math:`m_j = r_j(x, y_w) - r_j(x, y_l)` of the other objectives' rewards,

    .. math:: -\log\sigma\Big(\tfrac{1}{w_k}\big(\beta\,(\Delta(y_w) - \Delta(y_l))
              - \sum_{j \ne k} w_j m_j\big)\Big), \qquad \Delta(y) = \log\pi(y|x) -
                \log\pi_{ref}(y|x).

    With ``weights = [1, 0, …]`` it is :func:`dpo_loss`.

    Args:
        policy_chosen_logps: ``[pairs]``, log-probability of the completion chosen by the primary.
        policy_rejected_logps: ``[pairs]``.
        reference_chosen_logps: ``[pairs]``.
        reference_rejected_logps: ``[pairs]``.
        reward_margins: ``[margins, pairs]``, unweighted, in the order of ``weights[1:]``.
        beta: strength of the pull towards the reference, > 0.
        weights: ``[1 + margins]`` on the simplex, the primary objective first and > 0. Concrete
            values are checked; traced ones cannot be.

    Returns:
        ``[pairs]`` float32.

    Raises:
        ValueError: wrong shapes, or weights off the simplex.

    References:
        Zhou et al., *Beyond One-Preference-Fits-All Alignment: Multi-Objective Direct Preference
        Optimization*, 2024; the paper's equations 1 and 2.
    """
    difference = _log_ratio_difference(
        policy_chosen_logps,
        policy_rejected_logps,
        reference_chosen_logps,
        reference_rejected_logps,
        ndim=1,
    )
    margins = jnp.asarray(reward_margins, jnp.float32)
    if margins.ndim != 2 or margins.shape[1:] != difference.shape:
        raise ValueError(
            f"reward_margins must be [margins, {difference.shape[0]}], not {list(margins.shape)}"
        )
    beta = _check_beta(beta)
    simplex = _check_weights(weights, 1 + margins.shape[0], positive=1)
    primary_weight = simplex[0]
    # An explicit sum, not a matrix product: TPUs would round the product's inputs to bfloat16.
    weighted_margins = simplex[1:, None] * margins
    penalty = jnp.sum(weighted_margins, axis=0)  # [pairs]
    logits = (beta * difference - penalty) / primary_weight
    return -jax.nn.log_sigmoid(logits)


def joint_dpo_loss(
    policy_chosen_logps: ArrayLike,
    policy_rejected_logps: ArrayLike,
    reference_chosen_logps: ArrayLike,
    reference_rejected_logps: ArrayLike,
    *,
    beta: float,
    weights: Sequence[float] | ArrayLike,
) -> Array:
    r"""Joint-Loss DPO: one sigmoid over the pairs of all objectives for the same question.

    .. math:: -\log\sigma\Big(\sum_k \beta\, w_k\, [\Delta(y_{wk}) - \Delta(y_{lk})]\Big)

    Args:
        policy_chosen_logps: ``[objectives, pairs]``, log-probability of each objective's chosen
            completion.
        policy_rejected_logps: ``[objectives, pairs]``.
        reference_chosen_logps: ``[objectives, pairs]``.
        reference_rejected_logps: ``[objectives, pairs]``.
        beta: strength of the pull towards the reference, > 0.
        weights: ``[objectives]`` on the simplex.

    Returns:
        ``[pairs]`` float32.

    Raises:
        ValueError: wrong shapes, or weights off the simplex.

    References:
        The paper, Methods, "Novel Multi-Objective Method".
    """
    difference = _log_ratio_difference(
        policy_chosen_logps,
        policy_rejected_logps,
        reference_chosen_logps,
        reference_rejected_logps,
        ndim=2,
    )
    beta = _check_beta(beta)
    simplex = _check_weights(weights, difference.shape[0], positive=0)
    weighted_sum = jnp.sum(simplex[:, None] * difference, axis=0)  # [pairs]
    return -jax.nn.log_sigmoid(beta * weighted_sum)


def bradley_terry_loss(chosen_rewards: ArrayLike, rejected_rewards: ArrayLike) -> Array:
    r"""Reward-model loss :math:`-\log\sigma(r(x, y_w) - r(x, y_l))`.

    Args:
        chosen_rewards: ``[pairs]``, the scalar reward of each chosen response.
        rejected_rewards: ``[pairs]``.

    Returns:
        ``[pairs]`` float32.

    Raises:
        ValueError: wrong shapes.

    References:
        Bradley and Terry, 1952; Stiennon et al., *Learning to summarize from human feedback*, 2020.
    """
    better = _float32(chosen_rewards)
    worse = _float32(rejected_rewards)
    _check_shapes([better, worse], ndim=1)
    return -jax.nn.log_sigmoid(better - worse)


def plackett_luce_loss(rewards: ArrayLike, ranks: ArrayLike | None = None) -> Array:
    r"""Reward-model loss of whole rankings: the negative log-likelihood of drawing them best first.

    .. math:: -\sum_i \log \frac{\exp r_i}{\exp r_i + \sum_{j \text{ ranked below } i} \exp r_j}

    Ties are no preference: where candidates share a rank, each is drawn from itself and what is
    ranked below, so that no term compares it with another of its rank. Under the Plackett–Luce
    model each term still is the probability that its candidate beats all below it, whatever the
    others are; with ties the sum is a composite likelihood, without ties the likelihood itself.
    With two candidates it is :func:`bradley_terry_loss`.

    Args:
        rewards: ``[rankings, places]``, each ranking's rewards.
        ranks: ``[rankings, places]``, 1 for the best, equal for ties, 0 where a place is empty; by
            default the places' order, the best first.

    Returns:
        ``[rankings]`` float32; 0 where all candidates are tied.

    Raises:
        ValueError: wrong shapes.

    References:
        Plackett, *The Analysis of Permutations*, 1975; Luce, *Individual Choice Behavior*, 1959
        (the odds of two do not depend on the others); Rafailov et al., 2023, appendix A.3.
    """
    values = _float32(rewards)
    if values.ndim != 2 or values.shape[1] < 2:
        raise ValueError(
            "rewards must be [rankings, places], with at least two places, not"
            f" {list(values.shape)}"
        )
    _, place_count = values.shape
    positions = jnp.arange(1, place_count + 1)
    order = jnp.broadcast_to(positions, values.shape) if ranks is None else jnp.asarray(ranks)
    if order.shape != values.shape:
        raise ValueError(f"ranks must be {list(values.shape)}, not {list(order.shape)}")
    is_candidate = order > 0
    # An empty place must weigh nothing, whatever it holds; minus infinity would make the gradient
    # NaN.
    values = jnp.where(is_candidate, values, -1e30)
    # [rankings, i, j]: the candidates j from which candidate i is drawn: itself and those below.
    below = order[:, None, :] > order[:, :, None]
    itself = positions[:, None] == positions
    drawn_from = (below | itself) & is_candidate[:, None, :]
    values_drawn_from = jnp.where(drawn_from, values[:, None, :], -1e30)
    log_totals = jax.nn.logsumexp(values_drawn_from, axis=2)  # [rankings, places]
    negative_logps = jnp.where(is_candidate, log_totals - values, 0.0)
    return jnp.sum(negative_logps, axis=1)


def sft_loss(token_logps: ArrayLike, completion_mask: ArrayLike) -> Array:
    """Mean negative log-likelihood of the completion tokens, over the whole batch.

    Args:
        token_logps: ``[..., time]``, log-probability of each token given those before it.
        completion_mask: the same shape, 1 where the token belongs to a completion.

    Returns:
        A float32 scalar; 0 where no token is unmasked.

    Raises:
        ValueError: shapes differ.
    """
    logps = _float32(token_logps)
    mask = _float32(completion_mask)
    if logps.shape != mask.shape:
        raise ValueError(
            f"token_logps {list(logps.shape)} and completion_mask {list(mask.shape)} differ in"
            " shape"
        )
    # Masked positions may hold -inf (padding): select, so that neither value nor gradient sees
    # them.
    completion_logps = jnp.where(mask > 0, logps, 0.0) * mask
    tokens = jnp.sum(mask)
    return -jnp.sum(completion_logps) / jnp.maximum(tokens, 1.0)


def _float32(value: ArrayLike | Sequence[Any]) -> Array:
    return jnp.asarray(value, jnp.float32)


def _check_shapes(arrays: Sequence[Array], *, ndim: int) -> None:
    shapes = [list(array.shape) for array in arrays]
    expected = "[pairs]" if ndim == 1 else "[objectives, pairs]"
    if any(len(shape) != ndim or shape != shapes[0] for shape in shapes):
        raise ValueError(f"every array must have the same shape {expected}; got {shapes}")


def _check_beta(beta: float) -> float:
    if not isinstance(beta, Tracer) and not beta > 0:
        raise ValueError(f"beta must be positive, not {beta}")
    return beta


def _check_weights(weights: Sequence[float] | ArrayLike, count: int, *, positive: int) -> Array:
    """Return ``weights`` as ``[count]`` float32 on the simplex; the first ``positive`` must not be
    0.
    """
    array = _float32(weights)
    if array.shape != (count,):
        raise ValueError(f"weights must have shape [{count}], not {list(array.shape)}")
    # Numbers that are being traced have no value yet; inside a compiled function nothing is known.
    traced = isinstance(weights, Tracer) or any(isinstance(w, Tracer) for w in weights)  # type: ignore[union-attr]
    if not traced:
        values = [float(w) for w in np.asarray(weights)]
        is_off_simplex = min(values) < 0 or abs(sum(values) - 1) > 1e-5
        lacks_positive = any(value <= 0 for value in values[:positive])
        if is_off_simplex or lacks_positive:
            rule = "the first positive, " if positive else ""
            raise ValueError(f"weights must be non-negative, {rule}and sum to 1; got {values}")
    return array


def _log_ratio_difference(
    policy_chosen: ArrayLike,
    policy_rejected: ArrayLike,
    reference_chosen: ArrayLike,
    reference_rejected: ArrayLike,
    *,
    ndim: int,
) -> Array:
    """Return Δ(y_w) − Δ(y_l) in float32.

    Each log-ratio is formed before the two are subtracted: equal policies then give exactly 0.
    """
    policy_w = _float32(policy_chosen)
    policy_l = _float32(policy_rejected)
    reference_w = _float32(reference_chosen)
    reference_l = _float32(reference_rejected)
    _check_shapes([policy_w, policy_l, reference_w, reference_l], ndim=ndim)
    chosen_log_ratio = policy_w - reference_w
    rejected_log_ratio = policy_l - reference_l
    return chosen_log_ratio - rejected_log_ratio
