"""Several processes that train one model: how they find each other, and who writes.

Every process runs the same command. Process 0 leads: it alone opens the run's folder and writes
reports; checkpoints are written by all, into a folder that all see. What only the leader can know
(whether a phase is finished, what a cache holds) it tells the others, so that all take the same way
or stop together::

    phase = open_together("align dpo", settings)       # every process; the leader opens the folder
    day = broadcast(lambda: date.today().isoformat())  # midnight may lie between two processes
    adapter = on_host(parameters)                      # also those that then write nothing
    if leads():
        save_adapter(folder, adapter, ...)

Whatever talks to the other processes is called by all of them, in the same order. One that takes
another way leaves the others waiting for it, without an error, until somebody ends the job.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils

from jaxmodpo.errors import UserError
from jaxmodpo.launched import place_among_processes
from jaxmodpo.parsing import JsonObject
from jaxmodpo.phase import Phase, open_phase, output_folder
from jaxmodpo.policy.compiled_programs import keep_compiled_programs
from jaxmodpo.ranges import Count, CountOrZero, Incidental, Settings
from jaxmodpo.results.manifest import MANIFEST, Manifest
from jaxmodpo.results.versioned import plain
from jaxmodpo.schema import read_as

logger = logging.getLogger(__name__)

Tree = TypeVar("Tree")

# A process that dies is noticed at once by those that wait for its numbers, and after this by the
# others.
HEARTBEAT_SECONDS: int = 60


@dataclass(frozen=True, kw_only=True)
class DeviceConfig(Settings, help_group="devices"):
    """On which devices a command runs, and with which other processes."""

    mesh: Incidental[tuple[Count, Count, Count] | None] = None
    """Devices along data, fsdp and tensor. By default all are on fsdp, with a copy of the model for
    each TPU slice or GPU host."""
    distributed: Incidental[Literal["auto", "off", "explicit"]] = "auto"
    """How processes find each other. auto: this one joins the others of a TPU pod, or of a
    GKE, SLURM or MPI job; explicit: those of the next three settings; off: it runs alone."""
    coordinator: Incidental[str | None] = None
    """Address of process 0, as HOST:PORT."""
    processes: Incidental[Count | None] = None
    """Number of processes in all."""
    process_id: Incidental[CountOrZero | None] = None
    """Number of this process, from 0."""

    def check(self) -> None:
        super().check()
        explicit = (self.coordinator, self.processes, self.process_id)
        if self.distributed == "explicit":
            if None in explicit:
                raise UserError(
                    "--distributed explicit needs --coordinator, --processes and --process-id"
                )
        elif any(value is not None for value in explicit):
            raise UserError(
                "--coordinator, --processes and --process-id need --distributed explicit"
            )


def start(config: DeviceConfig) -> None:
    """Join the other processes, if there are any, and let what they compile be kept in their
    cache; must come before anything asks for devices.

    Raises:
        UserError: the others cannot be reached.
    """
    _join(config)
    keep_compiled_programs(getattr(config, "cache_dir", None))


def _join(config: DeviceConfig) -> None:
    if config.distributed == "off" or jax.distributed.is_initialized():
        return
    if config.distributed == "auto" and not detected(os.environ):
        return
    try:
        # None of what is not said: JAX then asks the cluster.
        jax.distributed.initialize(
            coordinator_address=config.coordinator,
            num_processes=config.processes,
            process_id=config.process_id,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except Exception as error:
        raise UserError(f"cannot join the other processes: {str(error).splitlines()[0]}") from error
    logger.info(
        "process %d of %d, %d devices", jax.process_index(), jax.process_count(), jax.device_count()
    )


def detected(environment: Mapping[str, str]) -> bool:
    """Whether this process looks like one of several: a TPU pod or slice, a GKE, SLURM or MPI job.

    Args:
        environment: variables, as ``os.environ``.
    """
    if place_among_processes(environment).count > 1:
        return True
    # What several TPU slices are told, to find each other.
    if "MEGASCALE_COORDINATOR_ADDRESS" in environment:
        return True
    has_accelerator = Path("/dev/vfio/0").exists() or Path("/dev/accel0").exists()
    if not has_accelerator:
        return False
    may_use_tpu = environment.get("JAX_PLATFORMS", "tpu").startswith("tpu")
    return may_use_tpu and _on_tpu_vm()


def _on_tpu_vm() -> bool:
    import importlib.util

    return importlib.util.find_spec("libtpu") is not None


def leads() -> bool:
    """Whether this process is the one that writes reports."""
    return jax.process_index() == 0


def broadcast(decide: Callable[[], Any]) -> Any:
    """Let the leader decide, and return its decision in every process.

    Args:
        decide: called by the leader alone; returns a JSON value.

    Raises:
        UserError: the leader's, in every process.
    """
    if jax.process_count() == 1:
        return decide()
    decision: JsonObject = {}
    if leads():
        try:
            decision = {"value": decide()}
        except UserError as error:
            # Raised here, it would end the leader alone, and the others would wait for its word.
            decision = {"error": str(error)}
    message = np.frombuffer(json.dumps(decision).encode(), np.uint8)
    decision = json.loads(_broadcast_bytes(message).tobytes())
    if "error" in decision:
        raise UserError(decision["error"])
    return decision["value"]


def _broadcast_bytes(message: np.ndarray) -> np.ndarray:
    """Return the leader's array of bytes in every process, whatever its length."""
    # Every process must give an array of the same shape, and only the leader knows which: the
    # length goes first.
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(message))))
    buffer = message if leads() else np.zeros(size, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(buffer)).astype(np.uint8)


def broadcast_array(array: np.ndarray | None) -> np.ndarray:
    """Return the leader's float32 array in every process; the others pass None."""
    if jax.process_count() == 1:
        assert array is not None
        return array
    shape = broadcast(lambda: list(array.shape) if array is not None else [])
    buffer = np.zeros(shape, np.float32)
    if leads() and array is not None:
        buffer = array.astype(np.float32)
    return np.asarray(multihost_utils.broadcast_one_to_all(buffer))


def on_host(tree: Tree) -> Tree:
    """Return a tree of arrays as NumPy arrays, whole in every process."""

    def fetch(array: Array) -> np.ndarray:
        if array.is_fully_addressable or array.is_fully_replicated:
            return np.asarray(array.addressable_data(0) if array.is_fully_replicated else array)
        return np.asarray(multihost_utils.process_allgather(array, tiled=True))

    return jax.tree.map(fetch, tree)


def open_together(command: str, settings: Any) -> Phase:
    """Start, resume or recognize a training phase: join the other processes, then open it in the
    leader.

    Args:
        command: the command's name.
        settings: with ``output_dir`` and those of :class:`DeviceConfig`.

    Returns:
        The phase; in processes that do not lead, one that writes nothing.
    """
    start(settings)
    opened: list[Phase] = []

    def decide() -> JsonObject:
        # The leader keeps the phase itself, with its lock; the others get what it says.
        opened.append(open_phase(command, settings))
        return {"finished": opened[0].finished, "manifest": plain(opened[0].manifest)}

    outcome = broadcast(decide)
    if opened:
        return opened[0]
    manifest: Manifest = read_as(outcome["manifest"], Manifest, MANIFEST)
    return Phase(output_folder(settings), manifest, outcome["finished"], writes=False)
