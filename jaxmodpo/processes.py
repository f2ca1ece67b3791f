"""Which machine this is, and whether a process of it still runs: for what a process leaves to others when it dies."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path


def machine() -> str:
    """Name where a process number means the same process.

    Containers may share their host's name and not its processes, and machines may have the same name:
    the kernel's namespace of process numbers and its boot tell them apart, where it has them.
    """
    parts = [socket.gethostname().replace(" ", "-")]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8])
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return "/".join(parts)


def is_gone(number: int) -> bool:
    """Whether no process of this machine has this number."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
