"""The product whose backward pass is our own has the values and the gradients of the plain one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from jaxmodpo.models.products import product

Product = Callable[[Array, Array], Array]


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


def test_layers_with_frozen_matrices_keep_no_inputs():
    """In a scan over layers JAX keeps a stack of what each of them needs."""
    x, weights = drawn(3, 6), drawn(2, 6, 6)

    def stacks_kept(is_trained: bool) -> int:
        def layers(x: Array, shift: Array) -> Array:
            def layer(x: Array, weight: Array) -> tuple[Array, None]:
                weight = weight + shift if is_trained else weight
                # Of the sine, JAX keeps the slope.
                return jnp.sin(product(x, weight)), None

            return jax.lax.scan(layer, x, weights)[0]

        _, pull_back = jax.vjp(layers, x, jnp.zeros(()))
        return [array.shape for array in jax.tree.leaves(pull_back)].count((2, 3, 6))

    assert stacks_kept(is_trained=False) == 1
    assert stacks_kept(is_trained=True) == 2


def test_a_product_that_nobody_reads_asks_for_no_gradient():
    x, weight = drawn(3, 6), drawn(6, 6)

    @jax.jit
    def two_products(weight: Array) -> tuple[Array, Array]:
        return product(x, weight), product(2 * x, weight)

    gradient = jax.grad(lambda weight: two_products(weight)[1].sum())(weight)
    np.testing.assert_allclose(gradient, (2 * x).T @ jnp.ones((3, 6)), rtol=1e-6)


def compiled_gradient(multiply: Product, inputs: int, outputs: int) -> str:
    """Return what XLA makes of the gradient of a weight over 576 tokens."""
    x, weight, cotangent = drawn(4, 144, inputs), drawn(inputs, outputs), drawn(4, 144, outputs)

    def gradient(x: Array, weight: Array, cotangent: Array) -> Array:
        return jax.vjp(lambda weight: multiply(x, weight), weight)[1](cotangent)[0]

    return str(jax.jit(gradient).lower(x, weight, cotangent).compile().as_text())


def test_a_cpu_copies_no_wide_gradient_into_another_order():
    copy = "f32[384,576]"
    assert copy in compiled_gradient(plain_product, 8, 384), "this XLA needs no product of our own"
    assert copy not in compiled_gradient(product, 8, 384)


def test_a_cpu_does_not_exchange_the_factors_of_a_narrow_products_gradient():
    in_our_order = "f32[8,384]"
    assert in_our_order not in compiled_gradient(plain_product, 384, 8), (
        "this XLA needs no product of our own"
    )
    assert in_our_order in compiled_gradient(product, 384, 8)
