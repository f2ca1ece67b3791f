"""Attention of new tokens to a cache of keys and values, block by block.

A row's result must not depend on how much of the cache is read, because that follows the longest of
its neighbors. So the cache is read in blocks of a fixed number of places by a loop whose body is
compiled once, up to the block that holds the newest token of any row. A block without a place that
a row may see leaves the row's sums as they are, to the bit: it is multiplied by 1 and 0 is added::

    cache of 4 blocks     [ k k k k | k k . . | . . . . | . . . . ]   ".": the row may not see it
    sum of the weights        s0    +   s1    +    0       not read

The sums are those of an online softmax (Milakov and Gimelshein, 2018): weights are kept relative to
the largest score so far.

Places are used again where a model has a sliding window: position p stands at place
``p mod length``, so the cache never holds more than the window and the tokens under way. Shape
suffixes: L layers, B rows, T new tokens, S places, P places of a block, K key-value heads, G query
heads of each, C head width.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

BLOCK = 64
"""places read at a time; a cache's length is a multiple of it"""


def visible_places(positions_BT: Array, length: int, window: int | None) -> Array:
    """Return which places of a cache each new token may attend to, ``[B, T, S]``.

    Args:
        positions_BT: the new tokens' positions; they stand in the cache already, and a row's last
            token is its newest.
        length: the cache's places.
        window: how many positions a token sees, itself included; None for all before it.
    """
    places_S = jnp.arange(length)
    newest_B1 = positions_BT[:, -1:]
    # What stands at a place is the newest position that falls on it, if the row came so far.
    held_BS = newest_B1 - jnp.mod(newest_B1 - places_S, length)
    held_B1S = held_BS[:, None, :]
    visible_BTS = (held_B1S >= 0) & (held_B1S <= positions_BT[..., None])
    if window is not None:
        visible_BTS &= held_B1S > positions_BT[..., None] - window
    return visible_BTS


def attend(
    q_BTHC: Array, keys_LBSKC: Array, values_LBSKC: Array, layer: Array, visible_BTS: Array
) -> Array:
    """Return ``[B, T, H, C]``: softmax(q kᵀ / √C) v over the visible places, the softmax in
    float32.

    Args:
        q_BTHC: queries; H a multiple of K.
        keys_LBSKC: the cache's keys; S a multiple of :data:`BLOCK`.
        values_LBSKC: the cache's values.
        layer: which layer's are meant.
        visible_BTS: see :func:`visible_places`; at least one place of each token.
    """
    batch, time, heads, width = q_BTHC.shape
    length, kv_heads = keys_LBSKC.shape[2:4]
    assert length % BLOCK == 0, f"a cache of {length} places is no multiple of {BLOCK}"
    groups = heads // kv_heads
    scaled = q_BTHC.astype(jnp.float32) / jnp.sqrt(jnp.float32(width))
    q_BTKGC = scaled.astype(q_BTHC.dtype).reshape(batch, time, kv_heads, groups, width)

    def read(array_LBSKC: Array, block: Array) -> Array:
        start = (layer, 0, block * BLOCK, 0, 0)
        return jax.lax.dynamic_slice(array_LBSKC, start, (1, batch, BLOCK, kv_heads, width))[0]

    def add_block(block: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        largest_BKGT, sum_BKGT, mixed_BKGTC = state
        k_BPKC, v_BPKC = read(keys_LBSKC, block), read(values_LBSKC, block)
        seen_BTP = jax.lax.dynamic_slice_in_dim(visible_BTS, block * BLOCK, BLOCK, axis=2)
        scores_BKGTP = jnp.einsum(
            "btkgc,bpkc->bkgtp", q_BTKGC, k_BPKC, preferred_element_type=jnp.float32
        )
        scores_BKGTP = jnp.where(seen_BTP[:, None, None], scores_BKGTP, -jnp.inf)
        now_BKGT = jnp.maximum(largest_BKGT, jnp.max(scores_BKGTP, axis=-1))
        weights_BKGTP = jnp.exp(scores_BKGTP - now_BKGT[..., None])
        shrink_BKGT = jnp.exp(largest_BKGT - now_BKGT)
        added_BKGTC = jnp.einsum(
            "bkgtp,bpkc->bkgtc",
            weights_BKGTP.astype(v_BPKC.dtype),
            v_BPKC,
            preferred_element_type=jnp.float32,
        )
        sum_BKGT = sum_BKGT * shrink_BKGT + jnp.sum(weights_BKGTP, axis=-1)
        return now_BKGT, sum_BKGT, mixed_BKGTC * shrink_BKGT[..., None] + added_BKGTC

    heads_shape = (batch, kv_heads, groups, time)
    # Lower than any score, and finite: a difference of two infinities would be no number.
    nothing_yet = jnp.full(heads_shape, jnp.finfo(jnp.float32).min)
    start = (nothing_yet, jnp.zeros(heads_shape), jnp.zeros((*heads_shape, width)))
    last_place = jnp.max(jnp.where(visible_BTS, jnp.arange(length), 0))
    blocks = last_place // BLOCK + 1
    _, sum_BKGT, mixed_BKGTC = jax.lax.fori_loop(0, blocks, add_block, start)
    out_BKGTC = mixed_BKGTC / sum_BKGT[..., None]
    out_BTKGC = jnp.transpose(out_BKGTC, (0, 3, 1, 2, 4))
    return out_BTKGC.reshape(batch, time, heads, width).astype(q_BTHC.dtype)
