"""One table from logical axes to the axes of a device mesh, for parameters and activations alike.

The mesh has three axes:

- ``data``: each device has a copy of the model and its own rows of the batch.
- ``fsdp``: parameters and batch are sharded. A layer's weights are gathered just before they are
  used, and dropped afterwards, so that memory is saved at the price of traffic.
- ``tensor``: matrices are sharded and stay so. Each device computes its own heads or its own part
  of the MLP, and the results are added up over devices twice in each layer.

A parameter's axes have names that say what they are, such as ``embed`` or ``heads``, and the table
says where each name lies. So another way of sharding is a change of this table alone::

    mesh_axes(("layers", "embed", "heads"))     # PartitionSpec(None, "fsdp", "tensor")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

MESH_AXES = ("data", "fsdp", "tensor")

RULES: Mapping[str | None, str | tuple[str, ...] | None] = {
    # Parameters. A matrix has two of these names, which must lie on different mesh axes: one mesh
    # axis cannot shard two axes of an array.
    "vocab": "tensor",
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    # The scan takes one layer at a time, so that a sharded stack would have to be gathered.
    "layers": None,
    # An adapter's outputs are sharded over ``fsdp`` too. Its other axis is the rank, which is too
    # small to shard, so that without this the whole of B would lie on every device wherever
    # ``tensor`` is 1.
    "adapter_heads": ("tensor", "fsdp"),
    "adapter_kv_heads": ("tensor", "fsdp"),
    "adapter_mlp": ("tensor", "fsdp"),
    "adapter_embed": "fsdp",
    # Activations: rows of the batch. What else an activation shares with a parameter (``heads``)
    # lies where the parameter does.
    "batch": ("data", "fsdp"),
    # Rows that the devices of ``fsdp`` hold together, each a part of their width.
    "copies": "data",
    # Rows of which a token is drawn. The draw has no matrix whose columns ``tensor`` could divide,
    # so that the devices of that axis, which hold the same rows of the batch, share these out too.
    "draws": ("data", "fsdp", "tensor"),
    None: None,
}


def mesh_axes(axes: Sequence[str | None]) -> PartitionSpec:
    """Return where an array lies, given the logical name of each of its axes."""
    return PartitionSpec(*(RULES[axis] for axis in axes))


def constrain_rows(array: Array, mesh: Mesh | None) -> Array:
    """Tell the compiler that an activation whose first axis is rows lies with them."""
    return constrain(array, mesh, "batch", *[None] * (array.ndim - 1))


def embedded(table_VD: Array, tokens_BT: Array, mesh: Mesh | None) -> Array:
    """Return the tokens' rows of an embedding, ``[B, T, D]``, which lie with the rows of the batch.

    The table's width is sharded over ``fsdp``, and so is what is taken from it. From there to rows
    over ``data`` and ``fsdp`` XLA finds no way in one step, and would have the whole array on every
    device; each of these two is one that it knows.
    """
    x_BTD = constrain(table_VD[tokens_BT], mesh, "copies", None, "embed")
    return constrain_rows(x_BTD, mesh)


def constrain(array: Array, mesh: Mesh | None, *axes: str | None) -> Array:
    """Tell the compiler where an activation lies; without a mesh, or on one device, nothing.

    Args:
        array: within a jitted function.
        mesh: its devices.
        axes: a logical name for each axis of the array.
    """
    assert array.ndim == len(axes)
    # On one device a constraint would only stand in the way of fusions.
    if mesh is None or mesh.size == 1:
        return array
    return jax.lax.with_sharding_constraint(array, NamedSharding(mesh, mesh_axes(axes)))
