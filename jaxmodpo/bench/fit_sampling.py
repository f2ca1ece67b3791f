"""``fit --step sample``: whether the sampler's programs fit devices that are not here, what they
send each other for a token, and how many tokens a second their memory allows.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxmodpo.bench.collectives import by_depth
from jaxmodpo.bench.table import text_table
from jaxmodpo.models.attention import Attention
from jaxmodpo.models.axes import mesh_axes
from jaxmodpo.models.cached_attention import CACHE_AXES, Cache, cache_shape
from jaxmodpo.models.decoder import parameter_table
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.lora import LoraConfig, adapter_table
from jaxmodpo.models.parameters import count
from jaxmodpo.models.quantized import BaseDtype
from jaxmodpo.models.shapes import decoder_shape
from jaxmodpo.policy.mesh import make_mesh, row_shards, sampling_shape
from jaxmodpo.sampling.draw import SamplingSettings
from jaxmodpo.sampling.engine import Shapes
from jaxmodpo.sampling.roofline import prefill_seconds, tokens_per_second
from jaxmodpo.sampling.slots import PROMPT_CACHE_AXES, Prompts, Refill, Slots, advance, prefill
from jaxmodpo.training.ahead import abstract_policy, compile_lowered
from jaxmodpo.training.fit import GIB, Memory, memory_of
from jaxmodpo.training.hardware import Chip, chip_of

_ROUND_LOOPS = ("a round", "a token", "each layer of it", "each block of a layer's cache")
"""what a run of the round is, and a turn of its loops, from the outermost to the innermost"""
_PREFILL_LOOPS = ("a prefill", "each chunk of its prompts", "each layer of a chunk")
"""the same of a prefill"""


@dataclass(frozen=True, kw_only=True)
class SamplingAnswer:
    """What is known of the sampler on a topology; bytes are a chip's.

    Attributes:
        model: a published model's name, or a file or folder.
        topology: of the chips.
        chip: its name.
        chips: how many.
        mesh: devices along data, fsdp and tensor.
        slots: replies under way, over all chips.
        cache_length: places of a slot.
        fits: whether both programs compile and are within the chip's memory.
        peak_bytes: the most at any moment of a round, in which slots get tokens.
        prefill_peak_bytes: the most at any moment of a prefill, beside which the slots wait.
        hbm_bytes: the chip's memory; None where it is not known.
        weight_bytes: read for every token.
        cache_bytes: keys and values, read for every token where all slots are full.
        tokens_per_second: of all chips, at the memory's bandwidth and with slots half full; None
            for an unknown chip.
        prompt_tokens: of the longest prompt.
        prefill_seconds: that all chips need for such a prompt, at their arithmetic or their
            memory's bandwidth, whichever takes longer; None for an unknown chip.
        collectives: what is sent for a round, for a token, for each layer of it, and for each block
            of a layer's cache, by kind.
        prefill_collectives: the same for a prefill, for each chunk of its prompts, and for each
            layer of a chunk.
        compile_seconds: how long compiling both took here.
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
    prefill_peak_bytes: int
    hbm_bytes: int | None
    weight_bytes: int
    cache_bytes: int
    tokens_per_second: float | None
    prompt_tokens: int
    prefill_seconds: float | None
    collectives: tuple[dict[str, int], ...]
    prefill_collectives: tuple[dict[str, int], ...]
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
    """Compile the sampler's two programs for devices that need not be here.

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
    prompt_tokens = length // 2
    new_tokens = length - prompt_tokens
    shapes = Shapes.of(config, prompt_tokens, new_tokens, slots, row_shards(mesh))
    settings = SamplingSettings(0.8, 0.95, new_tokens, (2,))
    sampler = _AbstractSampler(config, mesh, base_dtype, lora_rank, adapters, shapes, settings)

    device_kind = mesh.devices.flat[0].device_kind
    chip = chip_of(device_kind)
    of_round = _compile_round(sampler, chip)
    of_prefill = _compile_prefill(sampler, chip)
    weight_bytes = sampler.weight_bytes
    cache_bytes = _bytes_of_a_chip(sampler.slots.cache)
    tokens = prefill = None
    if chip is not None:
        tokens = tokens_per_second(chip.bandwidth, slots, weight_bytes, cache_bytes)
        prefill = sampler.prefill_seconds(chip, prompt_tokens)
    data, fsdp, tensor = (int(size) for size in mesh.shape.values())
    return SamplingAnswer(
        model=model,
        topology=topology,
        chip=chip.name if chip else str(device_kind),
        chips=mesh.size,
        mesh=(data, fsdp, tensor),
        slots=slots,
        cache_length=shapes.cache_length,
        fits=of_round.memory.fits and of_prefill.memory.fits,
        peak_bytes=of_round.memory.peak_bytes,
        prefill_peak_bytes=of_prefill.memory.peak_bytes,
        hbm_bytes=of_round.memory.hbm_bytes,
        weight_bytes=weight_bytes,
        cache_bytes=cache_bytes,
        tokens_per_second=tokens,
        prompt_tokens=prompt_tokens,
        prefill_seconds=prefill,
        collectives=_collectives(of_round.program),
        prefill_collectives=_collectives(of_prefill.program),
        compile_seconds=round(
            of_round.memory.compile_seconds + of_prefill.memory.compile_seconds, 1
        ),
    )


class _Compiled(NamedTuple):
    """One of the sampler's programs."""

    memory: Memory
    program: Any
    """what the compiler made; None where it does not fit"""


def _compile_round(sampler: _AbstractSampler, chip: Chip | None) -> _Compiled:
    started = time.perf_counter()
    compiled, program = compile_lowered(sampler.lower_round(), started)
    return _Compiled(memory_of(compiled, chip), program)


def _compile_prefill(sampler: _AbstractSampler, chip: Chip | None) -> _Compiled:
    started = time.perf_counter()
    compiled, program = compile_lowered(sampler.lower_prefill(), started)
    # While prompts are prefilled, the slots and the prompts before them wait beside it.
    waiting = _bytes_of_a_chip((sampler.slots, sampler.prompts))
    beside_slots = dataclasses.replace(compiled, peak=compiled.peak + waiting)
    return _Compiled(memory_of(beside_slots, chip), program)


def _collectives(program: Any) -> tuple[dict[str, int], ...]:
    """Return what a compiled program sends; nothing of one that does not fit."""
    return tuple(by_depth(program.as_text())) if program is not None else ()


class _AbstractSampler:
    """The sampler's programs, with arrays that have no numbers and lie where a run's lie.

    Attributes:
        slots: what a round takes and returns.
        prompts: what a prefill returns.
    """

    slots: Slots
    prompts: Prompts

    def __init__(
        self,
        config: DecoderConfig,
        mesh: Mesh,
        base_dtype: BaseDtype,
        lora_rank: int,
        adapters: int,
        shapes: Shapes,
        settings: SamplingSettings,
    ):
        self._config = config
        self._mesh = mesh
        self._shapes = shapes
        self._settings = settings
        self._ranks = adapters * lora_rank
        self._has_several_adapters = adapters > 1
        lora = LoraConfig(self._ranks, 2.0 * self._ranks, 0.0)
        base, adapter = abstract_policy(config, lora, mesh, base_dtype)
        self._base = base
        self._dtype = base["embed"].dtype
        # A sampler rounds adapters to the type that they are multiplied in.
        self._adapter = jax.tree.map(
            lambda array: jax.ShapeDtypeStruct(array.shape, self._dtype, sharding=array.sharding),
            adapter,
        )
        self._model = {"config": config, "lora": lora, "attention": Attention("auto", mesh)}
        self.slots = self._abstract_slots()
        self.prompts = self._abstract_prompts()

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights that a chip reads for every token."""
        every = _bytes_of_a_chip((self._base, self._adapter))
        if "unembed" not in self._base:
            return every
        # Of the embeddings a few rows are read.
        return every - _bytes_of_a_chip(self._base["embed"])

    def prefill_seconds(self, chip: Chip, prompt_tokens: int) -> float:
        """Return the least seconds that all chips need for a prompt."""
        adapters = adapter_table(parameter_table(self._config), self._model["lora"])
        return prefill_seconds(
            self._config,
            chip.flops,
            chip.bandwidth,
            chips=self._mesh.size,
            weight_bytes=self.weight_bytes,
            prompts=self._shapes.prompt_rows,
            tokens=prompt_tokens,
            adapter_numbers=count(adapters),
        )

    def lower_round(self) -> Any:
        """Lower the loop that draws a token for every slot."""
        return advance.lower(
            self._base,
            self._adapter,
            self.slots,
            self.prompts,
            self._abstract_refill(),
            self._everywhere((), jnp.int32),
            self._everywhere((), jnp.int32),
            self._own_ranks(self._shapes.rows),
            settings=self._settings,
            **self._model,
        )

    def lower_prefill(self) -> Any:
        """Lower what runs prompts through the model."""
        rows = self._shapes.prompt_rows
        return prefill.lower(
            self._base,
            self._adapter,
            self._everywhere((rows, self._shapes.prompt_tokens), jnp.int32),
            self._everywhere((rows,), jnp.int32),
            self._own_ranks(rows),
            length=self._shapes.prompt_length,
            penalized=False,
            **self._model,
        )

    def _everywhere(self, shape: tuple[int, ...], dtype: Any) -> Any:
        sharding = NamedSharding(self._mesh, PartitionSpec())
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    def _own_ranks(self, rows: int) -> Any:
        if not self._has_several_adapters:
            return None
        return self._everywhere((rows, self._ranks), bool)

    def _cache(self, rows: int, places: int, axes: Sequence[str | None]) -> Any:
        array: Any = jax.ShapeDtypeStruct(
            cache_shape(self._config, rows, places),
            self._dtype,
            sharding=NamedSharding(self._mesh, mesh_axes(axes)),
        )
        return Cache(array, array)

    def _abstract_slots(self) -> Slots:
        rows = self._shapes.rows
        return Slots(
            cache=self._cache(rows, self._shapes.cache_length, CACHE_AXES),
            hidden_RD=self._everywhere((rows, self._config.hidden_size), self._dtype),
            positions_R=self._everywhere((rows,), jnp.int32),
            counts_R=self._everywhere((rows,), jnp.int32),
            running_R=self._everywhere((rows,), bool),
            replies_RN=self._everywhere((rows, self._settings.max_new_tokens), jnp.int32),
            keys_R2=self._everywhere((rows, 2), jnp.uint32),
            seen_RV=self._everywhere((rows, 0), bool),
        )

    def _abstract_prompts(self) -> Prompts:
        rows = self._shapes.prompt_rows
        return Prompts(
            cache=self._cache(rows, self._shapes.prompt_length, PROMPT_CACHE_AXES),
            hidden_QD=self._everywhere((rows, self._config.hidden_size), self._dtype),
            lengths_Q=self._everywhere((rows,), jnp.int32),
            seen_QV=self._everywhere((rows, 0), bool),
        )

    def _abstract_refill(self) -> Refill:
        rows = self._shapes.rows
        return Refill(
            ended_R=self._everywhere((rows,), bool),
            taken_R=self._everywhere((rows,), bool),
            prompts_R=self._everywhere((rows,), jnp.int32),
            keys_R2=self._everywhere((rows, 2), jnp.uint32),
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
    """Return what is known of the sampler on a topology, as text."""
    data, fsdp, tensor = answer.mesh
    peak = max(answer.peak_bytes, answer.prefill_peak_bytes)
    memory = f"{peak / GIB:.2f} GiB"
    if answer.hbm_bytes:
        memory = f"{peak / GIB:.2f} of {answer.hbm_bytes / GIB:.2f} GiB"
    rows = [
        ["memory", f"{memory}: {'fits' if answer.fits else 'does not fit'}"],
        ["of it at most in a round", f"{answer.peak_bytes / GIB:.2f} GiB"],
        ["of it at most in a prefill", f"{answer.prefill_peak_bytes / GIB:.2f} GiB"],
        ["weights, read for every token", f"{answer.weight_bytes / GIB:.2f} GiB"],
        ["cache, where all slots are full", f"{answer.cache_bytes / GIB:.2f} GiB"],
    ]
    rows += _sent(_ROUND_LOOPS, answer.collectives)
    rows += _sent(_PREFILL_LOOPS, answer.prefill_collectives)
    if answer.tokens_per_second is not None:
        speed = f"{answer.tokens_per_second:,.0f} tokens/s of all chips"
        rows.append(["at the memory's bandwidth, slots half full", speed])
    if answer.prefill_seconds is not None:
        milliseconds = f"{1000 * answer.prefill_seconds:.1f} ms of all chips"
        rows.append([f"at least, for a prompt of {answer.prompt_tokens:,} tokens", milliseconds])
    rows.append(["compiled here in", f"{answer.compile_seconds:.0f} s"])
    head = (
        f"{answer.model}: sampling on {answer.topology}, {answer.chips} × {answer.chip}, mesh data"
        f" {data} × fsdp {fsdp} × tensor {tensor}, {answer.slots} slots of {answer.cache_length:,}"
        " places\n"
    )
    return head + "\n" + text_table(["for one chip", ""], rows)


def _sent(loops: Sequence[str], collectives: Sequence[dict[str, int]]) -> list[list[str]]:
    """Return a row for each depth of a program's loops: what is sent there."""
    rows: list[list[str]] = []
    for what, counts in zip(loops, collectives, strict=False):
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
        rows.append([f"sent for {what}", listed or "nothing"])
    return rows
