"""Hashes of what phases read and make: of JSON values, of files and of folders.

Every byte counts: a checkpoint that was edited anywhere has another fingerprint. So that gigabytes
are not read at each command, the hash of a large file is remembered in the user's cache, under all
that a file system changes when somebody writes to the file.

A wrong hash would let a run go on with other data. So a remembered one is used only where nothing
can have changed: same size, same times of writing and of change (which no program can set), same
file on the same disk. And it is remembered only of a file that was left alone for a while before it
was hashed, and during::

    fingerprint(Path("Mistral-7B"))         # 40 seconds the first time, then milliseconds
    digest({"seed": 0, "beta": 0.1})        # the same for every order of the keys
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from jaxmodpo.errors import UserError
from jaxmodpo.files import write_json
from jaxmodpo.hub import local_folder

REMEMBERED_FROM = 8 * 2**20
"""bytes from which on a file's hash is remembered; smaller ones are hashed faster than looked up"""

# A file that is written to twice within a tick of its clock shows one time for both: what was
# changed so recently may change again without showing it. The coarsest clocks of file systems tick
# every two seconds.
_SETTLED_NS = 3 * 10**9


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value in canonical form."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint(path: Path, *, remembered: bool = True) -> str:
    """Return a hash of a file's or folder's whole content.

    In folders, hidden files and manifests, which hold times, do not count. Of a Hub repository's
    cache folder the snapshot counts that is used.

    Args:
        path: the file or folder.
        remembered: a large file that has not been written to since it was hashed is not read again.

    Raises:
        UserError: it cannot be read.
    """
    path = local_folder(path)
    if path.is_dir():
        content: list[list[str]] = []
        for file in sorted(path.rglob("*")):
            name = file.relative_to(path)
            if file.is_file() and _counts(name):
                content.append([str(name), fingerprint(file, remembered=remembered)])
        return digest(content)
    try:
        return _of_file(path, remembered)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _counts(name: Path) -> bool:
    """Return whether a folder's file is part of what the folder holds: not hidden, no manifest."""
    is_hidden = any(folder.startswith(".") for folder in name.parts)
    return name.name != "manifest.json" and not is_hidden


def _of_file(path: Path, remembered: bool) -> str:
    # The clock first: a change that comes while the file is hashed is later than this.
    now = time.time_ns()
    with path.open("rb") as file:
        before = _state(os.fstat(file.fileno()))
        if before["size"] < REMEMBERED_FROM or not remembered:
            return hashlib.file_digest(file, "sha256").hexdigest()
        memory = _memory(path)
        remembered_hash = _remembered(memory, before)
        if remembered_hash is not None:
            return remembered_hash
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        # Written to meanwhile, the hash is of no content that the file ever had.
        unchanged = _state(os.fstat(file.fileno())) == before
    if unchanged and _settled(before, now):
        # A cache that cannot be written costs time alone.
        with contextlib.suppress(OSError, UserError):
            write_json(memory, before | {"sha256": sha256})
    return sha256


def _state(stat: os.stat_result) -> dict[str, int]:
    """Return what changes when a file is written to or replaced; nobody can set the time of change
    (``ctime``).
    """
    return {
        "size": stat.st_size,
        "modified": stat.st_mtime_ns,
        "changed": stat.st_ctime_ns,
        "inode": stat.st_ino,
        "device": stat.st_dev,
    }


def _settled(state: dict[str, int], now: int) -> bool:
    """Whether a file was last changed so long ago that any later change shows."""
    return max(state["modified"], state["changed"]) + _SETTLED_NS < now


def cache_folder() -> Path:
    """Return where work is kept that can be done again: ``$JAXMODPO_CACHE``, or
    ``~/.cache/jaxmodpo``.
    """
    return Path(os.environ.get("JAXMODPO_CACHE", Path.home() / ".cache" / "jaxmodpo"))


def _memory(path: Path) -> Path:
    """Return where a file's hash is remembered: a small file for each, so that commands do not wait
    for one another.
    """
    path_hash = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()
    return cache_folder() / "fingerprints" / f"{path_hash[:32]}.json"


def _remembered(memory: Path, state: dict[str, int]) -> str | None:
    """Return the hash that was remembered for this very state of a file, or None."""
    try:
        entry = json.loads(memory.read_text(encoding="utf-8"))
        sha256 = entry.pop("sha256")
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
    # All of the state or nothing: an entry of an older version has other fields.
    if entry != state or not isinstance(sha256, str):
        return None
    return sha256
