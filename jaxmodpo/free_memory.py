"""How much of this machine's memory is free: what the system says, and what a container leaves."""

from __future__ import annotations

import os
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")

_CONTAINER = Path("/sys/fs/cgroup")
"""where Linux says what a container may take, and what it has taken"""


def free_memory() -> int | None:
    """Return the bytes that a process may still take, without anything being written to a swap
    file; None where the system does not say.
    """
    amounts = [amount for amount in (_of_machine(), _of_container()) if amount is not None]
    return min(amounts, default=None)


def _of_machine() -> int | None:
    """Return what the machine has free, caches of files included."""
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return _of_pages()
    for line in lines:
        name, _, amount = line.partition(":")
        if name == "MemAvailable":
            kib = int(amount.split()[0])
            return 1024 * kib
    return _of_pages()


def _of_pages() -> int | None:
    """Return all memory of a system that does not say what is free of it, such as macOS."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def _of_container() -> int | None:
    """Return what a container's limit leaves; None without a limit."""
    try:
        limit = (_CONTAINER / "memory.max").read_text(encoding="ascii").strip()
        taken = int((_CONTAINER / "memory.current").read_text(encoding="ascii"))
        cached = _cached_files()
    except (OSError, ValueError):
        return None
    if limit == "max":
        return None
    return max(0, int(limit) - taken + cached)


def _cached_files() -> int:
    """Return the bytes of files that a container's memory holds, and gives up when asked."""
    for line in (_CONTAINER / "memory.stat").read_text(encoding="ascii").splitlines():
        name, _, amount = line.partition(" ")
        if name == "inactive_file":
            return int(amount)
    return 0
