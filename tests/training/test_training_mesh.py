"""The mesh refuses what it cannot place, since a silent fallback costs memory that nobody sees."""

from __future__ import annotations

import jax
import pytest
from jax.sharding import PartitionSpec

from jaxmodpo.errors import UserError
from jaxmodpo.models.parameters import Spec
from jaxmodpo.training.mesh import AXES, batch_sharding, make_mesh, shardings


def machine(data: int, fsdp: int, tensor: int) -> jax.sharding.AbstractMesh:
    """A mesh of devices this machine need not have; enough to say what would go where."""
    return jax.sharding.AbstractMesh((data, fsdp, tensor), AXES)


def test_by_default_every_device_parts_the_parameters():
    assert dict(make_mesh().shape) == {"data": 1, "fsdp": jax.device_count(), "tensor": 1}


def test_a_mesh_of_other_devices_than_there_are_is_refused():
    with pytest.raises(UserError, match="--mesh 2 8 64 needs 1024 devices; this machine has"):
        make_mesh((2, 8, 64))


def test_parameters_are_parted_by_their_axes_and_layers_stay_whole():
    table = {"q": Spec((3, 8, 12), ("layers", "embed", "heads"), "q.{layer}"), "scale": Spec((5,), (None,), "s")}
    placed = shardings(machine(1, 4, 2))(table)  # pyright: ignore[reportArgumentType]
    assert placed["q"].spec == PartitionSpec(None, "fsdp", "tensor")
    assert placed["scale"].spec == PartitionSpec(None)


def test_a_dimension_that_does_not_divide_is_named():
    table = {"k": Spec((3, 8, 6), ("layers", "embed", "kv_heads"), "k.{layer}")}
    with pytest.raises(UserError, match="k has a dimension of 6, which the 4 devices of the mesh axis 'tensor'"):
        shardings(machine(1, 2, 4))(table)  # pyright: ignore[reportArgumentType]


def test_a_batch_is_spread_over_data_and_fsdp_or_refused():
    assert batch_sharding(machine(2, 4, 2), 16).spec == PartitionSpec(("data", "fsdp"))  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match="a batch of 12 rows cannot be spread over 8 devices"):
        batch_sharding(machine(2, 4, 2), 12)  # pyright: ignore[reportArgumentType]
