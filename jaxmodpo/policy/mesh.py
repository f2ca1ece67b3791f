"""Which device holds which part of which array: meshes, and shardings by
:data:`jaxmodpo.models.axes.RULES`.

Eight devices as two copies of a model, each sharded over four::

    mesh = make_mesh((2, 4, 1))                       # data, fsdp, tensor
    places = shardings(mesh)(parameter_table(config))
    embedding = put(array, places["embed"])
    batch = place_batch(mesh, next(batches), batches.by_rows)

Along ``data`` and ``fsdp`` every device has its own rows of a batch. Along ``fsdp`` each also holds
a shard of every weight, which is gathered from the others when a layer needs it whole. Along
``tensor`` the products themselves are cut, by heads and by hidden units.
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

MOST_UNSHARDED = 0.02
"""most of a model's bytes that may lie whole on every device of an ``fsdp`` axis"""


def default_shape(devices: Sequence[Any]) -> tuple[int, int, int]:
    """Return ``(data, fsdp, tensor)`` for this hardware.

    Parameters are sharded where the network is fast, and copied where it is slow: over the chips of
    one TPU slice or the GPUs of one host, with a copy for each slice or host.
    """
    platform = devices[0].platform
    group_numbers = {0}
    if platform == "tpu":
        group_numbers = {getattr(device, "slice_index", 0) for device in devices}
    elif platform in ("gpu", "cuda", "rocm"):
        group_numbers = {device.process_index for device in devices}
    groups = len(group_numbers)
    devices_of_group = len(devices) // groups
    return (groups, devices_of_group, 1)


def sampling_shape(devices: Sequence[Any], config: DecoderConfig) -> tuple[int, int, int]:
    """Return ``(data, fsdp, tensor)`` for drawing one token after the other.

    Every token reads all weights. Along ``fsdp`` they would be gathered from other devices each
    time; along ``tensor`` each device reads its own part and keeps its own key-value heads. What
    the heads do not divide has copies of the model.
    """
    tensor = math.gcd(len(devices), config.num_key_value_heads)
    copies = len(devices) // tensor
    return (copies, 1, tensor)


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
    needed_devices = math.prod(shape)
    if needed_devices != len(devices):
        sizes = " ".join(map(str, shape))
        raise UserError(f"--mesh {sizes} needs {needed_devices} devices; there are {len(devices)}")
    groups, _, _ = default_shape(devices)
    copies, fsdp, tensor = shape
    if groups > 1 and copies % groups == 0:
        # Several slices or hosts: the data axis, which sends each gradient once an update, is what
        # crosses the slow network between them. The other two axes stay within a slice or host.
        shape_within_group = (copies // groups, fsdp, tensor)
        groups_along_axes = (groups, 1, 1)
        grid = mesh_utils.create_hybrid_device_mesh(
            shape_within_group,
            groups_along_axes,
            devices,
            process_is_granule=devices[0].platform != "tpu",
            allow_split_physical_axes=True,
        )
    else:
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    # Auto: the compiler carries a sharding on from parameters and constraints to whatever is made
    # of them. Explicit axes would have to be stated for every intermediate array.
    return Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * 3)


def shardings(mesh: Mesh) -> Callable[[Table], dict[str, NamedSharding]]:
    """Return a function from a parameter table to its shardings on ``mesh``.

    Raises:
        UserError: a dimension that its mesh axes do not divide, which would otherwise be replicated
            unseen; or more than 2% of the bytes on every device of an ``fsdp`` axis.
    """

    def shardings_of(table: Table) -> dict[str, NamedSharding]:
        for name, spec in table.items():
            _check_divisible(name, spec, mesh)
        _check_sharded(table, mesh)
        sharding_of_name: dict[str, NamedSharding] = {}
        for name, spec in table.items():
            sharding_of_name[name] = NamedSharding(mesh, mesh_axes(spec.axes))
        return sharding_of_name

    return shardings_of


def _check_divisible(name: str, spec: Spec, mesh: Mesh) -> None:
    """Refuse a dimension that its mesh axes do not divide.

    Left to themselves, libraries copy such an array to every device without a word.
    """
    for size, axis in zip(spec.shape, spec.axes, strict=True):
        axes = RULES[axis]
        shards = _shard_count(mesh, axes)
        if size % shards:
            listed = "' and '".join(_names(axes))
            raise UserError(
                f"{name} has a dimension of {size}, which the {shards} devices of the mesh"
                f" axis '{listed}' do not divide; choose another --mesh"
            )


def _check_sharded(table: Table, mesh: Mesh) -> None:
    """Refuse a table of which too much is not sharded over ``fsdp``.

    Norms and biases may lie whole on every device, since they are small. A large array that does is
    a rule that was forgotten, and would be noticed first when the memory is full.
    """
    if mesh.shape["fsdp"] == 1:
        return
    bytes_of_all = 0
    unsharded: dict[str, int] = {}
    for name, spec in table.items():
        size = array_bytes(spec)
        bytes_of_all += size
        if not _is_sharded_over_fsdp(spec):
            unsharded[name] = size
    unsharded_bytes = sum(unsharded.values())
    if unsharded_bytes > MOST_UNSHARDED * bytes_of_all:
        share = unsharded_bytes / bytes_of_all
        devices = mesh.shape["fsdp"]
        largest = max(unsharded, key=lambda name: unsharded[name])
        raise UserError(
            f"{share:.1%} of the bytes would lie whole on each of the {devices} devices of the"
            f" mesh axis 'fsdp', most of them in {largest}; at most {MOST_UNSHARDED:.0%} may"
        )


def _is_sharded_over_fsdp(spec: Spec) -> bool:
    """Return whether each device of an ``fsdp`` axis holds a shard of an array, and not all of
    it.
    """
    # One sharded dimension is enough: the array's bytes are then divided among the devices.
    for axis in spec.axes:
        mesh_axes_of_dimension = _names(RULES[axis])
        if "fsdp" in mesh_axes_of_dimension:
            return True
    return False


def array_bytes(spec: Spec, size: int = 2) -> int:
    """Return a parameter's bytes, given those of an element whose type the table leaves open."""
    # The table leaves the type of most weights open, since a base is held in one of several.
    element_bytes = jnp.dtype(spec.dtype).itemsize if spec.dtype else size
    return math.prod(spec.shape) * element_bytes


def check_heads(config: DecoderConfig, mesh: Mesh) -> None:
    """Refuse a ``tensor`` axis that would cut through attention heads.

    Raises:
        UserError: with the numbers.
    """
    shards = mesh.shape["tensor"]
    for name in ("num_attention_heads", "num_key_value_heads"):
        heads = getattr(config, name)
        if heads % shards:
            raise UserError(
                f"{name} is {heads}, which the {shards} devices of the mesh axis"
                " 'tensor' do not divide; choose another --mesh"
            )


def row_shards(mesh: Mesh) -> int:
    """Return among how many devices a batch's rows are shared out."""
    return _shard_count(mesh, RULES["batch"])


def place_batch(
    mesh: Mesh, batch: Mapping[str, np.ndarray], by_rows: Collection[str] | None = None
) -> dict[str, jax.Array]:
    """Put a batch of microbatches on a mesh; each process gives its devices their part.

    Args:
        mesh: the devices.
        batch: arrays ``[microbatches, rows, …]``, the same in every process.
        by_rows: the arrays whose second axis is sharded; the others are copied. None: all.
    """
    array_shardings = batch_shardings(mesh, batch, by_rows)
    return {name: put(array, array_shardings[name]) for name, array in batch.items()}


def place_microbatch(
    mesh: Mesh,
    batch: Mapping[str, np.ndarray],
    by_rows: Collection[str] | None = None,
    number: int = 0,
) -> dict[str, jax.Array]:
    """Put one of a batch's microbatches on a mesh, as arrays ``[rows, …]``.

    It is cut out here, not on the devices, where that would be a few small programs for each shape
    of array, which all must be compiled.

    Args:
        mesh: the devices.
        batch: as :func:`place_batch`.
        by_rows: the arrays whose rows are sharded; the others are copied. None: all.
        number: of the microbatch, from 0.
    """
    placed: dict[str, jax.Array] = {}
    for name, sharding in batch_shardings(mesh, batch, by_rows).items():
        one = NamedSharding(mesh, PartitionSpec(*sharding.spec[1:]))
        placed[name] = put(batch[name][number], one)
    return placed


def batch_shardings(
    mesh: Mesh, names: Collection[str], by_rows: Collection[str] | None = None
) -> dict[str, NamedSharding]:
    """Return where :func:`place_batch` puts each array."""
    rows = NamedSharding(mesh, PartitionSpec(None, RULES["batch"]))
    everywhere = NamedSharding(mesh, PartitionSpec())
    # Axis 0 counts the microbatches of an update, which every device goes through one by one; so
    # the devices divide axis 1, the rows of each.
    array_shardings: dict[str, NamedSharding] = {}
    for name in names:
        is_by_rows = by_rows is None or name in by_rows
        array_shardings[name] = rows if is_by_rows else everywhere
    return array_shardings


def put(array: np.ndarray | jax.Array, sharding: NamedSharding) -> jax.Array:
    """Put an array that every process has whole where a sharding says."""
    # The host cuts out the shards: on a device that would be a program to compile for each.
    whole = np.asarray(array)
    if sharding.is_fully_addressable:
        return jax.device_put(whole, sharding)
    # Some of the devices are other processes'. Each process cuts its own devices' shards out of its
    # copy, so that nothing is sent; the copies must be equal, or the array would be none.
    return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])


def _names(axes: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the mesh axes of a rule, which has one, several or none."""
    if axes is None:
        return ()
    if isinstance(axes, str):
        return (axes,)
    return axes


def _shard_count(mesh: Mesh, axes: str | tuple[str, ...] | None) -> int:
    """Return among how many devices a dimension is divided by its rule."""
    sizes = [mesh.shape[name] for name in _names(axes)]
    return math.prod(sizes)
