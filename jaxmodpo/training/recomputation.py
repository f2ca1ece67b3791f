"""Which policy of recomputation a run takes: the fastest whose step fits its devices.

The step is compiled under one policy after the other, from the fastest to the one that needs the
least memory, until the compiler says of one that it fits. What fits is then run as it is: JAX keeps
the program, and compiles it only once. The choice is kept in the cache, under all that it depends
on, so that a run that starts again compiles nothing but its own step::

    choice = choose(problem.loss_under, lower, arguments, mesh, cache_dir, None)
    choice.policy, choice.reason      # "dots", "it needs 11.49 of the 15.75 GiB of a device, …"

Losses and gradients are the same whatever is chosen, but for the last bits. A run that goes on from
a checkpoint takes the policy that it began with, so that these are the same too.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jaxlib
from jax.sharding import Mesh

from jaxmodpo import __version__
from jaxmodpo.errors import UserError
from jaxmodpo.files import read_json, write_json
from jaxmodpo.fingerprints import cache_folder, digest
from jaxmodpo.free_memory import free_memory
from jaxmodpo.models.remat import LADDER, Remat
from jaxmodpo.parsing import JsonObject
from jaxmodpo.policy.distributed import broadcast, leads
from jaxmodpo.schema import read_as
from jaxmodpo.training.ahead import Compiled, compile_lowered
from jaxmodpo.training.hardware import chip_of
from jaxmodpo.training.step import Loss

logger = logging.getLogger(__name__)

GIB = 2**30

DEVICE_SHARE = 0.9
"""of a device's memory that a chosen step may need. The rest is for what the compiler does not
count: the next batch, an evaluation's first arrays, and gaps between arrays."""

HOST_SHARE = 0.5
"""of the free memory of a machine whose processor trains"""


@dataclass(frozen=True)
class Choice:
    """A policy, and why it was chosen.

    Attributes:
        policy: of recomputation.
        reason: in words.
        key: digest of all that the choice depends on.
    """

    policy: Remat
    reason: str
    key: str


@dataclass(frozen=True)
class Room:
    """What a step may need.

    Attributes:
        usable: bytes: of one device, or of this process where its processor trains.
        described: what they are a part of, in words.
    """

    usable: float
    described: str


def ladder(mesh: Mesh) -> tuple[Remat, ...]:
    """Return the policies that a mesh's devices have, the fastest first."""
    # A processor's own memory is the host's.
    return LADDER[:-1] if _platform(mesh) == "cpu" else LADDER


def choose(
    loss_under: Callable[[Remat], Loss],
    lower: Callable[[Loss], Any],
    arguments: Any,
    mesh: Mesh,
    cache_dir: Path | None,
    before: Choice | None,
) -> Choice:
    """Return the policy of a run, and say it in the log; every process calls this, and all get the
    leader's choice.

    Args:
        loss_under: the loss under a policy.
        lower: traces the run's own step with a loss, and does not compile it yet.
        arguments: the step's, whose shapes and places its memory depends on.
        mesh: the devices.
        cache_dir: of the cache; None for the default one.
        before: the choice that this run began with, if it goes on from a checkpoint.

    Raises:
        UserError: the compiler cannot place the step under any policy.
    """
    policies = ladder(mesh)
    # The leader's: devices of two hosts may not have quite the same memory.
    key = broadcast(lambda: _key(loss_under(policies[0]), arguments, mesh))
    if before is not None and before.key == key:
        logger.info("remat: %s, as before this run was interrupted", before.policy)
        return before
    path = (cache_dir or cache_folder()) / f"remat-{key[:32]}.json"
    # Free memory is another at each start, and compiling for a processor takes seconds.
    is_kept = _platform(mesh) != "cpu"
    kept = broadcast(lambda: _read(path) if is_kept else None)
    if kept is not None:
        choice: Choice = read_as(kept, Choice, str(path))
        logger.info("remat: %s, as was chosen before: %s", choice.policy, choice.reason)
        return choice
    policy, reason = _first_that_fits(policies, lambda name: lower(loss_under(name)), mesh)
    choice = Choice(policy, reason, key)
    logger.info("remat: %s: %s", policy, reason)
    if is_kept and leads():
        write_json(path, dataclasses.asdict(choice))
    return choice


def _first_that_fits(
    policies: tuple[Remat, ...], lowered_under: Callable[[Remat], Any], mesh: Mesh
) -> tuple[Remat, str]:
    """Return the first policy whose step fits, or the one that needs least, and the reason."""
    room = room_of(mesh)
    if broadcast(lambda: room is None):
        kind = mesh.devices.flat[0].device_kind
        return "full", f"the memory of a {kind} is not known"
    tried: dict[Remat, Compiled] = {}
    for policy in policies:
        # Every process compiles, as the processes of a GPU job tune their kernels together. The
        # leader's verdict counts: another host may have less free memory.
        tried[policy] = _compiled(policy, lowered_under)
        if broadcast(lambda: room is not None and fits(tried[policy], room, mesh)):  # noqa: B023
            break
    chosen, reason = broadcast(lambda: _chosen(tried, room, mesh))
    return chosen, reason


def _compiled(policy: Remat, lowered_under: Callable[[Remat], Any]) -> Compiled:
    """Compile the step under a policy."""
    started = time.perf_counter()
    try:
        compiled, _ = compile_lowered(lowered_under(policy), started)
    except jax.errors.JaxRuntimeError as error:
        # Not every compiler can move arrays to the host. It comes last, and a step that lacks it
        # alone may still run.
        if policy != "offload":
            raise
        sentence = str(error).splitlines()[0]
        logger.warning("remat: offload cannot be compiled for these devices: %s", sentence)
        return Compiled(False, 0, 0, 0, 0, time.perf_counter() - started, sentence)
    return compiled


def _chosen(tried: dict[Remat, Compiled], room: Room | None, mesh: Mesh) -> tuple[Remat, str]:
    """Return the policy among those that were tried, the last of which may fit, and the reason.

    Raises:
        UserError: the compiler could place the step under none.
    """
    assert room is not None
    last = next(reversed(tried))
    if fits(tried[last], room, mesh):
        return last, described_choice(last, tried, room, mesh)
    placed = [policy for policy, compiled in tried.items() if compiled.fits]
    if not placed:
        raise UserError(
            f"under no policy of recomputation does this step fit {room.described}:"
            f" {_needs(tried, mesh)}. A smaller --batch-size with a larger --gradient-accumulation"
            " needs less, and so do --base-dtype int8 or nf4 and more devices"
        )
    least = min(placed, key=lambda policy: needs(tried[policy], mesh))
    return least, f"none leaves more room: {_needs(tried, mesh)}, of {room.described}"


def fits(compiled: Compiled, room: Room, mesh: Mesh) -> bool:
    """Return whether a compiled step fits, and leaves free what is to stay free."""
    return compiled.fits and needs(compiled, mesh) <= room.usable


def needs(compiled: Compiled, mesh: Mesh) -> int:
    """Return the bytes that count against a :class:`Room`."""
    if _platform(mesh) != "cpu":
        return compiled.peak
    # The arguments are in memory already, and no longer a part of what is free.
    return compiled.temporary * len(mesh.local_devices)


def described_choice(policy: Remat, tried: dict[Remat, Compiled], room: Room, mesh: Mesh) -> str:
    """Say why a policy was chosen that is the first to fit of those that were tried."""
    gibibytes = needs(tried[policy], mesh) / GIB
    reason = f"it needs {gibibytes:.2f} GiB of {room.described}"
    slower = {name: compiled for name, compiled in tried.items() if name != policy}
    return f"{reason}; {_needs(slower, mesh)}" if slower else reason


def _needs(tried: dict[Remat, Compiled], mesh: Mesh) -> str:
    """Say what each policy needs."""
    parts: list[str] = []
    for policy, compiled in tried.items():
        # Of a step that does not fit, the compiler says where it gave up.
        least = "" if compiled.fits else "at least "
        gibibytes = needs(compiled, mesh) / GIB
        parts.append(f"{policy} needs {least}{gibibytes:.2f} GiB")
    return ", ".join(parts)


def room_of(mesh: Mesh) -> Room | None:
    """Return what a step may need on a mesh's devices; None where nobody knows their memory."""
    if _platform(mesh) == "cpu":
        free = free_memory()
        if free is None:
            return None
        described = f"{free / GIB:.2f} GiB that this machine has free, half of which stay so"
        return Room(HOST_SHARE * free, described)
    limit = device_memory(mesh)
    if limit is None:
        return None
    described = f"the {limit / GIB:.2f} GiB of a device, a tenth of which stays free"
    return Room(DEVICE_SHARE * limit, described)


def device_memory(mesh: Mesh) -> int | None:
    """Return the bytes of memory of one of a mesh's devices, as it says itself or its data sheet
    does; None where neither does.
    """
    device = mesh.devices.flat[0]
    # Another process's device answers nothing, nor does one that is not here.
    for local in jax.local_devices():
        if local.device_kind == device.device_kind:
            limit = (local.memory_stats() or {}).get("bytes_limit")
            if limit:
                return int(limit)
    chip = chip_of(device.device_kind)
    return int(chip.hbm_gib * GIB) if chip else None


def _platform(mesh: Mesh) -> str:
    return str(mesh.devices.flat[0].platform)


def _key(loss: Loss, arguments: Any, mesh: Mesh) -> str:
    """Return a digest of all that a step's memory depends on.

    That is the model's shape, the method and the implementation of attention, which the loss names;
    the batch's shape, the number formats and where everything lies, which the arguments say; the
    kind of device and its memory; and the versions of all that makes a program of them.
    """
    device = mesh.devices.flat[0]
    is_cpu = _platform(mesh) == "cpu"
    arrays, structure = jax.tree.flatten((arguments, loss))
    return digest(
        {
            "structure": str(structure),
            "arrays": list(_descriptions(arrays)),
            "mesh": [int(size) for size in mesh.shape.values()],
            "device": device.device_kind,
            "memory": None if is_cpu else device_memory(mesh),
            "share": HOST_SHARE if is_cpu else DEVICE_SHARE,
            "policies": list(ladder(mesh)),
            "versions": [
                __version__,
                jax.__version__,
                jaxlib.__version__,
                device.client.platform_version,
            ],
        }
    )


def _descriptions(arrays: list[Any]) -> Iterator[list[Any]]:
    """Yield each array's shape, type and place. Of a number in a loss, such as β, its type alone
    counts.
    """
    for array in arrays:
        place = getattr(getattr(array, "sharding", None), "spec", None)
        kind = getattr(array, "dtype", type(array).__name__)
        yield [list(getattr(array, "shape", ())), str(kind), str(place)]


def _read(path: Path) -> JsonObject | None:
    """Return a kept choice, or None where there is none that can be read."""
    if not path.is_file():
        return None
    try:
        return dataclasses.asdict(read_json(path, Choice))
    except UserError as error:
        logger.warning("%s; the choice is made anew", error)
        return None
