"""The mesh refuses what it cannot place, since a silent fallback costs memory that nobody sees."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxmodpo.errors import UserError
from jaxmodpo.models.axes import MESH_AXES
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.parameters import Spec
from jaxmodpo.policy.mesh import (
    check_heads,
    default_shape,
    make_mesh,
    place_batch,
    place_microbatch,
    shardings,
)


def machine(data: int, fsdp: int, tensor: int) -> jax.sharding.AbstractMesh:
    """A mesh of devices this machine need not have; enough to say what would go where."""
    return jax.sharding.AbstractMesh((data, fsdp, tensor), MESH_AXES)


def test_by_default_every_device_parts_the_parameters():
    assert dict(make_mesh().shape) == {"data": 1, "fsdp": jax.device_count(), "tensor": 1}


def test_a_mesh_of_other_devices_than_there_are_is_refused():
    with pytest.raises(UserError, match="--mesh 2 8 64 needs 1024 devices; there are"):
        make_mesh((2, 8, 64))


def test_parameters_are_parted_by_their_axes_and_layers_stay_whole():
    table = {
        "q": Spec((3, 8, 12), ("layers", "embed", "heads"), "q.{layer}"),
        "scale": Spec((5,), (None,), "s"),
    }
    placed = shardings(machine(1, 4, 2))(table)  # pyrefly: ignore
    assert placed["q"].spec == PartitionSpec(None, "fsdp", "tensor")
    assert placed["scale"].spec == PartitionSpec(None)


def test_a_dimension_that_does_not_divide_is_named():
    table = {"k": Spec((3, 8, 6), ("layers", "embed", "kv_heads"), "k.{layer}")}
    with pytest.raises(
        UserError, match="k has a dimension of 6, which the 4 devices of the mesh axis 'tensor'"
    ):
        shardings(machine(1, 2, 4))(table)  # pyrefly: ignore


def test_an_adapters_outputs_are_parted_over_both_axes():
    table = {"B": Spec((3, 4, 16), ("layers", None, "adapter_heads"), "b.{layer}")}
    placed = shardings(machine(1, 4, 2))(table)  # pyrefly: ignore
    assert placed["B"].spec == PartitionSpec(None, None, ("tensor", "fsdp"))
    with pytest.raises(
        UserError,
        match="B has a dimension of 16, which the 32 devices of the mesh axis 'tensor' and",
    ):
        shardings(machine(1, 16, 2))(table)  # pyrefly: ignore


def test_bytes_that_every_fsdp_device_would_hold_are_an_error_beyond_two_per_cent():
    def table(whole: int) -> dict[str, Spec]:
        return {
            "w": Spec((100, 98), ("embed", "heads"), "w"),
            "scale": Spec((whole,), (None,), "s"),
        }

    shardings(machine(1, 4, 1))(table(200))  # pyrefly: ignore
    with pytest.raises(
        UserError, match=r"2\.1% of the bytes would lie whole on each of the 4 devices.*in scale"
    ):
        shardings(machine(1, 4, 1))(table(210))  # pyrefly: ignore
    shardings(machine(4, 1, 1))(table(210))  # pyrefly: ignore


def test_heads_are_not_cut_through():
    config = DecoderConfig(16, 16, 16, 1, 8, 2, 2)
    check_heads(config, machine(1, 4, 2))  # pyrefly: ignore
    with pytest.raises(UserError, match="num_key_value_heads is 2, which the 4 devices"):
        check_heads(config, machine(1, 2, 4))  # pyrefly: ignore


@pytest.mark.parametrize(
    ("platform", "slices", "hosts", "expected"),
    [
        ("tpu", 1, 4, (1, 16, 1)),
        ("tpu", 2, 4, (2, 8, 1)),
        ("gpu", 1, 2, (2, 8, 1)),
        ("cpu", 1, 2, (1, 16, 1)),
    ],
)
def test_by_default_copies_lie_across_slow_networks(platform, slices, hosts, expected):
    devices = [
        SimpleNamespace(
            platform=platform, slice_index=n * slices // 16, process_index=n * hosts // 16
        )
        for n in range(16)
    ]
    assert default_shape(devices) == expected


def test_a_batch_goes_to_rows_and_everywhere():
    mesh = make_mesh()
    batch = {"tokens": np.zeros((2, 4, 3), np.int32), "row_weights": np.ones((2, 3), np.float32)}
    placed = place_batch(mesh, batch, ("tokens",))
    assert placed["tokens"].sharding == NamedSharding(mesh, PartitionSpec(None, ("data", "fsdp")))
    assert placed["row_weights"].sharding.is_fully_replicated


def test_one_microbatch_goes_where_its_part_of_the_batch_would():
    mesh = make_mesh()
    tokens = np.arange(24, dtype=np.int32).reshape(2, 4, 3)
    batch = {"tokens": tokens, "row_weights": np.ones((2, 3), np.float32)}
    placed = place_microbatch(mesh, batch, ("tokens",), number=1)
    np.testing.assert_array_equal(placed["tokens"], tokens[1])
    assert placed["tokens"].sharding == NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    assert placed["row_weights"].sharding.is_fully_replicated
