"""A cache of keys and values, and attention of new tokens to it, block by block.

A row's result must not depend on how much of the cache is read, because that follows the longest of
its neighbors. So the cache is read in blocks of a fixed number of places by a loop whose body is
compiled once, up to the block that holds the newest token of any row. A block without a place that
a row may see leaves the row's sums as they are, to the bit: it is multiplied by 1 and 0 is added::

    cache of 4 blocks     [ k k k k | k k . . | . . . . | . . . . ]   ".": the row may not see it
    sum of the weights        s0    +   s1    +    0       not read

A block of all rows lies in one piece, and in it the places of one row and head, so that reading a
block is reading memory from one end to the other. With the places of a row side by side instead, as
one would write them down, a CPU took three times as long.

The sums are those of an online softmax (Milakov and Gimelshein, 2018): weights are kept relative to
the largest score so far.

Places are used again where a model has a sliding window: position p stands at place
``p mod length``, so the cache never holds more than the window and the tokens under way. Shape
suffixes: L layers, B rows, T new tokens, S places, N blocks, P places of a block, K key-value
heads, G query heads of each, Q queries of a key-value head, C head width.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxmodpo.models.decoder_config import DecoderConfig

BLOCK = 64
"""places read at a time, of which a cache has whole blocks"""


CACHE_AXES = (None, None, "batch", "kv_heads", None, None)
"""where a cache's axes lie"""


class Cache(NamedTuple):
    """Keys and values of all positions so far, each ``[L, N, B, K, P, C]``."""

    keys: Array
    values: Array

    @property
    def length(self) -> int:
        """Places of a row."""
        return self.keys.shape[1] * self.keys.shape[4]


def cache_shape(config: DecoderConfig, rows: int, length: int) -> tuple[int, ...]:
    """Return the shape of a cache's keys, and of its values.

    Args:
        config: the model's.
        rows: of a batch.
        length: places of a row, a multiple of :data:`BLOCK`.
    """
    assert length % BLOCK == 0, f"a cache of {length} places is no multiple of {BLOCK}"
    layers = config.num_hidden_layers
    heads = config.num_key_value_heads
    blocks = length // BLOCK
    return (layers, blocks, rows, heads, BLOCK, config.head_dim)


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
    places_behind_BS = jnp.mod(newest_B1 - places_S, length)
    cached_positions_BS = newest_B1 - places_behind_BS
    cached_B1S = cached_positions_BS[:, None, :]
    own_BT1 = positions_BT[..., None]
    visible_BTS = (cached_B1S >= 0) & (cached_B1S <= own_BT1)
    if window is not None:
        visible_BTS &= cached_B1S > own_BT1 - window
    return visible_BTS


def written(array_LNBKPC: Array, layer: Array, places_BT: Array, new_BTKC: Array) -> Array:
    """Return a cache with new keys or values of one layer at each row's places.

    A scatter that is told which axes are rows. Assigned by numbers of rows instead, as in
    ``at[layer, block, rows]``, every device would gather the rows of all others, since it cannot
    know that a row's number is its own; and :func:`jax.vmap` would move the rows' axis to the front
    and back, which copies the whole cache.
    """
    layers_BT = jnp.broadcast_to(layer, places_BT.shape)
    blocks_BT = places_BT // BLOCK
    places_in_block_BT = places_BT % BLOCK
    # An index names a layer, a block and a place in it, which are axes 0, 1 and 4 of the cache.
    # What is written there are the other axes, heads and their width: axes 2 and 3 of the update.
    indices_BT3 = jnp.stack([layers_BT, blocks_BT, places_in_block_BT], axis=-1)
    dimensions = jax.lax.ScatterDimensionNumbers(
        update_window_dims=(2, 3),
        inserted_window_dims=(0, 1, 4),
        scatter_dims_to_operand_dims=(0, 1, 4),
        operand_batching_dims=(2,),
        scatter_indices_batching_dims=(0,),
    )
    return jax.lax.scatter(
        array_LNBKPC,
        indices_BT3,
        new_BTKC,
        dimensions,
        unique_indices=True,
        mode=jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS,
    )


def attend(
    q_BTHC: Array, keys_LNBKPC: Array, values_LNBKPC: Array, layer: Array, visible_BTS: Array
) -> Array:
    """Return ``[B, T, H, C]``: softmax(q kᵀ / √C) v over the visible places, the softmax in
    float32.

    Args:
        q_BTHC: queries; H a multiple of K.
        keys_LNBKPC: the cache's keys; place s stands in block ``s // P``.
        values_LNBKPC: the cache's values.
        layer: which layer's are meant.
        visible_BTS: see :func:`visible_places`; at least one place of each token.
    """
    batch, time, heads, width = q_BTHC.shape
    kv_heads, block_places = keys_LNBKPC.shape[3:5]
    groups = heads // kv_heads
    # Divided in float32, and only then rounded to the model's type.
    scaled_BTHC = q_BTHC.astype(jnp.float32) / jnp.sqrt(jnp.float32(width))
    scaled_BTHC = scaled_BTHC.astype(q_BTHC.dtype)
    # The queries of one key-value head as the lines of one matrix, Q = G T, so that each block is
    # two products of matrices as they lie in memory.
    q_BTKGC = scaled_BTHC.reshape(batch, time, kv_heads, groups, width)
    q_BKGTC = jnp.transpose(q_BTKGC, (0, 2, 3, 1, 4))
    q_BKQC = q_BKGTC.reshape(batch, kv_heads, groups * time, width)

    def read(array_LNBKPC: Array, block: Array) -> Array:
        """Return one block of one layer, ``[B, K, P, C]``."""
        start = (layer, block, 0, 0, 0, 0)
        size = (1, 1, *array_LNBKPC.shape[2:])
        block_11BKPC = jax.lax.dynamic_slice(array_LNBKPC, start, size)
        return block_11BKPC[0, 0]

    def add_block(block: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        """Add one block to each query's largest score, sum of weights and weighted values."""
        old_largest_BKQ, sum_BKQ, mixed_BKQC = state
        k_BKPC = read(keys_LNBKPC, block)
        v_BKPC = read(values_LNBKPC, block)
        visible_BTP = jax.lax.dynamic_slice_in_dim(
            visible_BTS, block * block_places, block_places, axis=2
        )
        visible_BQP = jnp.tile(visible_BTP, (1, groups, 1))
        scores_BKQP = _product(q_BKQC, k_BKPC, contracted=(3, 3))
        scores_BKQP = jnp.where(visible_BQP[:, None], scores_BKQP, -jnp.inf)
        block_largest_BKQ = jnp.max(scores_BKQP, axis=-1)
        largest_BKQ = jnp.maximum(old_largest_BKQ, block_largest_BKQ)
        weights_BKQP = jnp.exp(scores_BKQP - largest_BKQ[..., None])
        # What was added up relative to a smaller largest score is brought to the new one.
        shrink_BKQ = jnp.exp(old_largest_BKQ - largest_BKQ)
        added_BKQC = _product(weights_BKQP.astype(v_BKPC.dtype), v_BKPC, contracted=(3, 2))
        sum_BKQ = sum_BKQ * shrink_BKQ + jnp.sum(weights_BKQP, axis=-1)
        mixed_BKQC = mixed_BKQC * shrink_BKQ[..., None] + added_BKQC
        return largest_BKQ, sum_BKQ, mixed_BKQC

    queries_shape = q_BKQC.shape[:3]
    # Lower than any score, and finite: a difference of two infinities would be no number.
    lowest_BKQ = jnp.full(queries_shape, jnp.finfo(jnp.float32).min)
    start = (lowest_BKQ, jnp.zeros(queries_shape), jnp.zeros(q_BKQC.shape))
    places_S = jnp.arange(visible_BTS.shape[2])
    last_place = jnp.max(jnp.where(visible_BTS, places_S, 0))
    blocks = last_place // block_places + 1
    _, sum_BKQ, mixed_BKQC = jax.lax.fori_loop(0, blocks, add_block, start)
    out_BKQC = mixed_BKQC / sum_BKQ[..., None]
    out_BKGTC = out_BKQC.reshape(batch, kv_heads, groups, time, width)
    out_BTKGC = jnp.transpose(out_BKGTC, (0, 3, 1, 2, 4))
    out_BTHC = out_BTKGC.reshape(batch, time, heads, width)
    return out_BTHC.astype(q_BTHC.dtype)


def _product(queries: Array, block: Array, contracted: tuple[int, int]) -> Array:
    """Multiply matrices of each row and key-value head, and add up in float32."""
    query_axis, block_axis = contracted
    contracted_axes = ((query_axis,), (block_axis,))
    row_and_head = ((0, 1), (0, 1))
    return jax.lax.dot_general(
        queries,
        block,
        (contracted_axes, row_and_head),
        preferred_element_type=jnp.float32,
    )
