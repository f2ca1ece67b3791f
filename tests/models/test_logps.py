"""Chunked log-probabilities against those from all logits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodpo.bench.logps import BenchLogpsConfig, compiled
from jaxmodpo.models.logps import chunked_token_logps, token_logps


def inputs(batch=3, time=37, width=16, vocabulary=101):
    random = np.random.default_rng(0)
    hidden = jnp.asarray(random.normal(size=(batch, time, width)), jnp.float32)
    unembedding = jnp.asarray(random.normal(size=(width, vocabulary)), jnp.float32)
    return hidden, unembedding, jnp.asarray(random.integers(0, vocabulary, (batch, time)))


@pytest.mark.slow(seconds=2)
@pytest.mark.parametrize("chunk", [1, 8, 37, 64])
def test_values_and_gradients_equal_the_naive_ones(chunk: int):
    hidden, unembedding, targets = inputs()
    coefficients = jnp.asarray(np.random.default_rng(1).normal(size=targets.shape), jnp.float32)
    ours, slope = jax.value_and_grad(
        lambda h: jnp.sum(coefficients * chunked_token_logps(h, unembedding, targets, chunk))
    )(hidden)
    naive, expected = jax.value_and_grad(
        lambda h: jnp.sum(coefficients * token_logps(h, unembedding, targets))
    )(hidden)
    np.testing.assert_allclose(
        chunked_token_logps(hidden, unembedding, targets, chunk),
        token_logps(hidden, unembedding, targets),
        atol=1e-5,
    )
    np.testing.assert_allclose(ours, naive, rtol=1e-5)
    np.testing.assert_allclose(slope, expected, atol=1e-5 * float(jnp.abs(expected).max()))


def test_the_unembedding_gets_no_gradient():
    hidden, unembedding, targets = inputs()
    slope = jax.grad(lambda w: chunked_token_logps(hidden, w, targets, 8).sum())(unembedding)
    assert float(jnp.abs(slope).max()) == 0


def test_chunks_need_an_eighth_of_the_memory_and_the_same_arithmetic():
    config = BenchLogpsConfig(rows=4, length=256, width=64, chunk=16)
    naive, naive_flops = compiled(config, 4096, None)
    chunked, flops = compiled(config, 4096, config.chunk)
    assert chunked < naive / 4 and flops == naive_flops == 4 * 4 * 256 * 64 * 4096
    # Beyond a chunk's logits (three arrays of float32 at most) memory does not grow with the
    # vocabulary.
    larger, _ = compiled(config, 8192, config.chunk)
    assert larger - chunked <= 3 * 4 * config.rows * config.chunk * 4096 + 2 * 2 * 64 * 4096
