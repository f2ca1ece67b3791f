"""``fit --step sample``: whether the sampler's loop fits devices that are not here, what they send
each other for a token, and how many tokens a second their memory allows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxmodpo.bench.collectives import by_depth
from jaxmodpo.bench.table import text_table
from jaxmodpo.models.attention import Attention
from jaxmodpo.models.axes import mesh_axes
from jaxmodpo.models.cached_attention import CACHE_AXES, Cache, cache_shape
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.lora import LoraConfig
from jaxmodpo.models.quantized import BaseDtype
from jaxmodpo.models.shapes import decoder_shape
from jaxmodpo.policy.mesh import make_mesh, row_shards, sampling_shape
from jaxmodpo.sampling.draw import SamplingSettings
from jaxmodpo.sampling.engine import Shapes
from jaxmodpo.sampling.roofline import tokens_per_second
from jaxmodpo.sampling.slots import PROMPT_CACHE_AXES, Prompts, Refill, Slots, advance
from jaxmodpo.training.ahead import abstract_policy, compile_lowered
from jaxmodpo.training.fit import GIB, memory_of
from jaxmodpo.training.hardware import chip_of

_LOOPS = ("a token", "each layer of it", "each block of a layer's cache")
"""what a turn of the sampler's loops is, from the outermost to the innermost"""


@dataclass(frozen=True, kw_only=True)
class SamplingAnswer:
    """What is known of the sampler's loop on a topology; bytes are a chip's.

    Attributes:
        model: a published model's name, or a file or folder.
        topology: of the chips.
        chip: its name.
        chips: how many.
        mesh: devices along data, fsdp and tensor.
        slots: replies under way, over all chips.
        cache_length: places of a slot.
        fits: whether it compiles and is within the chip's memory.
        peak_bytes: the most at any moment.
        hbm_bytes: the chip's memory; None where it is not known.
        weight_bytes: read for every token.
        cache_bytes: keys and values, read for every token where all slots are full.
        tokens_per_second: of all chips, at the memory's bandwidth and with slots half full; None
            for an unknown chip.
        collectives: what is sent for a token, for each layer of it, and for each block of a layer's
            cache, by kind.
        compile_seconds: how long compiling took here.
    """

    model: str
    topology: str
    chip: str
    chips: int
    mesh: tuple[int, int, int]
    slots: int
    cache_length: int
    fits: bool
    peak_bytes: int
    hbm_bytes: int | None
    weight_bytes: int
    cache_bytes: int
    tokens_per_second: float | None
    collectives: tuple[dict[str, int], ...]
    compile_seconds: float


def fit_sampling(
    model: str,
    devices: list[Any],
    *,
    topology: str,
    mesh_shape: tuple[int, int, int] | None,
    slots: int,
    length: int,
    lora_rank: int,
    adapters: int,
    base_dtype: BaseDtype,
) -> SamplingAnswer:
    """Compile the sampler's loop for devices that need not be here.

    Args:
        model: a published model's name, or a file or folder.
        devices: of the topology.
        topology: its name.
        mesh_shape: along data, fsdp and tensor; None for the sampler's own.
        slots: replies under way.
        length: most tokens of a prompt and its reply, half of them each.
        lora_rank: of each adapter; they are not merged.
        adapters: how many are sampled side by side.
        base_dtype: of the base weights.

    Raises:
        UserError: the mesh does not divide the model or the slots.
    """
    config = decoder_shape(model)
    mesh = make_mesh(mesh_shape or sampling_shape(devices, config), devices)
    ranks = adapters * lora_rank
    lora = LoraConfig(ranks, 2.0 * ranks, 0.0)
    base, adapter = abstract_policy(config, lora, mesh, base_dtype)
    # A sampler rounds adapters to the type that they are multiplied in.
    dtype = base["embed"].dtype
    adapter = jax.tree.map(
        lambda array: jax.ShapeDtypeStruct(array.shape, dtype, sharding=array.sharding), adapter
    )
    shapes = Shapes.of(config, length // 2, length - length // 2, slots, row_shards(mesh))
    settings = SamplingSettings(0.8, 0.95, length - length // 2, (2,))
    arrays = _Abstract(mesh, config, dtype)
    own_ranks = arrays.everywhere((slots, ranks), bool) if adapters > 1 else None
    started = time.perf_counter()
    lowered = advance.lower(
        base,
        adapter,
        arrays.slots(shapes, settings),
        arrays.prompts(shapes),
        arrays.refill(slots),
        arrays.everywhere((), jnp.int32),
        arrays.everywhere((), jnp.int32),
        own_ranks,
        config=config,
        lora=lora,
        attention=Attention("auto", mesh),
        settings=settings,
    )
    compiled, program = compile_lowered(lowered, started)
    chip = chip_of(mesh.devices.flat[0].device_kind)
    memory = memory_of(compiled, chip)
    weight_bytes = _bytes_of_a_chip((base, adapter))
    if "unembed" in base:
        # Of the embeddings a few rows are read.
        weight_bytes -= _bytes_of_a_chip(base["embed"])
    cache_bytes = _bytes_of_a_chip(arrays.cache(slots, shapes.cache_length, CACHE_AXES))
    tokens = None
    if chip is not None:
        tokens = tokens_per_second(chip.bandwidth, slots, weight_bytes, cache_bytes)
    data, fsdp, tensor = (int(size) for size in mesh.shape.values())
    return SamplingAnswer(
        model=model,
        topology=topology,
        chip=chip.name if chip else str(mesh.devices.flat[0].device_kind),
        chips=mesh.size,
        mesh=(data, fsdp, tensor),
        slots=slots,
        cache_length=shapes.cache_length,
        fits=memory.fits,
        peak_bytes=memory.peak_bytes,
        hbm_bytes=memory.hbm_bytes,
        weight_bytes=weight_bytes,
        cache_bytes=cache_bytes,
        tokens_per_second=tokens,
        collectives=tuple(by_depth(program)),
        compile_seconds=memory.compile_seconds,
    )


class _Abstract:
    """The sampler's arrays without their numbers, placed as a run places them."""

    def __init__(self, mesh: Mesh, config: DecoderConfig, dtype: Any):
        self._mesh = mesh
        self._config = config
        self._dtype = dtype

    def everywhere(self, shape: tuple[int, ...], dtype: Any) -> Any:
        sharding = NamedSharding(self._mesh, PartitionSpec())
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    def cache(self, rows: int, places: int, axes: Sequence[str | None]) -> Any:
        array: Any = jax.ShapeDtypeStruct(
            cache_shape(self._config, rows, places),
            self._dtype,
            sharding=NamedSharding(self._mesh, mesh_axes(axes)),
        )
        return Cache(array, array)

    def slots(self, shapes: Shapes, settings: SamplingSettings) -> Slots:
        rows = shapes.rows
        return Slots(
            cache=self.cache(rows, shapes.cache_length, CACHE_AXES),
            hidden_RD=self.everywhere((rows, self._config.hidden_size), self._dtype),
            positions_R=self.everywhere((rows,), jnp.int32),
            counts_R=self.everywhere((rows,), jnp.int32),
            running_R=self.everywhere((rows,), bool),
            replies_RN=self.everywhere((rows, settings.max_new_tokens), jnp.int32),
            keys_R2=self.everywhere((rows, 2), jnp.uint32),
            seen_RV=self.everywhere((rows, 0), bool),
        )

    def prompts(self, shapes: Shapes) -> Prompts:
        rows = shapes.prompt_rows
        return Prompts(
            cache=self.cache(rows, shapes.prompt_length, PROMPT_CACHE_AXES),
            hidden_QD=self.everywhere((rows, self._config.hidden_size), self._dtype),
            lengths_Q=self.everywhere((rows,), jnp.int32),
            seen_QV=self.everywhere((rows, 0), bool),
        )

    def refill(self, rows: int) -> Refill:
        return Refill(
            ended_R=self.everywhere((rows,), bool),
            taken_R=self.everywhere((rows,), bool),
            prompts_R=self.everywhere((rows,), jnp.int32),
            keys_R2=self.everywhere((rows, 2), jnp.uint32),
        )


def _bytes_of_a_chip(tree: Any) -> int:
    """Return the bytes of a tree of placed arrays that lie on one chip."""
    total = 0
    for array in jax.tree.leaves(tree):
        own_shape = array.sharding.shard_shape(array.shape)
        elements = 1
        for size in own_shape:
            elements *= size
        # Four-bit numbers take half a byte.
        total += elements * jax.dtypes.itemsize_bits(array.dtype) // 8
    return total


def described_sampling(answer: SamplingAnswer) -> str:
    """Return what is known of the sampler's loop, as text."""
    data, fsdp, tensor = answer.mesh
    memory = f"{answer.peak_bytes / GIB:.2f} GiB"
    if answer.hbm_bytes:
        memory = f"{answer.peak_bytes / GIB:.2f} of {answer.hbm_bytes / GIB:.2f} GiB"
    rows = [
        ["memory", f"{memory}: {'fits' if answer.fits else 'does not fit'}"],
        ["weights, read for every token", f"{answer.weight_bytes / GIB:.2f} GiB"],
        ["cache, where all slots are full", f"{answer.cache_bytes / GIB:.2f} GiB"],
    ]
    for what, counts in zip(_LOOPS, answer.collectives, strict=False):
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
        rows.append([f"sent for {what}", listed or "nothing"])
    if answer.tokens_per_second is not None:
        speed = f"{answer.tokens_per_second:,.0f} tokens/s of all chips"
        rows.append(["at the memory's bandwidth, slots half full", speed])
    rows.append(["compiled here in", f"{answer.compile_seconds:.0f} s"])
    head = (
        f"{answer.model}: sampling on {answer.topology}, {answer.chips} × {answer.chip}, mesh data"
        f" {data} × fsdp {fsdp} × tensor {tensor}, {answer.slots} slots of {answer.cache_length:,}"
        " places\n"
    )
    return head + "\n" + text_table(["for one chip", ""], rows)
