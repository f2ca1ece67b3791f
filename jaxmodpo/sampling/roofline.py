"""What bounds sampling: for every token all weights and the cache come from memory, once for all
slots.

Arithmetic on shapes, which needs no devices. ``fit --step sample`` and ``run --dry-run`` count by
it::

    needed = SamplerBytes.of(config, "bfloat16", slots=64, longest_prompt=512, new_tokens=512)
    tokens_per_second(chip.bandwidth, 64, needed.read, needed.cache)
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxmodpo.models.decoder import parameter_table
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.loading import dtype_named
from jaxmodpo.models.parameters import Spec
from jaxmodpo.models.quantized import BaseDtype, is_quantized, stored_table
from jaxmodpo.sampling.engine import Shapes


@dataclass(frozen=True)
class SamplerBytes:
    """What a sampler takes on a chip.

    Attributes:
        held: of weights, adapters included.
        read: of these for every token.
        cache: keys and values, read for every token where all slots are full.
    """

    held: float
    read: float
    cache: float

    @classmethod
    def of(
        cls,
        config: DecoderConfig,
        base_dtype: BaseDtype,
        slots: int,
        longest_prompt: int,
        new_tokens: int,
        adapters: float = 0.0,
        mesh: tuple[int, int, int] = (1, 1, 1),
    ) -> SamplerBytes:
        """Return the bytes of one chip.

        Args:
            config: the model's shape.
            base_dtype: number format of the base.
            slots: replies under way, over all chips.
            longest_prompt: tokens.
            new_tokens: most of a reply.
            adapters: bytes of what is not merged.
            mesh: chips along data, fsdp and tensor.
        """
        table = stored_table(parameter_table(config), base_dtype)
        element_bits = 8 * _element_bytes(base_dtype)
        weights = _bytes_of(table.values(), element_bits) + adapters
        read = weights
        if "unembed" in table:
            # Of the embeddings a few rows are read.
            read -= _bytes_of([table["embed"]], element_bits)
        places = slots * Shapes.of(config, longest_prompt, new_tokens, slots).cache_length
        keys_and_values = 2 * config.num_hidden_layers * config.num_key_value_heads
        cache = places * keys_and_values * config.head_dim * _element_bytes(base_dtype)
        parts = mesh[1] * mesh[2]
        return cls(weights / parts, read / parts, cache / math.prod(mesh))


def _element_bytes(base_dtype: BaseDtype) -> int:
    """Return the bytes of a number that is not quantized: of embeddings, activations, the cache."""
    dtype = dtype_named("bfloat16" if is_quantized(base_dtype) else base_dtype)
    return jnp.dtype(dtype).itemsize


def _bytes_of(specs: Iterable[Spec], element_bits: int) -> float:
    """Return the bytes of parameters, given the bits of those whose type the table leaves open."""
    bits = 0
    for spec in specs:
        size = jax.dtypes.itemsize_bits(jnp.dtype(spec.dtype)) if spec.dtype else element_bits
        bits += math.prod(spec.shape) * size
    return bits / 8


def tokens_per_second(bandwidth: float, slots: int, read: float, cache: float) -> float:
    """Return how many tokens a second all chips draw at the memory's bandwidth, with slots half
    full.

    Args:
        bandwidth: bytes a second of a chip.
        slots: replies under way, over all chips.
        read: bytes of weights that a chip reads for every token.
        cache: bytes of a chip's cache where all slots are full.
    """
    return slots * bandwidth / (read + cache / 2)
