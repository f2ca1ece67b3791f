"""A phase's output folder: absent, running or finished, with a manifest that says what made it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import jaxmodpo
from jaxmodpo.config import as_mapping
from jaxmodpo.errors import UserError
from jaxmodpo.files import DATABASE_FILES, read_json, refuse_links, remove_leftovers, write_json
from jaxmodpo.fingerprints import fingerprint
from jaxmodpo.hub import download_hint
from jaxmodpo.locks import LOCK, FolderLock, Held, lock
from jaxmodpo.ranges import Settings, incidental
from jaxmodpo.results import Manifest

MANIFEST = "manifest.json"
"""the file's name, in a phase's folder"""


# Names in a phase's folder under which something is written to in place, or into; other files are
# replaced whole.
_WRITTEN_TO = (
    *(MANIFEST, "sampled.jsonl", "metrics.jsonl", "votes.sqlite", "study.db"),
    *(f"{name}{ending}" for name in ("votes.sqlite", "study.db") for ending in DATABASE_FILES),
    *(
        "checkpoints",
        "batches",
        "points",
        "trials",
        "figures",
        "tensorboard",
        "wandb",
        "dpo",
        "modpo",
        "soup",
    ),
)


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
    _lock: FolderLock | None = None

    @classmethod
    def open(cls, command: str, config: Any, directory: Path, inputs: Mapping[str, Path]) -> Phase:
        """Start, resume or recognise a phase.

        Args:
            command: the command's name.
            config: its settings dataclass.
            directory: its output folder.
            inputs: what it reads, by name: files or folders.

        Raises:
            UserError: an input is missing, the folder holds a run with other settings, or a link
                lies where something is written to.
        """
        for name, path in inputs.items():
            if not path.exists():
                raise UserError(f"{name}: no such file or folder: {path}{download_hint(path)}")
        identity = {
            "command": command,
            "settings": {
                k: v for k, v in as_mapping(config).items() if k not in incidental(type(config))
            },
            "inputs": {name: fingerprint(path) for name, path in inputs.items()},
        }
        path = directory / MANIFEST
        refuse_links(directory, _WRITTEN_TO)
        held: FolderLock | Held
        try:
            directory.mkdir(parents=True, exist_ok=True)
            held = lock(directory, command)
        except Held as error:
            held = error
        except OSError as error:
            if not is_finished(path):  # which may be read alone
                raise UserError(f"cannot write to {directory}: {error.strerror}") from error
            held = Held("nobody: it cannot be written to")
        difference = ""
        manifest: dict[str, Any] | None = None
        if path.exists():
            manifest = read_manifest(path)
            difference = _difference(manifest.get("identity", {}), identity)
            # A start that was refused before it made anything claims no folder.
            # A folder that another process owns is claimed, whatever it made so far.
            others = any(p.name not in (path.name, LOCK) for p in directory.iterdir())
            claimed = manifest.get("status") == "finished" or others or isinstance(held, Held)
            if difference and claimed:
                raise UserError(
                    f"{directory} holds a run with other settings ({difference}); choose another"
                    " output folder or remove that one"
                )
            if not difference and manifest.get("status") == "finished":
                _check_outputs(directory, manifest)
                if isinstance(held, FolderLock):
                    _remove(directory, manifest.get("removed", []))
                    held.release()
                return cls(directory, manifest, True)
        if isinstance(held, Held):
            raise UserError(
                f"{directory} is in use by {held}; wait until that has ended, or choose another"
                " output folder"
            )
        # Of processes elsewhere nobody can say whether they live; the lock says that none is at
        # work here.
        remove_leftovers(directory, 3600 if held.real else None)
        if manifest is not None and not difference:
            manifest.setdefault("lives", []).append(_life())
            write_json(path, manifest)
            return cls(directory, manifest, False, _lock=held)
        manifest = {
            "status": "running",
            "identity": identity,
            "input_paths": {name: str(p) for name, p in inputs.items()},
            "started": _now(),
            "environment": environment(),
            "lives": [_life()],
        }
        write_json(path, manifest)
        return cls(directory, manifest, False, _lock=held)

    def reopen(self) -> None:
        """Go on with a finished phase, to ask failed votes again or to try more settings.

        Raises:
            UserError: another process does.
        """
        if not (self.finished and self.writes):
            return
        try:
            self._lock = lock(self.directory, str(self.manifest["identity"]["command"]))
        except Held as held:
            raise UserError(
                f"{self.directory} is in use by {held}; wait until that has ended"
            ) from None
        self.manifest |= {"status": "running"}
        self.manifest.setdefault("lives", []).append(_life())
        write_json(self.directory / MANIFEST, self.manifest)

    def remember(self, **facts: Any) -> None:
        """Keep in the manifest what this run goes by besides its settings, for its next lives to
        read there.
        """
        self.manifest |= facts
        if self.writes:
            write_json(self.directory / MANIFEST, self.manifest)

    def finish(self, *, work: Sequence[Path] = (), **results: Any) -> None:
        """Record what the phase produced and mark it finished, unless another process does.

        Args:
            work: journals, checkpoints and the like, which are no output. They are removed once it
                is on disk that the phase is finished: a kill before that costs nothing, and one
                after it leaves them to the next start.
            results: counts and figures.
        """
        self.finished = self._did_something = True
        if not self.writes:
            return
        self.manifest |= {
            "status": "finished",
            "results": results,
            "outputs": {
                str(p.relative_to(self.directory)): {
                    "bytes": p.stat().st_size,
                    "sha256": fingerprint(p),
                }
                for p in sorted(self.directory.rglob("*"))
                if p.is_file()
                and not is_kept_apart(p.relative_to(self.directory))
                and not _is_within(p, work)
            },
            "removed": [str(p.relative_to(self.directory)) for p in work],
            "environment": environment(),
            "finished": _now(),
            "seconds": round(time.monotonic() - self._started, 3),
        }
        if lives := self.manifest.get("lives"):
            lives[-1] |= {"environment": environment(), "ended": _now()}
        write_json(self.directory / MANIFEST, self.manifest)
        _remove(self.directory, self.manifest["removed"])
        if self._lock is not None:
            self._lock.release()

    @property
    def was_finished(self) -> bool:
        """Whether there was nothing to do, since an earlier start had finished it."""
        return self.finished and not self._did_something

    @property
    def ending(self) -> str:
        """Say in a few words what became of it; empty where another process says so."""
        if not (self.finished and self.writes):
            return ""
        if self._did_something:
            return f"finished: {self.directory}{_figures(self.results)}"
        return f"{self.directory} was finished before; there is nothing to do"

    @property
    def results(self) -> dict[str, Any]:
        return self.manifest.get("results", {})


def open_phase(command: str, settings: Settings) -> Phase:
    """Start, resume or recognize the phase that a command's settings name, in one process; see
    :meth:`Phase.open`.
    """
    return Phase.open(command, settings.recorded(), output_folder(settings), settings.input_paths())


def output_folder(settings: Any) -> Path:
    """Return where a command's manifest lies: its ``phase_dir``, or else its ``output_dir``."""
    folder: Path = getattr(settings, "phase_dir", settings.output_dir)
    return folder


_Settings = TypeVar("_Settings", bound=Settings)
_Arguments = ParamSpec("_Arguments")


_Work = Callable[Concatenate[_Settings, Phase, _Arguments], None]
_Command = Callable[Concatenate[_Settings, _Arguments], Phase]


def in_phase(
    command: str, opened_by: Callable[[str, Settings], Phase] = open_phase
) -> Callable[[_Work[_Settings, _Arguments]], _Command[_Settings, _Arguments]]:
    """Make a command of a function that does a phase's work: the one way in which a command runs.

    The function is given its settings and the open phase, does the work and finishes the phase.
    What is made of it takes the settings alone, checks them, opens the phase, leaves a finished one
    as it is unless there is more to do, and returns it::

        @in_phase("questions")
        def questions(config: QuestionsConfig, phase: Phase) -> None:
            ...
            phase.finish(train=len(train), test=len(test))

    Args:
        command: its name in the table of commands.
        opened_by: opens the phase; a training joins its other processes first.
    """

    def wrap(work: _Work[_Settings, _Arguments]) -> _Command[_Settings, _Arguments]:
        @functools.wraps(work)
        def run(settings: _Settings, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> Phase:
            settings.check()
            settings.check_machine()
            phase = opened_by(command, settings)
            if phase.finished and not settings.goes_on(phase.results):
                return phase
            phase.reopen()
            work(settings, phase, *args, **kwargs)
            return phase

        return run

    return wrap


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a ``manifest.json``.

    Raises:
        UserError: it cannot be read, is of another shape, or names work outside of its folder,
            which is removed once a phase is finished.
    """
    manifest = read_json(path, Manifest)
    for part in ("removed", "outputs"):
        for name in manifest.get(part, ()):
            if not _is_below(name):
                raise UserError(f"{path}: {part}, {name!r:.80} is no file or folder below its own")
    return dict(manifest)


def _is_below(name: str) -> bool:
    """Return whether a name is one of a file or folder below the one that it is relative to."""
    parts = Path(name).parts
    whole = bool(parts) and "\0" not in name and all(len(part) < 256 for part in parts)
    return whole and not Path(name).is_absolute() and ".." not in parts


def is_finished(manifest: Path) -> bool:
    """Return whether a ``manifest.json`` is there and says that its phase is finished."""
    return manifest.is_file() and read_manifest(manifest).get("status") == "finished"


FIGURES = {
    "train": "training questions",
    "test": "test questions",
    "participants": "participants",
    "good": "of good quality",
    "pairs": "pairs",
    "responses": "replies",
    "cut_at_max_new_tokens": "cut at --max-new-tokens",
    "empty": "empty",
    "questions": "questions",
    "questions_judged": "questions judged",
    "votes_asked": "votes",
    "votes_valid": "valid votes",
    "valid": "valid votes",
    "points": "weights",
    "trials": "trials",
    "best_trial": "best trial",
    "best_value": "its value",
    "updates": "updates",
    "held_out_loss": "held-out loss",
    "held_out_rewards/accuracies": "held-out accuracy",
    "held_out_rewards/weighted_accuracies": "weighted held-out accuracy",
    "held_out_accuracy": "held-out accuracy",
    "held_out_rewards/margins": "held-out margin",
    "kl": "KL in nats per reply",
    "standard_error": "standard error",
    "rank": "rank",
    "tensors": "tensors",
    "merged": "of them merged",
    "malformed": "share of malformed replies",
    "hypervolume": "hypervolume",
    "runs": "runs",
    "figures": "figures",
}
"""results that a command ends with, and their names in words"""


def _figures(results: Mapping[str, Any]) -> str:
    """Return a phase's figures in words, or nothing where there are none."""
    # Two keys share a name: where a command has both, what it measured of the outcome stands for
    # the training's own.
    named = {name: results[key] for key, name in FIGURES.items() if _is_figure(results.get(key))}
    shown = [f"{name} {_in_words(value)}" for name, value in named.items()]
    return f"; {', '.join(shown)}" if shown else ""


def _is_figure(value: Any) -> bool:
    """Return whether a result is a number, or a number for each of several names."""
    if isinstance(value, Mapping):
        return bool(value) and all(isinstance(v, int | float) for v in value.values())
    return isinstance(value, int | float) and not isinstance(value, bool)


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_in_words(number)}" for name, number in value.items())
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def is_kept_apart(path: Path) -> bool:
    """Return whether a file, by its place in the folder, is a manifest, a database, a temporary
    file or work.
    """
    hidden = any(part.startswith(".") for part in path.parts)
    return (
        hidden
        or path.name == MANIFEST
        or "checkpoints" in path.parts
        or any(ending in path.name for ending in (".sqlite", ".db"))
    )


def _is_within(path: Path, folders: Sequence[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _remove(directory: Path, names: Sequence[str]) -> None:
    """Remove a finished phase's work."""
    for name in names:
        path = directory / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _check_outputs(directory: Path, manifest: Mapping[str, Any]) -> None:
    """Refuse to call a phase finished whose files are missing or of another size.

    Raises:
        UserError: naming the first of them.
    """
    advice = "bring it back, or remove the folder and run the same command again"
    for name, output in manifest.get("outputs", {}).items():
        try:
            size = (directory / name).stat().st_size
        except OSError:
            raise UserError(
                f"{directory} was finished, but its file {name} is missing; {advice}"
            ) from None
        if isinstance(output, Mapping) and size != output["bytes"]:
            raise UserError(
                f"{directory} was finished, but its file {name} has {size} bytes and not"
                f" {output['bytes']}; {advice}"
            )


def _life() -> dict[str, Any]:
    """Describe this process, for a manifest that several one after the other may write."""
    return {"started": _now(), "process": os.getpid(), "environment": environment()}


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
        change = "is new" if old is None else "is left out" if new is None else "has changed"
        return f"the input {name.removeprefix('inputs.')} {change}"
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
