"""A phase's output folder: absent, running or finished, with a manifest that says what made it."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jaxmodpo
from jaxmodpo.artifacts import read_json, write_json
from jaxmodpo.config import as_mapping
from jaxmodpo.errors import UserError
from jaxmodpo.fingerprints import fingerprint
from jaxmodpo.hub import download_hint


@dataclass
class Phase:
    """One phase's output folder: absent, running or finished.

    ``manifest.json`` is written when the phase starts and again when it ends. Starting the same
    command on a finished folder does nothing; on an unfinished one it resumes; with other settings
    or inputs it is refused, so that no folder mixes two runs. Of several processes that train
    together, one writes.
    """

    directory: Path
    manifest: dict[str, Any]
    finished: bool
    writes: bool = True
    _started: float = dataclasses.field(default_factory=time.monotonic)
    _did_something: bool = False

    @classmethod
    def open(cls, command: str, config: Any, directory: Path, inputs: Mapping[str, Path]) -> Phase:
        """Start, resume or recognise a phase.

        Args:
            command: the command's name.
            config: its settings dataclass.
            directory: its output folder.
            inputs: what it reads, by name: files or folders.

        Raises:
            UserError: an input is missing, or the folder holds a run with other settings.
        """
        for name, path in inputs.items():
            if not path.exists():
                raise UserError(f"{name}: no such file or folder: {path}{download_hint(path)}")
        identity = {
            "command": command,
            "settings": {k: v for k, v in as_mapping(config).items() if k not in NOT_IDENTITY},
            "inputs": {name: fingerprint(path) for name, path in inputs.items()},
        }
        path = directory / "manifest.json"
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {directory}: {error.strerror}") from error
        if path.exists():
            manifest = read_json(path)
            difference = _difference(manifest.get("identity", {}), identity)
            # A start that was refused before it made anything claims no folder.
            claimed = manifest.get("status") == "finished" or any(p != path for p in directory.iterdir())
            if difference and claimed:
                raise UserError(
                    f"{directory} holds a run with other settings ({difference}); choose another output "
                    "folder or remove that one"
                )
            if not difference:
                return cls(directory, manifest, manifest.get("status") == "finished")
        manifest = {
            "status": "running",
            "identity": identity,
            "input_paths": {name: str(p) for name, p in inputs.items()},
            "started": _now(),
            "environment": environment(),
        }
        write_json(path, manifest)
        return cls(directory, manifest, False)

    def finish(self, **results: Any) -> None:
        """Record what the phase produced (counts, figures) and mark it finished, unless another process does."""
        self.finished = self._did_something = True
        if not self.writes:
            return
        self.manifest |= {
            "status": "finished",
            "results": results,
            "outputs": {
                str(p.relative_to(self.directory)): fingerprint(p)
                for p in sorted(self.directory.rglob("*"))
                if p.is_file() and not _is_kept_apart(p)
            },
            "finished": _now(),
            "seconds": round(time.monotonic() - self._started, 3),
        }
        write_json(self.directory / "manifest.json", self.manifest)

    @property
    def ending(self) -> str:
        """Say in a few words what became of it; empty where another process says so."""
        if not (self.finished and self.writes):
            return ""
        if self._did_something:
            return f"finished: {self.directory}"
        return f"{self.directory} was finished before; there is nothing to do"

    @property
    def results(self) -> dict[str, Any]:
        return self.manifest.get("results", {})


def _is_kept_apart(path: Path) -> bool:
    """Return whether a file holds times or work in progress, so that its hash says nothing of the outcome."""
    return path.name == "manifest.json" or "checkpoints" in path.parts or ".sqlite" in path.name


# Settings that say where or how fast, never what: they may differ when a run is resumed.
NOT_IDENTITY = frozenset(
    {
        *("output_dir", "output", "cache_dir", "keep_checkpoints", "track", "log_every", "save_every"),
        *("mesh", "distributed", "coordinator", "processes", "process_id"),
        *("max_concurrency", "api_key_env", "send_personas", "send_questions"),
        *("timeout", "budget", "budget_calls", "retry_errors", "ledger", "poll_seconds", "dry_run"),
        *("tokenizer", "model_table"),
        *("trials", "study", "keep_trials"),
    }
)


def _difference(old: Any, new: Any, name: str = "") -> str:
    """Name the first value in which two manifests' identities differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            said = _difference(old.get(key), new.get(key), f"{name}.{key}" if name else str(key))
            if said:
                return said
        return ""
    if old == new:
        return ""
    if name.startswith("inputs."):
        return f"the input {name.removeprefix('inputs.')} has changed"
    return f"{name.removeprefix('settings.')} was {old}, is {new}"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def environment() -> dict[str, Any]:
    """Return versions and, once JAX is in use, the devices."""
    versions = {"jaxmodpo": jaxmodpo.__version__, "python": platform.python_version()}
    for name in ("jax", "flax", "optax", "orbax-checkpoint", "transformers", "openai"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    found: dict[str, Any] = {"versions": versions, "platform": platform.platform()}
    jax = sys.modules.get("jax")
    if jax is not None:
        found["devices"] = [d.device_kind for d in jax.devices()]
    return found
