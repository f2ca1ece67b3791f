"""One process at a time owns an output folder: a lock that dies with its owner.

Apart from phases because it is about processes alone. The lock is the system's (``flock``, which
network file systems carry as byte-range locks), on a file in the folder: a process that is killed
lets go of it without doing anything, and no lock is ever left behind to be judged by its age.

What could go wrong with a file that says who owns the folder, and does not here: its owner is
killed and the file stays; two processes look at the same moment and both find none; a machine's
clock is wrong, so that a live owner's file looks old. The system's lock has an owner or none. What
is written into the file is only for people::

    lock = locks.lock(folder, "align dpo")      # Held: "process 4711 on node7 (align dpo, since …)"
    lock.release()                              # or when nobody holds the object any more
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import time
import weakref
from pathlib import Path

from jaxmodpo.processes import machine

logger = logging.getLogger(__name__)

LOCK = ".lock"
"""the file's name, in the folder"""

# What a file system says that has no locks.
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class Held(Exception):
    """Another process owns the folder; the message says which one."""


class FolderLock:
    """The right to write into a folder, until :meth:`release` or until nobody holds this object any
    more.

    Attributes:
        real: False where the file system knows no locks, so that others are not kept away.
    """

    def __init__(self, folder: Path, descriptor: int, real: bool):
        self.real = real
        # Also at the interpreter's end: a finished folder is left without the lock's file.
        self._finalizer = weakref.finalize(self, _let_go, folder / LOCK, descriptor, os.getpid())

    def release(self) -> None:
        """Let others have the folder."""
        self._finalizer()


def _let_go(path: Path, descriptor: int, owner: int) -> None:
    # A forked child has a copy of this object, and its end is not the owner's.
    if os.getpid() != owner:
        return
    # Removed while it is still locked: whoever opened it meanwhile sees that it is gone, and opens
    # again.
    with contextlib.suppress(OSError):
        path.unlink()
    os.close(descriptor)


# Runs that open a folder a second time within one process share its lock.
_held: weakref.WeakValueDictionary[Path, FolderLock] = weakref.WeakValueDictionary()


def lock(folder: Path, command: str) -> FolderLock:
    """Take a folder for this process, which may hold it already.

    Args:
        folder: exists.
        command: told to others that want the folder.

    Raises:
        Held: by another process.
        OSError: the folder cannot be written to.
    """
    key = folder.resolve()
    existing = _held.get(key)
    if existing is not None and existing._finalizer.alive:
        return existing
    acquired = _take(key, command)
    _held[key] = acquired
    return acquired


def _take(folder: Path, command: str) -> FolderLock:
    path = folder / LOCK
    # Again, until the file that is locked is also the file that stands in the folder: between
    # opening and locking it, its owner may have removed it, and a third process may have made a
    # new one. A lock on a removed file keeps nobody away.
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        real = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                owner = _owner(descriptor)
                os.close(descriptor)
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    raise Held(owner) from None
                raise
            real = False
            logger.warning(
                "%s: this file system has no locks; start no second command on the folder", folder
            )
        if not real or _is_still(path, descriptor):
            break
        os.close(descriptor)
    owner = {
        "machine": machine(),
        "process": os.getpid(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": command,
    }
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(owner).encode(), 0)
    return FolderLock(folder, descriptor, real)


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether the open file is the one that others would open."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _owner(descriptor: int) -> str:
    """Say who holds a lock, from what its owner wrote into it."""
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0))
        host = str(owner["machine"]).partition("/")[0]
        return (
            f"process {owner['process']} on {host} ({owner['command']}, since {owner['started']})"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
