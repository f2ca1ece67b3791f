"""What bounds sampling: for every token all weights and the cache come from memory, once for all
slots, and every prompt goes through the model once.

Arithmetic on shapes, which needs no devices. ``fit --step sample`` and ``run --dry-run`` count by
it::

    needed = SamplerBytes.of(config, "bfloat16", slots=64, longest_prompt=512, new_tokens=512)
    tokens_per_second(chip.bandwidth, 64, needed.weights_per_token, needed.cache)
    prefill_seconds(config, chip.flops, chip.bandwidth, chips=1, tokens=75, prompts=8, …)
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodpo.models import flops
from jaxmodpo.models.decoder import parameter_table
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.loading import dtype_named
from jaxmodpo.models.parameters import Spec
from jaxmodpo.models.quantized import BaseDtype, is_quantized, stored_table
from jaxmodpo.sampling.engine import Shapes
from jaxmodpo.sampling.slots import PROMPT_CHUNK


@dataclass(frozen=True)
class SamplerBytes:
    """What a sampler takes on a chip.

    Attributes:
        weights: in memory, adapters included.
        weights_per_token: of these, what every token reads.
        cache: keys and values, read for every token where all slots are full.
        prompts: keys and values of the prompts from which slots are filled, and of the next ones
            while they are prefilled.
        prompt_rows: prompts that are prefilled at a time, over all chips.
    """

    weights: float
    weights_per_token: float
    cache: float
    prompts: float
    prompt_rows: int

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
        element_bytes = _element_bytes(base_dtype)
        table = stored_table(parameter_table(config), base_dtype)
        weights = _bytes_of(table.values(), element_bytes) + adapters
        weights_per_token = weights
        if "unembed" in table:
            # Of the embeddings a token reads one row. Where they are the head as well, it reads
            # all of them there.
            weights_per_token -= _bytes_of([table["embed"]], element_bytes)
        shapes = Shapes.of(config, longest_prompt, new_tokens, slots)
        values_per_token = 2 * config.num_hidden_layers * config.num_key_value_heads
        values_per_token *= config.head_dim
        bytes_per_place = values_per_token * element_bytes
        cache = slots * shapes.cache_length * bytes_per_place
        prompts = 2 * shapes.prompt_rows * shapes.prompt_length * bytes_per_place
        # Copies of the model along ``data`` share rows out, and each has all weights.
        _, fsdp, tensor = mesh
        weight_shards = fsdp * tensor
        return cls(
            weights=weights / weight_shards,
            weights_per_token=weights_per_token / weight_shards,
            cache=cache / math.prod(mesh),
            # Any slot may take any prompt: they are shared out by heads alone.
            prompts=prompts / tensor,
            prompt_rows=shapes.prompt_rows,
        )


def _element_bytes(base_dtype: BaseDtype) -> int:
    """Return the bytes of a number that is not quantized: of embeddings, activations, the cache."""
    dtype = dtype_named("bfloat16" if is_quantized(base_dtype) else base_dtype)
    return jnp.dtype(dtype).itemsize


def _bytes_of(specs: Iterable[Spec], element_bytes: int) -> float:
    """Return the bytes of parameters, given those of a number whose type the table leaves open."""
    total_bits = 0
    for spec in specs:
        element_bits = 8 * element_bytes
        if spec.dtype:
            # Codes of nf4 have four bits, which no number of bytes can say.
            element_bits = jax.dtypes.itemsize_bits(jnp.dtype(spec.dtype))
        total_bits += math.prod(spec.shape) * element_bits
    return total_bits / 8


def tokens_per_second(
    bandwidth: float, slots: int, weights_per_token: float, cache: float
) -> float:
    """Return how many tokens a second all chips draw at the memory's bandwidth, with slots half
    full.

    Args:
        bandwidth: bytes a second of a chip.
        slots: replies under way, over all chips.
        weights_per_token: bytes of weights that a chip reads for every token.
        cache: bytes of a chip's cache where all slots are full.
    """
    # Slots end and begin at all times, so that on average half of their places are filled.
    bytes_per_step = weights_per_token + cache / 2
    return slots * bandwidth / bytes_per_step


def prefill_seconds(
    config: DecoderConfig,
    chip_flops: float,
    bandwidth: float,
    *,
    chips: int,
    weight_bytes: float,
    prompts: int,
    tokens: float,
    adapter_numbers: float = 0.0,
) -> float:
    """Return the least seconds that all chips need to run a prompt through the model.

    A prompt goes through in chunks. A chunk of all prompts that are prefilled together reads the
    weights once; what takes longer, that or its arithmetic, counts.

    Args:
        config: the model's shape.
        chip_flops: operations a second of a chip.
        bandwidth: bytes a second of a chip.
        chips: how many there are.
        weight_bytes: bytes of weights that a chip reads for a chunk, as for a token.
        prompts: how many are prefilled together, over all chips.
        tokens: of a prompt.
        adapter_numbers: numbers of all adapters that are not merged.
    """
    base, _ = flops.per_token(config, None)
    # Logits follow from a prompt's last token alone, when its reply begins.
    base -= 2.0 * config.hidden_size * config.vocab_size
    operations = tokens * (base + 2.0 * adapter_numbers)
    operations += flops.attention(config, np.array([tokens]))
    arithmetic = operations / chips / chip_flops
    chunks = math.ceil(tokens / PROMPT_CHUNK)
    memory = chunks * weight_bytes / bandwidth / prompts
    return max(arithmetic, memory)
