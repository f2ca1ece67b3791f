"""What a benchmark's figures depend on besides its settings: the machine, how busy it is, and the
versions of what computes.
"""

from __future__ import annotations

import importlib.metadata
import os
from dataclasses import asdict
from typing import Any

from jaxmodpo.results.manifest import this_environment


def this_machine(*libraries: str) -> dict[str, Any]:
    """Return platform, devices, versions, the cores that this process may use, and the machine's
    load average over the last minute, as JSON values.

    Args:
        libraries: further ones whose versions count, such as ``trl``.
    """
    machine: dict[str, Any] = asdict(this_environment())
    for name in libraries:
        machine["versions"][name] = importlib.metadata.version(name)
    machine["cores"] = cores()
    machine["load_average"] = round(os.getloadavg()[0], 2)
    return machine


def cores() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    # Where a system cannot bind a process to processors, it may use all of them.
    return os.cpu_count() or 1


def cores_and_load() -> str:
    """Return a few words for a table's heading, such as ``2 cores, load average 0.4``."""
    return f"{cores()} cores, load average {os.getloadavg()[0]:.1f}"
