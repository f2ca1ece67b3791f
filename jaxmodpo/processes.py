"""Which machine this is, and whether a process of it still runs: for what a process leaves to
others when it dies.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path


def machine() -> str:
    """Name where a process number means the same process.

    Containers may share their host's name and not its processes, and machines may have the same
    name: the kernel's namespace of process numbers and its boot tell them apart, where it has them.
    """
    names = [socket.gethostname().replace(" ", "-")]
    with contextlib.suppress(OSError):
        names.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8])
        names.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return "/".join(names)


def this_process() -> str:
    """Name this process to whoever finds what it leaves: its machine, a space and its number."""
    return f"{machine()} {os.getpid()}"


def is_known_gone(process: str) -> bool:
    """Whether a process, by the name that :func:`this_process` gave it, was one of this machine and
    is gone.

    Of another machine's processes, another container's or an earlier boot's nobody here can tell:
    they count as running, and what they hold has to run out by itself.
    """
    process_machine, _, number = process.rpartition(" ")
    return process_machine == machine() and number.isdecimal() and is_gone(int(number))


def host_of(process: str) -> str:
    """Return the host of a process by its name, which containers and boots of that host share."""
    return process.rpartition(" ")[0].partition("/")[0]


def is_gone(number: int) -> bool:
    """Whether no process of this machine with this number runs; one that was killed stays listed
    for a while.
    """
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return _has_ended(number)


def _has_ended(number: int) -> bool:
    """Whether a process has ended and is listed only until its parent asks how; False where nobody
    says so.
    """
    try:
        stat = Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return False
    # "number (name) state …"; a name may hold brackets.
    return stat.rpartition(")")[2].split()[0] in ("Z", "X")
