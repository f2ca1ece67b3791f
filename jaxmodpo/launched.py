"""Which of several processes this one is, as its launcher says: read from the environment and the
host's name alone, so that commands which never talk to each other need neither JAX nor the network
to know it.

    place_among_processes(os.environ)       # Place(number=2, count=4): the third of four
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from jaxmodpo.errors import UserError

Processes = Literal["first", "all", "one"]
"""what becomes of a command that a launcher starts several times. first: the first process does the
work and the others are refused; all: they work together; one: all are refused, since the command
trains on its way, and its training would wait for the others"""

_MPI = (("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), ("PMI_RANK", "PMI_SIZE"))
"""variables of Open MPI, and of MPICH, Intel MPI and others that start processes by PMI"""


@dataclass(frozen=True)
class Place:
    """A process's place.

    Attributes:
        number: from 0.
        count: of all processes.
    """

    number: int
    count: int


def place_among_processes(environment: Mapping[str, str]) -> Place:
    """Return the place that MPI, SLURM or GKE gives a process; the first of one where none does.

    Args:
        environment: variables, as ``os.environ``.
    """
    # MPI goes first: mpirun in a SLURM job starts one daemon a node by srun, and what the daemon
    # starts inherits the daemon's place as SLURM has it.
    for rank, size in _MPI:
        if _number(environment, size, 1) > 1:
            return Place(_number(environment, rank, 0), _number(environment, size, 1))
    tasks = _number(environment, "SLURM_STEP_NUM_TASKS", 1)
    if tasks > 1:
        return Place(_number(environment, "SLURM_PROCID", 0), tasks)
    return _place_in_slices(environment)


def _place_in_slices(environment: Mapping[str, str]) -> Place:
    """Return the place that GKE gives a pod among the hosts of one TPU slice or several."""
    # The same variables, in the same order, as JAX reads to find the other processes.
    hosts = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES", "")
    hosts_of_slice = len(hosts.split(","))
    number_in_slice = _number(environment, "TPU_WORKER_ID", 0)
    slices = _number(environment, "MEGASCALE_NUM_SLICES", 1)
    slice_number = _number(environment, "MEGASCALE_SLICE_ID", 0)
    return Place(slice_number * hosts_of_slice + number_in_slice, slices * hosts_of_slice)


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    """Return the number in a variable; the default where it holds none.

    Where libtpu finds no TPU it leaves a warning's text in ``TPU_WORKER_ID``, which all processes
    that are started from there inherit.
    """
    value = environment.get(name, "")
    return int(value) if value.isdecimal() else default


def number_on_tpu_vms(environment: Mapping[str, str], host: str) -> int:
    """Return which host of its slice a TPU VM is, from 0; 0 on every other machine.

    The metadata server knows more, and is not asked: a command that uses no network for its work
    needs none to start. Google names these machines ``t1v-n-0123abcd-w-3``.

    Args:
        environment: variables, as ``os.environ``; ``TPU_WORKER_ID`` counts before the name.
        host: this machine's name, with or without its domain.
    """
    name = re.match(r"t1v-n-[0-9a-f]+-w-(\d+)(\.|$)", host)
    if name is None or environment.get("TPU_WORKER_ID", "").isdecimal():
        return 0
    return int(name[1])


def refuse_further_processes(
    command: str,
    environment: Mapping[str, str] = os.environ,
    host: str = "",
    processes: Processes = "first",
) -> None:
    """Refuse all but the first of several processes, for commands that are one process's work.

    Args:
        command: its name, for the sentence.
        environment: variables.
        host: this machine's name; by default it is looked up.
        processes: what becomes of the command in several processes.

    Raises:
        UserError: this is another one, or one of several where there must be one alone.
    """
    if processes == "all":
        return
    own_place = place_among_processes(environment)
    if own_place.number > 0:
        raise UserError(
            f"{command} is the work of one process, and this is number {own_place.number} of"
            f" {own_place.count} (from 0): the first one does it; start {command} on one host alone"
        )
    if own_place.count > 1 and processes == "one":
        raise UserError(
            f"{command} is the work of one process, and {own_place.count} were started: its"
            f" trainings would wait for the others; start {command} in one process alone"
        )
    host = host or platform.node()
    number = number_on_tpu_vms(environment, host)
    if number > 0:
        raise UserError(
            f"{command} is the work of one process, and {host} is host {number} of its TPU slice"
            f" (from 0): start {command} on host 0 alone"
        )
