"""One table from logical axes to the axes of a device mesh, for parameters and activations alike.

The mesh has three axes: ``data`` (copies of the model), ``fsdp`` (parameters and batch parted) and
``tensor`` (matrices parted). An adapter's outputs are parted over ``fsdp`` too: they would lie on
every device wherever ``tensor`` is 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

MESH_AXES = ("data", "fsdp", "tensor")

RULES: Mapping[str | None, str | tuple[str, ...] | None] = {
    # parameters
    "vocab": "tensor",
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    "layers": None,
    "adapter_heads": ("tensor", "fsdp"),
    "adapter_kv_heads": ("tensor", "fsdp"),
    "adapter_mlp": ("tensor", "fsdp"),
    "adapter_embed": "fsdp",
    # activations
    "batch": ("data", "fsdp"),
    None: None,
}


def mesh_axes(axes: Sequence[str | None]) -> PartitionSpec:
    """Return where an array lies, given the logical name of each of its axes."""
    return PartitionSpec(*(RULES[axis] for axis in axes))


def constrain(array: Array, mesh: Mesh | None, *axes: str | None) -> Array:
    """Tell the compiler where an activation lies; without a mesh, or on one device, nothing.

    Args:
        array: within a jitted function.
        mesh: its devices.
        axes: a logical name for each axis of the array.
    """
    assert array.ndim == len(axes)
    if mesh is None or mesh.size == 1:
        return array
    return jax.lax.with_sharding_constraint(array, NamedSharding(mesh, mesh_axes(axes)))
