"""Which device holds which part of which array: meshes, and shardings by
:data:`jaxmodpo.models.axes.RULES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxmodpo.errors import UserError
from jaxmodpo.models.axes import MESH_AXES, RULES, mesh_axes
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.parameters import Spec, Table

UNPARTED = 0.02
"""most of a model's bytes that may lie whole on every device of an ``fsdp`` axis"""


def default_shape(devices: Sequence[Any]) -> tuple[int, int, int]:
    """Return ``(data, fsdp, tensor)`` for this hardware.

    Parameters are parted where the network is fast, and copied where it is slow: over the chips of
    one TPU slice or the GPUs of one host, with a copy for each slice or host.
    """
    platform = devices[0].platform
    if platform == "tpu":
        groups = len({getattr(device, "slice_index", 0) for device in devices})
    elif platform in ("gpu", "cuda", "rocm"):
        groups = len({device.process_index for device in devices})
    else:
        groups = 1
    return (groups, len(devices) // groups, 1)


def make_mesh(
    shape: tuple[int, int, int] | None = None, devices: Sequence[Any] | None = None
) -> Mesh:
    """Return a mesh of ``(data, fsdp, tensor)`` devices.

    Args:
        shape: by default :func:`default_shape`.
        devices: by default all there are, of all processes.

    Raises:
        UserError: the shape does not use exactly the devices there are.
    """
    devices = jax.devices() if devices is None else devices
    shape = shape or default_shape(devices)
    if math.prod(shape) != len(devices):
        raise UserError(
            f"--mesh {' '.join(map(str, shape))} needs {math.prod(shape)} devices; there are"
            f" {len(devices)}"
        )
    groups, within = default_shape(devices)[0], shape[0]
    if groups > 1 and within % groups == 0:
        inner = (within // groups, *shape[1:])
        platform = devices[0].platform
        grid = mesh_utils.create_hybrid_device_mesh(
            inner,
            (groups, 1, 1),
            devices,
            process_is_granule=platform != "tpu",
            allow_split_physical_axes=True,
        )
    else:
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * 3)


def shardings(mesh: Mesh) -> Callable[[Table], dict[str, NamedSharding]]:
    """Return a function from a parameter table to its shardings on ``mesh``.

    Raises:
        UserError: a dimension that its mesh axes do not divide, which would otherwise be replicated
            unseen; or more than 2% of the bytes on every device of an ``fsdp`` axis.
    """

    def of(table: Table) -> dict[str, NamedSharding]:
        placed = {}
        whole: dict[str, int] = {}
        for name, spec in table.items():
            for size, axis in zip(spec.shape, spec.axes, strict=True):
                parts = _parts(mesh, RULES[axis])
                if size % parts:
                    axes = RULES[axis]
                    said = axes if isinstance(axes, str) else "' and '".join(axes or ())
                    raise UserError(
                        f"{name} has a dimension of {size}, which the {parts} devices of the mesh"
                        f" axis '{said}' do not divide; choose another --mesh"
                    )
            placed[name] = NamedSharding(mesh, mesh_axes(spec.axes))
            if not any("fsdp" in _names(RULES[axis]) for axis in spec.axes):
                whole[name] = array_bytes(spec)
        total = sum(array_bytes(spec) for spec in table.values())
        if mesh.shape["fsdp"] > 1 and sum(whole.values()) > UNPARTED * total:
            largest = max(whole, key=lambda name: whole[name])
            raise UserError(
                f"{sum(whole.values()) / total:.1%} of the bytes would lie whole on each of the"
                f" {mesh.shape['fsdp']} devices of the mesh axis 'fsdp', most of them in {largest};"
                f" at most {UNPARTED:.0%} may"
            )
        return placed

    return of


def array_bytes(spec: Spec, size: int = 2) -> int:
    """Return a parameter's bytes, given those of an element whose type the table leaves open."""
    return math.prod(spec.shape) * (jnp.dtype(spec.dtype).itemsize if spec.dtype else size)


def check_heads(config: DecoderConfig, mesh: Mesh) -> None:
    """Refuse a ``tensor`` axis that would cut through attention heads.

    Raises:
        UserError: with the numbers.
    """
    parts = mesh.shape["tensor"]
    for name in ("num_attention_heads", "num_key_value_heads"):
        if getattr(config, name) % parts:
            raise UserError(
                f"{name} is {getattr(config, name)}, which the {parts} devices of the mesh axis"
                " 'tensor' do not divide; choose another --mesh"
            )


def row_shards(mesh: Mesh) -> int:
    """Return among how many devices a batch's rows are shared out."""
    return _parts(mesh, RULES["batch"])


def place_batch(
    mesh: Mesh, batch: Mapping[str, np.ndarray], by_rows: Collection[str] | None = None
) -> dict[str, jax.Array]:
    """Put a batch of microbatches on a mesh; each process gives its devices their part.

    Args:
        mesh: the devices.
        batch: arrays ``[microbatches, rows, …]``, the same in every process.
        by_rows: the arrays whose second axis is sharded; the others are copied. None: all.
    """
    places = batch_shardings(mesh, batch, by_rows)
    return {name: put(array, places[name]) for name, array in batch.items()}


def batch_shardings(
    mesh: Mesh, names: Collection[str], by_rows: Collection[str] | None = None
) -> dict[str, NamedSharding]:
    """Return where :func:`place_batch` puts each array."""
    rows = NamedSharding(mesh, PartitionSpec(None, RULES["batch"]))
    everywhere = NamedSharding(mesh, PartitionSpec())
    return {name: rows if by_rows is None or name in by_rows else everywhere for name in names}


def put(array: np.ndarray | jax.Array, sharding: NamedSharding) -> jax.Array:
    """Put an array that every process has whole where a sharding says."""
    if sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    whole = np.asarray(array)
    return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])


def _names(axes: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (axes,) if isinstance(axes, str) else axes or ()


def _parts(mesh: Mesh, axes: str | tuple[str, ...] | None) -> int:
    return math.prod(mesh.shape[name] for name in _names(axes))
