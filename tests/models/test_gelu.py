"""Our GELU against JAX's, and what it keeps for the backward pass."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodpo.models.gelu import gelu

POINTS = np.concatenate([np.linspace(-12, 12, 241), [-1e4, -0.0, 1e-30, 1e4]])


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 2e-2)])
def test_values_and_slopes_are_those_of_jax(dtype: str, tolerance: float):
    points = jnp.asarray(POINTS, dtype)

    def value_and_slope(function):
        values, pulled_back = jax.vjp(function, points)
        (slopes,) = pulled_back(jnp.ones_like(points))
        assert values.dtype == slopes.dtype == points.dtype
        return np.asarray(values, np.float32), np.asarray(slopes, np.float32)

    values, slopes = value_and_slope(gelu)
    wanted_values, wanted_slopes = value_and_slope(lambda x: jax.nn.gelu(x, approximate=False))
    np.testing.assert_allclose(values, wanted_values, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(slopes, wanted_slopes, rtol=tolerance, atol=tolerance)


def test_values_are_those_of_torch_within_rounding():
    torch = pytest.importorskip("torch", reason="the reference values need torch")
    points = torch.tensor(POINTS)
    wanted = torch.nn.functional.gelu(points).numpy()
    single = torch.nn.functional.gelu(points.float()).double().numpy()
    error = np.abs(np.asarray(gelu(jnp.asarray(POINTS, jnp.float32)), np.float64) - wanted).max()
    assert error <= 1.5 * np.abs(single - wanted).max()


def test_the_backward_pass_keeps_a_single_array():
    points = jnp.asarray(POINTS, jnp.float32)
    _, pulled_back = jax.vjp(gelu, points)
    kept = [array for array in jax.tree.leaves(pulled_back) if array.size == points.size]
    assert len(kept) == 1
