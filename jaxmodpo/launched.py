"""Which of several processes this one is, as its launcher says: read from the environment alone, so
that commands which never talk to each other need no JAX to know it.

    place_among_processes(os.environ)       # Place(number=2, count=4): the third of four
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxmodpo.errors import UserError


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
    """Return the place that SLURM or GKE gives a process; the first of one where neither does.

    Args:
        environment: variables, as ``os.environ``.
    """
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks > 1:
        return Place(int(environment.get("SLURM_PROCID", "0")), tasks)
    hosts = environment.get("TPU_WORKER_HOSTNAMES", "").split(",")
    if len(hosts) > 1:
        return Place(int(environment.get("TPU_WORKER_ID", "0")), len(hosts))
    return Place(0, 1)


def refuse_further_processes(command: str, environment: Mapping[str, str]) -> None:
    """Refuse all but the first of several processes, for commands that are one process's work.

    Raises:
        UserError: this is another one.
    """
    place = place_among_processes(environment)
    if place.number > 0:
        raise UserError(
            f"{command} is the work of one process, and this is number {place.number} of"
            f" {place.count} (from 0): the first one does it; start {command} on one host alone"
        )
