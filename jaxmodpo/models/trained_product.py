"""The product of activations with a matrix that is trained; its backward pass lets a CPU multiply
at full speed, too::

    inner = trained_product(x, weights["q_proj.A"])
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array


def trained_product(x: Array, weight: Array) -> Array:
    """Return ``x @ W`` ``[..., O]``, in the type that both have.

    The gradient of W ``[I, O]`` is a sum over tokens of two factors, the input and the product's
    gradient. JAX writes it in an order for which XLA on CPUs first makes a transposed copy of the
    product's gradient. Here the narrower factor is the one that is transposed: for a large W that
    saves a quarter of the time, and for the factors of an adapter, 8 by 384, nine tenths. TPUs and
    GPUs multiply in either order alike.

    A frozen matrix wants the plain ``@``: here the input would be kept for a gradient that nobody
    asks for.

    Args:
        x: ``[..., I]``.
        weight: W, ``[I, O]``.
    """
    # ``custom_vjp`` loses the type for the type checker, and nothing else happens here.
    return jnp.asarray(_product(x, weight))


@jax.custom_vjp
def _product(x: Array, weight: Array) -> Array:
    return x @ weight


def _forward(x: Array, weight: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ weight, (x, weight)


def _backward(factors: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, weight = factors
    inputs, outputs = weight.shape
    of_x = cotangent @ weight.T
    if inputs <= outputs:
        return of_x, _over_tokens(x, cotangent)
    return of_x, _kept_in_order(_over_tokens(cotangent, x)).T


_product.defvjp(_forward, _backward)


def _over_tokens(left: Array, right: Array) -> Array:
    """Return ``leftᵀ right``, with all axes but the last summed over: ``[L, R]``."""
    tokens = tuple(range(left.ndim - 1))
    return jax.lax.dot_general(left, right, ((tokens, tokens), ((), ())))


def _kept_in_order(product: Array) -> Array:
    """Return a product that is transposed next. XLA on CPUs must not make the two one product with
    its factors exchanged, which takes seven times as long.
    """
    return jnp.asarray(
        jax.lax.platform_dependent(
            product, cpu=jax.lax.optimization_barrier, default=lambda array: array
        )
    )
