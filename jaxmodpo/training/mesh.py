"""Which device holds which part of which array.

One table maps logical axes, as parameter tables name them, to mesh axes. The mesh has three:
``data`` (copies of the model), ``fsdp`` (parameters and batch parted) and ``tensor`` (matrices parted).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxmodpo.errors import UserError
from jaxmodpo.models.parameters import Table

AXES = ("data", "fsdp", "tensor")

RULES: Mapping[str | None, str | None] = {
    "vocab": "tensor",
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    "layers": None,
    None: None,
}


def make_mesh(shape: tuple[int, int, int] | None = None) -> Mesh:
    """Return a mesh of ``(data, fsdp, tensor)`` devices; by default all of them on ``fsdp``.

    Raises:
        UserError: the shape does not use exactly the devices there are.
    """
    devices = jax.device_count()
    shape = shape or (1, devices, 1)
    if math.prod(shape) != devices:
        raise UserError(
            f"--mesh {' '.join(map(str, shape))} needs {math.prod(shape)} devices; this machine has {devices}"
        )
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 3)


def shardings(mesh: Mesh) -> Callable[[Table], dict[str, NamedSharding]]:
    """Return a function from a parameter table to its shardings on ``mesh``.

    Raises:
        UserError: a dimension that its mesh axis does not divide; it would otherwise be replicated unseen.
    """

    def of(table: Table) -> dict[str, NamedSharding]:
        placed = {}
        for name, spec in table.items():
            axes = [RULES[axis] for axis in spec.axes]
            for size, axis in zip(spec.shape, axes, strict=True):
                if axis is not None and size % mesh.shape[axis]:
                    raise UserError(
                        f"{name} has a dimension of {size}, which the {mesh.shape[axis]} devices of the mesh axis "
                        f"'{axis}' do not divide; choose another --mesh"
                    )
            placed[name] = NamedSharding(mesh, PartitionSpec(*axes))
        return placed

    return of


def batch_sharding(mesh: Mesh, rows: int) -> NamedSharding:
    """Return how a batch's rows are spread: over ``data`` and ``fsdp``.

    Raises:
        UserError: the rows cannot be spread evenly.
    """
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    if rows % parts:
        raise UserError(f"a batch of {rows} rows cannot be spread over {parts} devices; make it a multiple of {parts}")
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
