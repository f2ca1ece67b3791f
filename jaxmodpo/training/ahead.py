"""Compiling a step ahead of time, for devices that need not be here, to learn what it needs there.

The compiler gets shapes with shardings in the place of arrays, and a topology in that of devices::

    mesh = topology_mesh("v5e:4x4")
    compiled = compile_policy_step(config, lora, DPO(0.1), batches, mesh)
    compiled.fits, compiled.peak
"""

from __future__ import annotations

import contextlib
import os
import re
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxmodpo.data.batches import SCORED_ARRAYS, Batches
from jaxmodpo.errors import UserError
from jaxmodpo.models.attention import Attention, Backend
from jaxmodpo.models.completions import sequence_logps
from jaxmodpo.models.decoder import parameter_table
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.loading import dtype_named
from jaxmodpo.models.lora import LoraConfig, adapter_table
from jaxmodpo.models.parameters import Table
from jaxmodpo.models.quantized import BaseDtype, is_quantized, stored_table
from jaxmodpo.models.remat import Remat
from jaxmodpo.policy.loaded import check_attention
from jaxmodpo.policy.mesh import batch_shardings, check_heads, make_mesh, shardings
from jaxmodpo.training.policy_loss import Method, PolicyLoss
from jaxmodpo.training.step import (
    Loss,
    OptimizerSettings,
    TrainState,
    moment_shardings,
    places_of,
    train_step,
)


@dataclass(frozen=True)
class Compiled:
    """Bytes per device, as the compiler reports them.

    Attributes:
        fits: whether the compiler could place the step in the device's memory.
        arguments: weights, adapter, Adam's moments and the batch; 0 where it does not fit.
        temporary: activations, gradients and whatever else lives within the step; 0 where it does
            not fit.
        peak: the most at any moment; where it does not fit, the least that the compiler says it
            needs.
        available: the device's memory, in the compiler's numbers; 0 where it does not say.
        seconds: how long compiling took here.
        complaint: the compiler's sentence, where it does not fit.
    """

    fits: bool
    arguments: int
    temporary: int
    peak: int
    available: int
    seconds: float
    complaint: str = ""


def topology_mesh(
    topology: str | None,
    shape: tuple[int, int, int] | None = None,
    target_config: Path | None = None,
) -> Mesh:
    """Return a mesh of this machine's devices, or of a topology that need not be here.

    Args:
        topology: such as ``v5e:4x4``; None means this machine. libtpu must be installed (the
            ``tpu`` extra). ``cuda:1x1x8`` is one host of 8 GPUs, for which JAX's CUDA plugin must
            be installed.
        shape: devices along data, fsdp and tensor; by default ``mesh.default_shape``.
        target_config: for CUDA, XLA's description of the GPU, a ``GpuTargetConfigProto`` as text.

    Raises:
        UserError: no libtpu or plugin, an unknown topology, or a shape that does not fit it.
    """
    if topology is None:
        return make_mesh(shape)
    return make_mesh(shape, topology_devices(topology, target_config))


def topology_devices(topology: str, target_config: Path | None = None) -> list[Any]:
    """Return the devices of a topology; see :func:`topology_mesh`."""
    from jax.experimental import topologies

    kind, _, layout = topology.partition(":")
    if kind == "cuda" and target_config is None:
        raise UserError(
            "a CUDA topology needs --target-config, XLA's description of the GPU as a text proto"
        )
    # libtpu takes it for granted that it runs on a TPU VM. It would ask a metadata server and other
    # hosts who they are, and wait for answers.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    try:
        if kind == "cuda":
            assert target_config is not None
            text = target_config.read_text(encoding="utf-8")
            described = topologies.get_topology_desc(
                "", platform="cuda", target_config=text, topology=layout
            )
            return list(described.devices)
        # A v5e slice smaller than a host has to say how its host is laid out.
        options: dict[str, Any] = {"chips_per_host_bounds": [1, 1, 1]} if layout == "1x1" else {}
        described = topologies.get_topology_desc(platform="tpu", topology_name=topology, **options)
        devices = list(described.devices)
        if any(getattr(device, "core_on_chip", 0) for device in devices):
            raise ValueError("chips of two devices are not supported")
        return devices
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        compiler = "libtpu: the 'tpu' extra"
        if kind == "cuda":
            compiler = "JAX's CUDA plugin: the 'cuda' extra"
        raise UserError(
            f"cannot compile for '{topology}':"
            f" {reason} (it needs {compiler};"
            " topologies are named like v5e:4x4, v5p:2x2x1 or cuda:1x1x8)"
        ) from error


def abstract(table: Table, dtype: Any, mesh: Mesh) -> Any:
    """Return a table's arrays without their numbers, placed on a mesh."""
    table_shardings = shardings(mesh)(table)
    arrays: dict[str, jax.ShapeDtypeStruct] = {}
    for name, spec in table.items():
        array_dtype = jnp.dtype(spec.dtype or dtype)
        sharding = table_shardings[name]
        arrays[name] = jax.ShapeDtypeStruct(spec.shape, array_dtype, sharding=sharding)
    return arrays


def compile_policy_step(
    config: DecoderConfig,
    lora: LoraConfig,
    method: Method,
    batches: Batches,
    mesh: Mesh,
    *,
    base_dtype: BaseDtype = "bfloat16",
    attention: Backend = "auto",
    remat: Remat = "full",
    reference_in_step: bool = False,
) -> Compiled:
    """Compile the training step of an adapter for a mesh.

    Args:
        config: the base model's shape.
        lora: the adapter.
        method: what is done with log-probabilities.
        batches: their shapes alone matter; the examples must have the fields that the method reads.
        mesh: of real devices or of a topology.
        base_dtype: of the base weights.
        attention: which implementation.
        remat: what the backward pass computes again.
        reference_in_step: compute the reference's log-probabilities in the step.
    """
    check_attention(Attention(attention, mesh), config, base_dtype)
    base, adapter = abstract_policy(config, lora, mesh, base_dtype)
    loss = PolicyLoss(
        config, lora, method, Attention(attention, mesh), remat, reference_in_step, lora.dropout > 0
    )
    return compile_step(loss, adapter, base, batches, mesh)


def compile_scoring(
    config: DecoderConfig,
    lora: LoraConfig,
    batches: Batches,
    mesh: Mesh,
    *,
    base_dtype: BaseDtype = "bfloat16",
    attention: Backend = "auto",
) -> Compiled:
    """Compile the scoring of one microbatch, as for reference log-probabilities."""
    check_attention(Attention(attention, mesh), config, base_dtype)
    base, adapter = abstract_policy(config, lora, mesh, base_dtype)
    batch: dict[str, Any] = {}
    for name, array in _abstract_batch(batches, mesh).items():
        # As a run's scoring has it, which leaves margins and the like out of its program.
        if name in SCORED_ARRAYS:
            batch[name] = _microbatch_of(array, mesh)
    started = time.perf_counter()
    with _as_if_here(mesh):
        lowered = sequence_logps.lower(
            base, adapter, batch, config=config, lora=lora, attention=Attention(attention, mesh)
        )
    return compile_lowered(lowered, started)[0]


def _as_if_here(mesh: Mesh) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which kernels that ask what device they are for are told the mesh's.

    Those for GPUs look at JAX's default device, which for a topology would be this machine's.
    """
    device = mesh.devices.flat[0]
    if device.platform in ("gpu", "cuda"):
        return jax.default_device(device)
    return contextlib.nullcontext()


def _microbatch_of(array: Any, mesh: Mesh) -> Any:
    """Return an abstract array without its first axis, that of the microbatches."""
    sharding = NamedSharding(mesh, PartitionSpec(*array.sharding.spec[1:]))
    return jax.ShapeDtypeStruct(array.shape[1:], array.dtype, sharding=sharding)


def compile_step(loss: Loss, trainable: Any, frozen: Any, batches: Batches, mesh: Mesh) -> Compiled:
    """Compile the trainer's very step for arrays without numbers; see
    :func:`compile_policy_step`.
    """
    everywhere = NamedSharding(mesh, PartitionSpec())
    # The numbers do not matter: the decay is an argument of the step, and clipping by another norm
    # takes the same memory.
    optimizer = OptimizerSettings(weight_decay=0.01, max_grad_norm=1.0)
    moments = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        jax.eval_shape(optimizer.transformation().init, trainable),
        moment_shardings(optimizer, trainable),
    )

    def scalar(dtype: Any) -> Any:
        return jax.ShapeDtypeStruct((), dtype, sharding=everywhere)

    key = jax.eval_shape(lambda: jax.random.key(0))
    state = TrainState(trainable, moments, scalar(jnp.int32), scalar(jnp.int32))
    started = time.perf_counter()
    with _as_if_here(mesh):
        lowered = train_step.lower(
            state,
            frozen,
            _abstract_batch(batches, mesh),
            jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=everywhere),
            scalar(jnp.int32),
            scalar(jnp.float32),
            loss=loss,
            optimizer=optimizer,
            places=places_of(state),
        )
    return compile_lowered(lowered, started)[0]


def abstract_policy(
    config: DecoderConfig, lora: LoraConfig, mesh: Mesh, base_dtype: BaseDtype
) -> tuple[Any, Any]:
    """Return a base model's and an adapter's arrays without numbers.

    Raises:
        UserError: the model does not divide the mesh.
    """
    check_heads(config, mesh)
    table = parameter_table(config)
    # What is not quantized of a quantized base, such as its embedding, is bfloat16.
    dtype = dtype_named("bfloat16" if is_quantized(base_dtype) else base_dtype)
    base = abstract(stored_table(table, base_dtype), dtype, mesh)
    adapter = abstract(adapter_table(table, lora), jnp.float32, mesh)
    return base, adapter


def _abstract_batch(batches: Batches, mesh: Mesh) -> dict[str, Any]:
    batch = batches.at(batches.longest_step)
    array_shardings = batch_shardings(mesh, batch, batches.by_rows)
    abstract: dict[str, Any] = {}
    for name, array in batch.items():
        sharding = array_shardings[name]
        abstract[name] = jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)
    return abstract


_SIZE = r"([\d.]+)\s*([KMGT]?)i?B?"
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


_CANNOT_READ_WITHOUT_DEVICES = (
    "Error reading persistent compilation cache entry .* must be constructed with a Client"
)


def compile_lowered(lowered: Any, started: float) -> tuple[Compiled, Any]:
    """Compile a lowered step; one that is too large for the memory is an answer and no error.

    Returns:
        What the compiler says of memory, and the program; None where it does not fit.
    """
    try:
        with warnings.catch_warnings():
            # JAX keeps a program for devices that are not here, warns that it cannot read it, and
            # compiles it again. Other errors of the cache are for the user to see.
            warnings.filterwarnings("ignore", _CANNOT_READ_WITHOUT_DEVICES)
            program = lowered.compile()
        memory: Any = program.memory_analysis()
    except Exception as error:
        # JAX has no type of its own for this error.
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        complaint = " ".join(str(error).split())
        peak, available = _sizes_in(complaint)
        seconds = time.perf_counter() - started
        refused = Compiled(
            fits=False,
            arguments=0,
            temporary=0,
            peak=peak,
            available=available,
            seconds=seconds,
            complaint=complaint.split(". ")[0][:300],
        )
        return refused, None
    arguments = memory.argument_size_in_bytes
    temporary = memory.temp_size_in_bytes
    # Not every compiler says a peak. The sum is one that cannot be too low.
    peak = getattr(memory, "peak_memory_in_bytes", 0) or arguments + temporary
    seconds = time.perf_counter() - started
    compiled = Compiled(
        fits=True,
        arguments=arguments,
        temporary=temporary,
        peak=peak,
        available=0,
        seconds=seconds,
    )
    return compiled, program


def _sizes_in(complaint: str) -> tuple[int, int]:
    """Return the bytes that a step needs and those that there are, by the compiler's sentence; 0
    where it names none.
    """
    # Compilers say it in one of two sentences.
    match = re.search(rf"Used {_SIZE} of {_SIZE}", complaint)
    if match is None:
        match = re.search(rf"\({_SIZE}\) exceeds available \w+ \({_SIZE}\)", complaint)
    if match is None:
        return 0, 0
    used, used_unit, available, available_unit = match.groups()
    needed_bytes = int(float(used) * _UNITS[used_unit])
    available_bytes = int(float(available) * _UNITS[available_unit])
    return needed_bytes, available_bytes
