"""``manifest.json``: what made an output folder, and what came out.

A command writes it when it starts and when it ends (:mod:`jaxmodpo.phase`). The same command reads
it to go on, to do nothing or to refuse; ``report`` and ``verify`` read it too.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import jaxmodpo
from jaxmodpo.errors import UserError
from jaxmodpo.files import read_json
from jaxmodpo.fingerprints import digest
from jaxmodpo.parsing import JsonObject
from jaxmodpo.results.versioned import Result, plain, read_result
from jaxmodpo.schema import Tally

MANIFEST = "manifest.json"
"""the file's name, in an output folder"""

_LIBRARIES = ("jax", "flax", "optax", "orbax-checkpoint", "transformers", "openai")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What tells a run from others; a folder made with another identity is refused."""

    command: str
    settings: Mapping[str, Any]
    """the settings that say what comes out, by name"""
    inputs: Mapping[str, str]
    """fingerprints of what the command reads, by the name of the setting"""

    def digest(self) -> str:
        """Return a hash of it, by which ledgers, journals and studies know the run."""
        return digest(plain(self))


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What a process ran on."""

    versions: Mapping[str, str]
    """of Python, of jaxmodpo and of the libraries that it computes with"""
    platform: str
    devices: tuple[str, ...] = ()
    """kinds of the devices, once JAX is in use"""


@dataclass(frozen=True, kw_only=True)
class Life:
    """One process that worked on a run; a run that was killed has several."""

    started: str
    process: int
    environment: Environment
    ended: str | None = None


@dataclass(frozen=True, kw_only=True)
class Output:
    """A file that a finished run left."""

    bytes: Tally
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest(Result):
    """``manifest.json``."""

    status: Literal["running", "finished"]
    identity: Identity
    input_paths: Mapping[str, str]
    """where the inputs lay"""
    started: str
    environment: Environment
    lives: tuple[Life, ...]
    results: Mapping[str, Any] = field(default_factory=dict)
    """counts and figures, which each command names as it likes: people read them, in the report and
    in the log. What other commands compute with stands in result files, which have types."""
    outputs: Mapping[str, Output] = field(default_factory=dict)
    """the files that a finished run left, by their path in the folder"""
    removed: tuple[str, ...] = ()
    """journals and checkpoints that are removed once the run is finished"""
    finished: str | None = None
    seconds: float | None = None
    """how long the last life took"""
    prompt_date: str | None = None
    """the day that a chat template wrote into every prompt, for the next lives to write too"""

    @property
    def is_finished(self) -> bool:
        return self.status == "finished"

    def check(self, source: str) -> None:
        """Refuse names of files outside of the folder: what ``removed`` names is deleted."""
        for key, names in (("removed", self.removed), ("outputs", self.outputs)):
            for name in names:
                if not _is_below(name):
                    raise UserError(
                        f"{source}: {key}, {name!r:.80} is no file or folder below its own"
                    )

    def with_life(self) -> Manifest:
        """Return it with one life more, which is this process."""
        return replace(self, status="running", lives=(*self.lives, this_life()))

    def inputs(self) -> Iterator[tuple[str, Path, str]]:
        """Yield what the command read: its name, where it lay, and its fingerprint then."""
        for name, recorded in self.identity.inputs.items():
            if name in self.input_paths:
                yield name, Path(self.input_paths[name]), recorded


def _is_below(name: str) -> bool:
    """Return whether a name is one of a file or folder below the one that it is relative to."""
    pieces = Path(name).parts
    if not pieces or Path(name).is_absolute() or ".." in pieces:
        return False
    # What no file system takes for a name: a manifest may have been written by hand.
    longest = max(map(len, pieces))
    return longest < 256 and "\0" not in name


def read_manifest(path: Path) -> Manifest:
    """Read a ``manifest.json``.

    Raises:
        UserError: it cannot be read, is of another version or shape, or names files outside of its
            folder.
    """
    return read_result(path, Manifest)


def find_manifest(folder: Path) -> Manifest | None:
    """Return the manifest of an output folder; None where the folder is not one of ours.

    Adapters come from anywhere, and other tools call a file of theirs ``manifest.json`` too. Ours
    has an identity.

    Raises:
        UserError: as :func:`read_manifest`'s.
    """
    path = folder / MANIFEST
    if not path.is_file() or "identity" not in read_json(path, JsonObject):
        return None
    return read_manifest(path)


def is_finished(folder: Path) -> bool:
    """Return whether an output folder's manifest is there and says that its run is finished."""
    path = folder / MANIFEST
    return path.is_file() and read_manifest(path).is_finished


# --------------------------------------------------------------------------- this process


def this_life() -> Life:
    """Describe this process, for a manifest that several one after the other may write."""
    return Life(started=now(), process=os.getpid(), environment=this_environment())


def this_environment() -> Environment:
    """Return this process's versions, platform and, once JAX is in use, devices."""
    own_versions = {"jaxmodpo": jaxmodpo.__version__, "python": platform.python_version()}
    versions = own_versions | _library_versions()
    # Importing JAX takes seconds and claims the devices: commands that do without it must not pay.
    jax = sys.modules.get("jax")
    devices = [] if jax is None else [device.device_kind for device in jax.devices()]
    return Environment(versions=versions, platform=platform.platform(), devices=tuple(devices))


@functools.cache
def _library_versions() -> dict[str, str]:
    """Return the versions of the libraries that are installed.

    Each is read from a long text that its package brings. What a process has imported stays what it
    is, so that all of its phases may share one reading.
    """
    versions: dict[str, str] = {}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def now() -> str:
    """Return the time in UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
