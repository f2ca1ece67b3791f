"""What a training step will need, found by compiling it ahead of time, without the machine it is for."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxmodpo.errors import UserError
from jaxmodpo.models.attention import Attention, Backend
from jaxmodpo.models.decoder import DecoderConfig, parameter_table
from jaxmodpo.models.files import dtype_named
from jaxmodpo.models.lora import LoraConfig, adapter_table
from jaxmodpo.models.parameters import Table
from jaxmodpo.models.quantised import BaseDtype, is_quantised, stored_table
from jaxmodpo.training.mesh import AXES, batch_sharding, make_mesh, shardings
from jaxmodpo.training.policy import Method, PolicyLoss
from jaxmodpo.training.step import OptimizerSettings, TrainState, moment_shardings, train_step


@dataclass(frozen=True)
class Fit:
    """Bytes per device, as the compiler reports them.

    Attributes:
        arguments: weights, adapter, Adam's moments and the batch.
        temporary: activations, gradients and whatever else lives within the step.
        peak: the most at any moment; 0 where this compiler does not say.
        compile_seconds: how long compiling took here.
    """

    arguments: int
    temporary: int
    peak: int
    compile_seconds: float

    @property
    def total(self) -> int:
        """What the step needs: the peak, or arguments and temporaries where there is none."""
        return self.peak or self.arguments + self.temporary


def topology_mesh(topology: str | None, shape: tuple[int, int, int] | None = None) -> Mesh:
    """Return a mesh of this machine's devices, or of a TPU topology that need not be here.

    Args:
        topology: such as ``v5e:4x4``; None means this machine. libtpu must be installed (the ``tpu`` extra).
        shape: devices along data, fsdp and tensor; by default all on fsdp.

    Raises:
        UserError: no libtpu, an unknown topology, or a shape that does not fit it.
    """
    if topology is None:
        return make_mesh(shape)
    from jax.experimental import topologies

    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    # A v5e slice smaller than a host has to say how its host is laid out.
    options: dict[str, Any] = {"chips_per_host_bounds": [1, 1, 1]} if topology.endswith(":1x1") else {}
    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=topology, **options).devices
    except Exception as error:
        raise UserError(
            f"cannot compile for '{topology}': {str(error).splitlines()[0]} (libtpu comes with the 'tpu' extra; "
            "topologies are named like v5e:4x4 or v5p:2x2x1)"
        ) from error
    shape = shape or (1, len(devices), 1)
    if int(np.prod(shape)) != len(devices):
        raise UserError(f"--mesh {' '.join(map(str, shape))} does not fit the {len(devices)} devices of {topology}")
    return Mesh(np.asarray(devices).reshape(shape), AXES, axis_types=(AxisType.Auto,) * 3)


def abstract(table: Table, dtype: Any, mesh: Mesh) -> Any:
    """Return a table's arrays without their numbers, placed on a mesh."""
    placed = shardings(mesh)(table)
    return {
        name: jax.ShapeDtypeStruct(spec.shape, jnp.dtype(spec.dtype or dtype), sharding=placed[name])
        for name, spec in table.items()
    }


def fit_step(
    config: DecoderConfig,
    lora: LoraConfig,
    method: Method,
    fields: dict[str, tuple[tuple[int, ...], Any]],
    mesh: Mesh,
    *,
    base_dtype: BaseDtype = "bfloat16",
    microbatches: int = 1,
    attention: Backend = "auto",
    remat: bool = True,
) -> Fit:
    """Compile a training step for a mesh and return what it needs there.

    Args:
        config: the base model's shape.
        lora: the adapter.
        method: what is done with log-probabilities.
        fields: shape and dtype of each array of a batch, rows of all microbatches first.
        mesh: of real devices or of a topology.
        base_dtype: of the base weights.
        microbatches: parts that the batch is cut into.
        attention: which implementation.
        remat: recompute activations.

    Raises:
        UserError: the step does not fit the device's memory, in the compiler's numbers.
    """
    table = parameter_table(config)
    base = abstract(
        stored_table(table, base_dtype), dtype_named("bfloat16" if is_quantised(base_dtype) else base_dtype), mesh
    )
    adapter = abstract(adapter_table(table, lora), jnp.float32, mesh)
    everywhere = NamedSharding(mesh, PartitionSpec())
    optimizer = OptimizerSettings(0.01, 1.0)
    moments = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        jax.eval_shape(optimizer.transformation().init, adapter),
        moment_shardings(optimizer, adapter),
    )
    rows = next(iter(fields.values()))[0][0]
    spread = batch_sharding(mesh, rows // microbatches)
    batch = {name: jax.ShapeDtypeStruct(shape, dtype, sharding=spread) for name, (shape, dtype) in fields.items()}
    key = jax.eval_shape(lambda: jax.random.key(0))
    started = time.perf_counter()
    lowered = train_step.lower(
        TrainState(adapter, moments),
        base,
        batch,
        jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=everywhere),
        jax.ShapeDtypeStruct((), jnp.float32, sharding=everywhere),
        loss=PolicyLoss(config, lora, method, Attention(attention, mesh), remat),
        optimizer=optimizer,
        microbatches=microbatches,
    )
    try:
        memory: Any = lowered.compile().memory_analysis()
    except Exception as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(f"the step does not fit: {str(error).splitlines()[0]}") from error
    return Fit(
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes,
        getattr(memory, "peak_memory_in_bytes", 0),
        time.perf_counter() - started,
    )
