"""Dropout by what is dropped, and not by where it lies.

A mask that is drawn for an array as a whole depends on the array's shape. How many rows a batch
has, and which sequence lies in which of them, follows from the number of devices: each mesh would
drop other values and learn another curve. Here a token's draws follow from the key of the update,
from the number that its sequence has in the data set, and from its position there. An update drops
the same values on one device and on many, packed or padded, in one microbatch or in several::

    draws = Draws(key, sequences_BT, positions_BT)
    x_BTD = dropped(x_BTD, draws.numbered(layer), rate=0.1)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


class Draws(NamedTuple):
    """What the dropout of a batch's tokens is drawn from.

    Attributes:
        key: of the update.
        sequences: ``[...]`` int32, the number in the data set of the sequence that a token is of.
        positions: ``[...]`` int32, a token's position in its sequence.
    """

    key: Array
    sequences: Array
    positions: Array

    @classmethod
    def of_rows(
        cls, key: Array | None, sequences: Array | None, positions: Array, shape: tuple[int, ...]
    ) -> Draws | None:
        """Return the draws of rows of tokens, or None where there is no key.

        Args:
            key: of the update; None draws nothing.
            sequences: of each token, or one for each row (``[B, 1]``); None numbers the rows.
            positions: of each token, or the same in all rows (``[1, T]``).
            shape: ``(B, T)``.
        """
        if key is None:
            return None
        if sequences is None:
            rows, _ = shape
            sequences = jnp.arange(rows)[:, None]
        return cls(key, jnp.broadcast_to(sequences, shape), jnp.broadcast_to(positions, shape))

    def at(self, places_BK: Array) -> Draws:
        """Return the draws of some places' tokens, ``[B, K]``, of draws of rows, ``[B, T]``."""
        return self._replace(
            sequences=jnp.take_along_axis(self.sequences, places_BK, axis=1),
            positions=jnp.take_along_axis(self.positions, places_BK, axis=1),
        )

    def numbered(self, number: ArrayLike) -> Draws:
        """Return other draws for the same tokens: of another layer or another projection."""
        return self._replace(key=jax.random.fold_in(self.key, number))

    def is_kept(self, rate: ArrayLike, width: int) -> Array:
        """Draw which of each token's values are kept, ``[..., width]`` bool."""

        def of_token(sequence: Array, position: Array) -> Array:
            token_key = jax.random.fold_in(jax.random.fold_in(self.key, sequence), position)
            return jax.random.bernoulli(token_key, 1 - jnp.asarray(rate), (width,))

        of_all: Any = of_token
        for _ in range(self.sequences.ndim):
            of_all = jax.vmap(of_all)
        return jnp.asarray(of_all(self.sequences, self.positions))


def dropped(x: Array, draws: Draws, rate: ArrayLike) -> Array:
    """Return ``x``, ``[..., D]``, with a share of its values set to 0 and the others raised, so
    that a sum over them has the same mean with and without dropout.
    """
    is_kept = draws.is_kept(rate, x.shape[-1])
    return jnp.where(is_kept, x / (1 - rate), 0).astype(x.dtype)
