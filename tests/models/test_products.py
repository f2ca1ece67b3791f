"""The product whose backward pass is our own has the values and the gradients of the plain one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from jaxmodpo.models.products import product


def plain_product(x: Array, weight: Array) -> Array:
    return x @ weight


def drawn(*shape: int, dtype: Any = jnp.float32) -> Array:
    return jax.random.normal(jax.random.key(sum(shape)), shape, dtype)


# Narrower and wider outputs go different ways.
@pytest.mark.parametrize(("inputs", "outputs"), [(6, 40), (40, 6), (8, 8)])
@pytest.mark.parametrize("tokens", [(), (5,), (3, 7), (2, 3, 7)])
# In bfloat16 the last place alone is lost. JAX's own gradient of W loses two under jaxlib 0.12, on
# CPUs.
@pytest.mark.parametrize(("dtype", "relative"), [(jnp.float32, 1e-6), (jnp.bfloat16, 2**-8)])
def test_value_and_gradients_are_those_of_float64(inputs, outputs, tokens, dtype, relative):
    x, weight = drawn(*tokens, inputs, dtype=dtype), drawn(inputs, outputs, dtype=dtype)
    cotangent = drawn(*tokens, outputs, dtype=dtype)
    value, pull_back = jax.vjp(product, x, weight)
    of_x, of_weight = pull_back(cotangent)

    def assert_near(got: Array, sums: str, left: Array, right: Array) -> None:
        assert got.dtype == dtype
        # Of all tokens in one axis: NumPy adds up over no ellipsis.
        left64, right64, got64 = (
            np.asarray(array, np.float64).reshape(-1, array.shape[-1])
            for array in (left, right, got)
        )
        exact = np.einsum(sums, left64, right64)
        np.testing.assert_allclose(got64, exact, rtol=0, atol=relative * np.abs(exact).max())

    assert value.shape == (*tokens, outputs) and of_x.shape == x.shape
    assert_near(value, "ti,io->to", x, weight)
    assert_near(of_x, "to,io->ti", cotangent, weight)
    assert_near(of_weight, "ti,to->io", x, cotangent)


def test_what_only_a_frozen_factors_gradient_would_need_is_not_kept():
    x, weight = drawn(3, 7, 6), drawn(6, 40)

    def kept_shapes(function, primal: Array) -> list[tuple[int, ...]]:
        _, pull_back = jax.vjp(function, primal)
        return [array.shape for array in jax.tree.leaves(pull_back)]

    assert kept_shapes(lambda x: product(x, weight), x) == [weight.shape]
    assert kept_shapes(lambda weight: product(x, weight), weight) == [x.shape]


def test_a_cpu_copies_no_wide_factor_into_another_order():
    x, weight, cotangent = drawn(4, 144, 8), drawn(8, 384), drawn(4, 144, 384)

    def gradient(product, x: Array, weight: Array, cotangent: Array) -> Array:
        return jax.vjp(lambda weight: product(x, weight), weight)[1](cotangent)[0]

    def copies_it(product) -> bool:
        lowered = jax.jit(gradient, static_argnums=0).lower(product, x, weight, cotangent)
        return "f32[384,576]" in str(lowered.compile().as_text())

    assert copies_it(plain_product), "this XLA has no need of a product of our own"
    assert not copies_it(product)
