"""Log-probabilities of given tokens, without logits for all positions at once."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array


def token_logps(hidden_BTD: Array, unembedding_DV: Array, targets_BT: Array) -> Array:
    """Return log softmax(h W)[target], ``[B, T]`` float32, by way of all ``[B, T, V]`` logits.

    For small vocabularies, and where the unembedding itself is trained.
    """
    logits_BTV = jnp.matmul(hidden_BTD, unembedding_DV, preferred_element_type=jnp.float32)
    return _chosen(logits_BTV, targets_BT) - jax.nn.logsumexp(logits_BTV, axis=-1)


def chunked_token_logps(
    hidden_BTD: Array, unembedding_DV: Array, targets_BT: Array, chunk: int
) -> Array:
    """Return what :func:`token_logps` does, with logits for ``chunk`` positions of each row at a
    time.

    The unembedding is frozen and gets **no gradient**. That of the hidden states is Wᵀ(1_target −
    p) per position, up to the factor that comes from above: it is made in the forward pass, while
    the chunk's logits are at hand, so that the backward pass neither keeps nor repeats them.

    Args:
        hidden_BTD: normalized last hidden states.
        unembedding_DV: the frozen matrix W.
        targets_BT: token ids.
        chunk: positions at a time.

    Returns:
        ``[B, T]`` float32.
    """
    return jnp.asarray(_chunked(hidden_BTD, unembedding_DV, targets_BT, chunk))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _chunked(hidden_BTD: Array, unembedding_DV: Array, targets_BT: Array, chunk: int) -> Array:
    return _scan(hidden_BTD, unembedding_DV, targets_BT, chunk, gradient=False)[0]


def _forward(
    hidden_BTD: Array, unembedding_DV: Array, targets_BT: Array, chunk: int
) -> tuple[Array, Array]:
    return _scan(hidden_BTD, unembedding_DV, targets_BT, chunk, gradient=True)


def _backward(chunk: int, slope_BTD: Array, cotangent_BT: Array) -> tuple[Array, None, None]:
    gradient = slope_BTD.astype(jnp.float32) * cotangent_BT[..., None]
    return gradient.astype(slope_BTD.dtype), None, None


_chunked.defvjp(_forward, _backward)


def _scan(
    hidden_BTD: Array, unembedding_DV: Array, targets_BT: Array, chunk: int, *, gradient: bool
) -> tuple[Array, Array]:
    """Return the log-probabilities and, with ``gradient``, their slopes in the hidden states."""
    batch, time, width = hidden_BTD.shape
    chunk = min(chunk, time)
    padding = -time % chunk
    hidden = jnp.pad(hidden_BTD, ((0, 0), (0, padding), (0, 0))).reshape(batch, -1, chunk, width)
    targets = jnp.pad(targets_BT, ((0, 0), (0, padding))).reshape(batch, -1, chunk)

    def step(_: None, part: tuple[Array, Array]) -> tuple[None, tuple[Array, Array]]:
        hidden_BcD, targets_Bc = part
        logits_BcV = jnp.matmul(hidden_BcD, unembedding_DV, preferred_element_type=jnp.float32)
        total_Bc = jax.nn.logsumexp(logits_BcV, axis=-1)
        logps_Bc = _chosen(logits_BcV, targets_Bc) - total_Bc
        if not gradient:
            return None, (logps_Bc, jnp.zeros(()))
        difference_BcV = _is_target(logits_BcV, targets_Bc) - jnp.exp(
            logits_BcV - total_Bc[..., None]
        )
        slope_BcD = jax.lax.dot_general(
            difference_BcV.astype(unembedding_DV.dtype),
            unembedding_DV,
            (((2,), (1,)), ((), ())),
            preferred_element_type=jnp.float32,
        )
        return None, (logps_Bc, slope_BcD.astype(hidden_BcD.dtype))

    _, (logps, slopes) = jax.lax.scan(step, None, (hidden.swapaxes(0, 1), targets.swapaxes(0, 1)))
    logps = logps.swapaxes(0, 1).reshape(batch, -1)[:, :time]
    if gradient:
        slopes = slopes.swapaxes(0, 1).reshape(batch, -1, width)[:, :time]
    return logps, slopes


def _is_target(logits: Array, targets: Array) -> Array:
    # A comparison, unlike a gather, stays where the vocabulary is parted over devices.
    return (
        jax.lax.broadcasted_iota(targets.dtype, logits.shape, logits.ndim - 1) == targets[..., None]
    )


def _chosen(logits: Array, targets: Array) -> Array:
    return jnp.sum(jnp.where(_is_target(logits, targets), logits, 0.0), axis=-1)
