"""The exact GELU, as torch computes it; its backward pass needs one array, where JAX's keeps three.

Inside a scan over layers::

    inner = gelu(x @ up) @ down
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array


@jax.custom_jvp
def gelu(x: Array) -> Array:
    """Return x Φ(x), exact and not by the hyperbolic tangent; Φ is the normal distribution.

    Computed in float32 and returned in the type of ``x``.
    """
    value, _ = _value_and_slope(x)
    return value


@gelu.defjvp
def _gelu_and_change(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """Return the value, and how it changes with the input: by Φ(x) + x φ(x).

    The slope is computed beside the value, which needs Φ as well, and is all that a backward pass
    has to keep. JAX's own function keeps the factors of which it is made.
    """
    (x,) = primals
    (change,) = tangents
    value, slope = _value_and_slope(x)
    return value, slope * change


def _value_and_slope(x: Array) -> tuple[Array, Array]:
    x32 = x.astype(jnp.float32)
    # By erf, as torch has it, and not by erfc, as JAX has: that is exact far below zero too, where
    # GELU is nothing but rounding, and takes three times as long on a CPU.
    distribution = 0.5 * (1 + jax.lax.erf(x32 * math.sqrt(0.5)))
    density = jnp.exp(-0.5 * x32 * x32) * (1 / math.sqrt(2 * math.pi))
    value = (x32 * distribution).astype(x.dtype)
    slope = (distribution + x32 * density).astype(x.dtype)
    return value, slope
