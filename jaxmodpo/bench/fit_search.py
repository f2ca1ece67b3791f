"""The search of ``fit``: the mesh, the batch and what is computed again that train most questions a
second by the roofline, among those that fit.

Each attempt compiles for minutes, so that what cannot win is left out by arithmetic::

    for answer in search(FitConfig(search=True), topology_devices("v5e:4x4")):
        print(answer.mesh, answer.remat, answer.batch_size, answer.questions_per_second)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh

from jaxmodpo.bench.fit_examples import batches_of, replies_of
from jaxmodpo.bench.fit_settings import FitConfig
from jaxmodpo.bench.fit_step import answer_under, lora_of, policies_of, say, training_work
from jaxmodpo.errors import UserError
from jaxmodpo.models.remat import Remat
from jaxmodpo.models.roberta import parameter_table as encoder_table
from jaxmodpo.models.shapes import decoder_shape, encoder_shape
from jaxmodpo.policy.mesh import make_mesh, row_shards
from jaxmodpo.training.ahead import abstract, abstract_policy
from jaxmodpo.training.fit import GIB, Answer, largest_batch, mesh_shapes
from jaxmodpo.training.hardware import Chip, chip_of
from jaxmodpo.training.recomputation import DEVICE_SHARE

_MANY_ROWS = 2**10
"""of a batch beside which the bytes of the weights are few"""


def search(config: FitConfig, devices: list[Any]) -> Iterator[Answer]:
    """Find the largest batch that fits on each of the meshes that promise most, and under each
    policy of recomputation that could still beat what was found before; yields one answer for
    each.

    Memory grows linearly with the batch, so that two compilations tell where it ends and a third or
    fourth confirms it.
    """
    chip = chip_of(devices[0].device_kind)
    if chip is None:
        raise UserError(
            f"the memory of {devices[0].device_kind} is not known (configs/hardware/chips.yaml)"
        )
    meshes = _promising(config, devices, chip)
    if not meshes:
        raise UserError(
            "no mesh of these devices can hold the model; choose a topology of more chips"
        )
    best = 0.0
    for mesh in meshes[: config.search_meshes]:
        policies = policies_of(config, mesh)
        for remat in policies:
            # The first promises most. One that needs less memory is worth compiling only if a
            # batch of any size could make it the fastest.
            if len(policies) > 1 and _promised_pace(config, mesh, remat, chip) <= best:
                continue
            largest = _largest(config, mesh, chip, remat)
            if largest.fits:
                best = max(best, largest.questions_per_second)
            yield largest


def _promised_pace(config: FitConfig, mesh: Mesh, remat: Remat, chip: Chip) -> float:
    """Return the questions a second that the roofline allows a batch too large for any memory,
    whose weights are gathered for many questions at a time.
    """
    size = _unit(config, mesh) * math.ceil(_MANY_ROWS / row_shards(mesh))
    large = dataclasses.replace(config, batch_size=min(size, config.examples))
    batches = batches_of(large, mesh)
    bounds = training_work(config, batches, mesh, remat).bounds(chip)
    return batches.examples_per_update / max(bounds.values())


def _promising(config: FitConfig, devices: list[Any], chip: Chip) -> list[Mesh]:
    """Return meshes on which the weights leave room, the fastest by the roofline first."""
    meshes: list[Mesh] = []
    ranks: list[tuple[float, float]] = []
    for shape in mesh_shapes(len(devices)):
        try:
            mesh = make_mesh(shape, devices)
            # A tenth of the memory at least is for activations. Compiling takes minutes, and this
            # takes none.
            if _argument_bytes(config, mesh) > 0.9 * chip.hbm_gib * GIB:
                continue
            small = dataclasses.replace(config, batch_size=_unit(config, mesh) * 2)
            batches = batches_of(small, mesh)
        except UserError:
            continue  # the model does not divide this mesh
        # The roofline is known without compiling, and is good enough to choose by.
        fastest = policies_of(config, mesh)[0]
        slowest_bound = max(training_work(config, batches, mesh, fastest).bounds(chip).values())
        # As fast as each other by two digits: then the one that leaves more room.
        pace = float(f"{slowest_bound / batches.examples_per_update:.1e}")
        meshes.append(mesh)
        ranks.append((pace, _argument_bytes(config, mesh)))
    order = sorted(range(len(meshes)), key=ranks.__getitem__)
    return [meshes[number] for number in order]


def _argument_bytes(config: FitConfig, mesh: Mesh) -> float:
    """Return the bytes of weights, adapter and moments on one chip."""
    if config.step == "reward":
        encoder = abstract(encoder_table(encoder_shape(config.model)), jnp.float32, mesh)
        # Adam keeps two moments of every trained weight.
        return 3 * _shard_bytes(encoder)
    decoder = decoder_shape(config.model)
    base, adapter = abstract_policy(decoder, lora_of(config), mesh, config.base_dtype)
    return _shard_bytes(base) + 3 * _shard_bytes(adapter)


def _shard_bytes(arrays: dict[str, Any]) -> float:
    """Return the bytes of arrays on one chip."""
    total = 0
    for array in arrays.values():
        total += math.prod(array.sharding.shard_shape(array.shape)) * array.dtype.itemsize
    return total


def _unit(config: FitConfig, mesh: Mesh) -> int:
    """Return what batch sizes should be multiples of, so that every device has the same number of
    sequences.
    """
    # Rows are divided among the devices by sequences, of which a question has one for each reply.
    return max(1, row_shards(mesh) // replies_of(config))


def _largest(config: FitConfig, mesh: Mesh, chip: Chip, remat: Remat) -> Answer:
    """Return the answer for the largest batch that fits on a mesh under a policy; an update keeps
    about as many examples.
    """
    examples_per_update = config.batch_size * config.gradient_accumulation
    # What a run would choose by itself leaves some memory free.
    share = DEVICE_SHARE if config.remat == "auto" and config.step != "score" else 1.0

    def attempt(size: int) -> Answer:
        microbatches = max(1, round(examples_per_update / size))
        changed = dataclasses.replace(config, batch_size=size, gradient_accumulation=microbatches)
        attempted = answer_under(changed, mesh, remat, share)
        say(attempted)
        return attempted

    room = share * chip.hbm_gib * GIB
    return largest_batch(attempt, _unit(config, mesh), config.examples, room)
