"""Random weights of a model's shape, for benchmarks: how fast a model is does not depend on their
values.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
from jax.sharding import Mesh

from jaxmodpo.models.decoder import parameter_table
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.loading import dtype_named
from jaxmodpo.models.parameters import Parameters, Spec, initialize
from jaxmodpo.models.quantized import BaseDtype, is_projection, is_quantized, quantize, stored_table
from jaxmodpo.policy.mesh import shardings


def random_base(shape: DecoderConfig, base_dtype: BaseDtype, mesh: Mesh) -> Parameters:
    """Return random weights in their format; never whole in float32."""
    dtype = dtype_named("bfloat16" if is_quantized(base_dtype) else base_dtype)
    stored_table(parameter_table(shape), base_dtype)  # refuses what cannot be quantized
    table_of_all = parameter_table(shape)
    sharding_of = shardings(mesh)(table_of_all)
    base: Parameters = {}
    # One parameter at a time, each made in place on its devices: a whole model in a wider format
    # would not fit where the quantized one does.
    for number, (name, spec) in enumerate(table_of_all.items()):
        make = jax.jit(
            functools.partial(_random_array, name, spec, dtype), out_shardings=sharding_of[name]
        )
        array = make(jax.random.key(number))
        if is_quantized(base_dtype) and is_projection(spec):
            # Layer by layer, as a checkpoint is quantized when it is loaded.
            components = jax.lax.map(lambda layer: quantize(layer, base_dtype), array)
            for component, values in components.items():
                base[f"{name}.{component}"] = values
        else:
            base[name] = array
    return base


def _random_array(name: str, spec: Spec, dtype: Any, key: jax.Array) -> jax.Array:
    return initialize({name: spec}, key, dtype)[name]
