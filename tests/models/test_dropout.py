"""Dropout is drawn by token, whatever rows the tokens lie in."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodpo.models.dropout import Draws, dropped


def draws(sequences: list[list[int]], positions: list[list[int]]) -> Draws:
    return Draws(jax.random.key(3), jnp.array(sequences), jnp.array(positions))


def test_a_token_drops_the_same_values_wherever_it_lies():
    padded = draws([[7, 7, 7], [9, 9, 9]], [[0, 1, 2], [0, 1, 2]]).is_kept(0.5, 64)
    packed = draws([[9, 9, 7, 7, 7]], [[0, 1, 0, 1, 2]]).is_kept(0.5, 64)
    np.testing.assert_array_equal(packed[0, 2:], padded[0])
    np.testing.assert_array_equal(packed[0, :2], padded[1, :2])


def test_tokens_sequences_layers_and_updates_drop_other_values():
    here = draws([[7, 7, 8]], [[0, 1, 0]])
    masks = [
        *here.is_kept(0.5, 64)[0],
        here.numbered(1).is_kept(0.5, 64)[0, 0],
        here._replace(key=jax.random.key(4)).is_kept(0.5, 64)[0, 0],
    ]
    different = {np.asarray(mask).tobytes() for mask in masks}
    assert len(different) == len(masks)


def test_the_share_that_is_dropped_and_the_mean_are_what_the_rate_says():
    ones = jnp.ones((20, 30, 40))
    drawn = Draws.of_rows(jax.random.key(0), None, jnp.arange(30)[None], (20, 30))
    assert drawn is not None
    result = np.asarray(dropped(ones, drawn, 0.2))
    assert set(np.unique(result)) == {np.float32(0), np.float32(1) / np.float32(0.8)}
    # 24,000 draws: the standard error of the share is 0.0026.
    assert abs((result == 0).mean() - 0.2) < 0.01
    # No row, position or width drops otherwise than the others: 600 or more draws each.
    for axes in ((1, 2), (0, 2), (0, 1)):
        assert np.abs((result == 0).mean(axes) - 0.2).max() < 0.08


def test_without_a_key_nothing_is_drawn():
    assert Draws.of_rows(None, None, jnp.arange(3)[None], (2, 3)) is None
