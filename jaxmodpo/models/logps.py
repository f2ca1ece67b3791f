"""Log-probabilities of given tokens, without logits for all positions at once.

The logits of a batch are its largest array by far: 16 rows of 1,024 tokens over a vocabulary of
32,000 take 2 GiB in float32, and as much again for their gradient. All that training needs of them
is one number per position. :func:`chunked_token_logps` therefore computes them for a few positions
at a time and forgets them.

Shape suffixes: B batch, T time, c the positions of a chunk, D model width, V vocabulary::

    logps_BT = chunked_token_logps(hidden_BTD, unembedding_DV, targets_BT, chunk=128)
"""

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
    target_logits_BT = _at_targets(logits_BTV, targets_BT)
    total_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
    return target_logits_BT - total_BT


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
    # ``custom_vjp`` loses the type for the type checker, and nothing else happens here.
    return jnp.asarray(_chunked(hidden_BTD, unembedding_DV, targets_BT, chunk))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _chunked(hidden_BTD: Array, unembedding_DV: Array, targets_BT: Array, chunk: int) -> Array:
    logps_BT, _ = _scan(hidden_BTD, unembedding_DV, targets_BT, chunk, gradient=False)
    return logps_BT


# Without a gradient of our own, JAX would differentiate the scan: it would keep every chunk's
# logits for the backward pass, which are all the logits again, or compute each of them twice.
# Instead the forward pass makes the slopes, of the size of the hidden states, and the backward pass
# is one multiplication.


def _forward(
    hidden_BTD: Array, unembedding_DV: Array, targets_BT: Array, chunk: int
) -> tuple[Array, Array]:
    return _scan(hidden_BTD, unembedding_DV, targets_BT, chunk, gradient=True)


def _backward(chunk: int, slope_BTD: Array, cotangent_BT: Array) -> tuple[Array, None, None]:
    # A log-probability depends on the states of its own position alone, so that the chain rule is a
    # product position by position. None: neither the unembedding nor the targets are trained.
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
    # Each chunk has the same positions of all rows, not some rows as a whole: rows are sharded over
    # devices, and so every device has its share of every chunk. Padding is cut off at the end.
    padded_hidden = jnp.pad(hidden_BTD, ((0, 0), (0, padding), (0, 0)))
    padded_targets = jnp.pad(targets_BT, ((0, 0), (0, padding)))
    # [B, chunks, c, D] and [B, chunks, c]
    hidden = padded_hidden.reshape(batch, -1, chunk, width)
    targets = padded_targets.reshape(batch, -1, chunk)

    def step(_: None, chunk_inputs: tuple[Array, Array]) -> tuple[None, tuple[Array, Array]]:
        hidden_BcD, targets_Bc = chunk_inputs
        logits_BcV = jnp.matmul(hidden_BcD, unembedding_DV, preferred_element_type=jnp.float32)
        total_Bc = jax.nn.logsumexp(logits_BcV, axis=-1)
        logps_Bc = _at_targets(logits_BcV, targets_Bc) - total_Bc
        if not gradient:
            return None, (logps_Bc, jnp.zeros(()))
        # d log p(target) / d logits = 1_target − p, and the logits are h W.
        probabilities_BcV = jnp.exp(logits_BcV - total_Bc[..., None])
        difference_BcV = _is_target(logits_BcV, targets_Bc) - probabilities_BcV
        # Contracted over V, the last axis of both: a product with Wᵀ that never transposes W, which
        # may be half a gigabyte.
        contracted_axes = ((2,), (1,))
        no_batch_axes = ((), ())
        slope_BcD = jax.lax.dot_general(
            difference_BcV.astype(unembedding_DV.dtype),
            unembedding_DV,
            (contracted_axes, no_batch_axes),
            preferred_element_type=jnp.float32,
        )
        return None, (logps_Bc, slope_BcD.astype(hidden_BcD.dtype))

    # A scan goes over the first axis, so that the chunks come first on the way in and on the way
    # out.
    chunks_first = (hidden.swapaxes(0, 1), targets.swapaxes(0, 1))
    _, (logps, slopes) = jax.lax.scan(step, None, chunks_first)
    padded_logps = logps.swapaxes(0, 1).reshape(batch, -1)
    logps_BT = padded_logps[:, :time]
    if not gradient:
        return logps_BT, slopes
    padded_slopes = slopes.swapaxes(0, 1).reshape(batch, -1, width)
    slope_BTD = padded_slopes[:, :time]
    return logps_BT, slope_BTD


def _is_target(logits: Array, targets: Array) -> Array:
    """Return which entry of each position's logits is its target's, ``[..., V]``."""
    # A comparison, unlike a gather, stays where the vocabulary is sharded over devices.
    vocabulary_ids = jax.lax.broadcasted_iota(targets.dtype, logits.shape, logits.ndim - 1)
    return vocabulary_ids == targets[..., None]


def _at_targets(logits: Array, targets: Array) -> Array:
    """Return each position's logit of its target, ``[...]``."""
    target_or_zero = jnp.where(_is_target(logits, targets), logits, 0.0)
    return jnp.sum(target_or_zero, axis=-1)
