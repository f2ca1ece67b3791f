"""One table per architecture: name → shape, logical axes, initializer, Hugging Face key.

Initialization, sharding, loading and saving all read the same table, so a parameter cannot exist
for one of them and be forgotten by another. Layers are stacked along a leading ``layers`` axis,
which lets the forward pass scan over them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

Parameters = dict[str, Array]
"""a model's or an adapter's arrays by name"""


@dataclass(frozen=True)
class Spec:
    """One parameter.

    Attributes:
        shape: as used here; a leading layer count for stacked parameters.
        axes: a logical axis name per dimension (see ``models.axes.RULES``), or None.
        key: the Hugging Face tensor's name, with ``{layer}`` where stacked.
        initializer: ``normal`` (standard deviation 0.02), ``zeros``, ``ones`` or ``kaiming``
            (uniform with a = √5, PyTorch's default for linear layers).
        transposed: the file holds ``[out, in]`` where we hold ``[in, out]``.
        dtype: where it is not the model's: codes and scales of quantized weights.
    """

    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    key: str
    initializer: Literal["normal", "zeros", "ones", "kaiming"] = "normal"
    transposed: bool = False
    dtype: str | None = None

    def __post_init__(self) -> None:
        assert len(self.shape) == len(self.axes), self.key

    @property
    def layers(self) -> int:
        """Number of stacked layers, 0 for a parameter outside the stack."""
        return self.shape[0] if "{layer}" in self.key else 0

    def tensor_names(self) -> list[str]:
        """The Hugging Face names of all tensors that make up this parameter."""
        return [self.key.format(layer=n) for n in range(self.layers)] or [self.key]


Table = Mapping[str, Spec]


def stacked_layers(parameters: Parameters) -> Parameters:
    """Return the arrays that are stacked over layers, by their names within a layer."""
    layers: Parameters = {}
    for name, array in parameters.items():
        if name.startswith("layers."):
            layers[name.removeprefix("layers.")] = array
    return layers


def initialize(table: Table, key: Array, dtype: jnp.dtype | type = jnp.float32) -> dict[str, Array]:
    """Draw every parameter of ``table``; each has its own key, so that a table may grow."""
    parameters: dict[str, Array] = {}
    for number, (name, spec) in enumerate(sorted(table.items())):
        own_key = jax.random.fold_in(key, number)
        parameters[name] = _draw(spec, own_key, dtype)
    return parameters


def _draw(spec: Spec, key: Array, dtype: jnp.dtype | type) -> Array:
    if spec.initializer == "zeros":
        return jnp.zeros(spec.shape, dtype)
    if spec.initializer == "ones":
        return jnp.ones(spec.shape, dtype)
    if spec.initializer == "normal":
        return (0.02 * jax.random.normal(key, spec.shape)).astype(dtype)
    # torch's kaiming_uniform_ with a = sqrt(5): the bound is 1 / sqrt(fan_in), fan_in the input
    # width.
    bound = 1 / math.sqrt(spec.shape[-2])
    return jax.random.uniform(key, spec.shape, minval=-bound, maxval=bound).astype(dtype)


def count(table: Table) -> int:
    """Number of scalars in all parameters."""
    return sum(math.prod(spec.shape) for spec in table.values())
