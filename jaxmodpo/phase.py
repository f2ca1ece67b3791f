"""A phase's output folder: absent, running or finished, with a manifest that says what made it."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from jaxmodpo.config import as_mapping
from jaxmodpo.endings import figures_in_words
from jaxmodpo.errors import UserError
from jaxmodpo.files import DATABASE_FILES, refuse_links, remove_leftovers
from jaxmodpo.fingerprints import fingerprint
from jaxmodpo.hub import download_hint
from jaxmodpo.launched import refuse_further_processes
from jaxmodpo.locks import FolderLock, Held, lock
from jaxmodpo.outputs import check_outputs, describe_outputs, remove_work
from jaxmodpo.ranges import CommandSettings, incidental
from jaxmodpo.results.manifest import (
    MANIFEST,
    Identity,
    Manifest,
    is_finished,
    now,
    read_manifest,
    this_environment,
    this_life,
)
from jaxmodpo.results.versioned import plain, write_result

_DATABASES = ("votes.sqlite", "study.db")

# Names in a phase's folder under which something is written to in place, or into; other files are
# replaced whole. A link under such a name would send what is written elsewhere.
_WRITTEN_TO = (
    *(MANIFEST, "sampled.jsonl", "metrics.jsonl"),
    *_DATABASES,
    *(f"{name}{ending}" for name in _DATABASES for ending in DATABASE_FILES),
    *("checkpoints", "batches", "points", "trials", "figures", "tensorboard", "wandb"),
    *("dpo", "modpo", "soup"),
)

_LEFTOVERS_OLD_AFTER = 3600
"""seconds after which a temporary file is nobody's, where the file system has no locks"""


@dataclass
class Phase:
    """One phase's output folder: absent, running or finished.

    ``manifest.json`` is written when the phase starts and again when it ends. Starting the same
    command on a finished folder does nothing; on an unfinished one it resumes; with other settings
    or inputs it is refused, so that no folder mixes two runs. Of several processes that train
    together, one writes.
    """

    directory: Path
    manifest: Manifest
    finished: bool
    writes: bool = True
    _started: float = dataclasses.field(default_factory=time.monotonic)
    _did_something: bool = False
    _lock: FolderLock | None = None

    @classmethod
    def open(cls, command: str, config: Any, directory: Path, inputs: Mapping[str, Path]) -> Phase:
        """Start, resume or recognize a phase.

        Args:
            command: the command's name.
            config: its settings dataclass.
            directory: its output folder.
            inputs: what it reads, by name: files or folders.

        Raises:
            UserError: an input is missing, the folder holds a run with other settings, or a link
                lies where something is written to.
        """
        identity = _identity(command, config, inputs)
        path = directory / MANIFEST
        refuse_links(directory, _WRITTEN_TO)
        claim = _take(directory, command)
        manifest = read_manifest(path) if path.exists() else None
        if manifest is not None and (
            difference := identity_difference(manifest.identity, identity)
        ):
            if _is_claimed(directory, manifest, claim):
                raise UserError(
                    f"{directory} holds a run with other settings ({difference}); choose another"
                    " output folder or remove that one"
                )
            manifest = None
        if manifest is not None and manifest.is_finished:
            check_outputs(directory, manifest.outputs)
            # A folder that cannot be written to, or that another process has, may still be read.
            if isinstance(claim, FolderLock):
                remove_work(directory, manifest.removed)
                claim.release()
            return cls(directory, manifest, True)
        if isinstance(claim, Held):
            raise UserError(
                f"{directory} is in use by {claim}; wait until that has ended, or choose another"
                " output folder"
            )
        # Of processes elsewhere nobody can say whether they live; the lock says that none is at
        # work here.
        remove_leftovers(directory, _LEFTOVERS_OLD_AFTER if claim.real else None)
        manifest = _new_manifest(identity, inputs) if manifest is None else manifest.with_life()
        write_result(path, manifest)
        return cls(directory, manifest, False, _lock=claim)

    def reopen(self) -> None:
        """Go on with a finished phase, to ask failed votes again or to try more settings.

        Raises:
            UserError: another process does.
        """
        if not (self.finished and self.writes):
            return
        try:
            self._lock = lock(self.directory, self.manifest.identity.command)
        except Held as held:
            raise UserError(
                f"{self.directory} is in use by {held}; wait until that has ended"
            ) from None
        self._record(self.manifest.with_life())

    def remember(self, **facts: Any) -> None:
        """Keep in the manifest what this run goes by besides its settings, for its next lives to
        read there.

        Args:
            facts: fields of :class:`Manifest`.
        """
        self._record(dataclasses.replace(self.manifest, **facts))

    def finish(self, *, work: Sequence[Path] = (), **results: Any) -> None:
        """Record what the phase produced and mark it finished, unless another process does.

        Args:
            work: journals, checkpoints and the like, which are no output. They are removed once it
                is on disk that the phase is finished: a kill before that costs nothing, and one
                after it leaves them to the next start.
            results: counts and figures for people, under any names: see ``Manifest.results``.
        """
        self.finished = self._did_something = True
        if not self.writes:
            return
        environment = this_environment()
        *earlier_lives, life = self.manifest.lives
        ended_life = dataclasses.replace(life, environment=environment, ended=now())
        self._record(
            dataclasses.replace(
                self.manifest,
                status="finished",
                results=plain(results),
                outputs=describe_outputs(self.directory, work),
                removed=tuple(str(path.relative_to(self.directory)) for path in work),
                environment=environment,
                lives=(*earlier_lives, ended_life),
                finished=now(),
                seconds=round(time.monotonic() - self._started, 3),
            )
        )
        remove_work(self.directory, self.manifest.removed)
        if self._lock is not None:
            self._lock.release()

    def _record(self, manifest: Manifest) -> None:
        self.manifest = manifest
        if self.writes:
            write_result(self.directory / MANIFEST, manifest)

    @property
    def was_finished(self) -> bool:
        """Whether there was nothing to do, since an earlier start had finished it."""
        return self.finished and not self._did_something

    @property
    def ending(self) -> str:
        """Say in a few words what became of it; empty where another process says so."""
        if not (self.finished and self.writes):
            return ""
        if not self._did_something:
            return f"{self.directory} was finished before; there is nothing to do"
        figures = figures_in_words(self.results)
        return f"finished: {self.directory}{f'; {figures}' if figures else ''}"

    @property
    def results(self) -> Mapping[str, Any]:
        return self.manifest.results


def _identity(command: str, config: Any, inputs: Mapping[str, Path]) -> Identity:
    """Return what tells a run from others; inputs that are missing are refused."""
    for name, path in inputs.items():
        if not path.exists():
            raise UserError(f"{name}: no such file or folder: {path}{download_hint(path)}")
    apart = incidental(type(config))
    settings = {name: value for name, value in as_mapping(config).items() if name not in apart}
    fingerprints = {name: fingerprint(path) for name, path in inputs.items()}
    return Identity(command=command, settings=settings, inputs=fingerprints)


def _take(directory: Path, command: str) -> FolderLock | Held:
    """Make the folder and take its lock, or return who has it.

    What keeps the lock away is no error yet: a finished phase is recognized without it.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return lock(directory, command)
    except Held as held:
        return held
    except OSError as error:
        if not is_finished(directory):
            raise UserError(f"cannot write to {directory}: {error.strerror}") from error
        return Held("nobody: it cannot be written to")


def _is_claimed(directory: Path, manifest: Manifest, held: FolderLock | Held) -> bool:
    """Return whether a folder belongs to the run that its manifest names.

    A start that was refused before it made anything claims no folder, so that its settings may
    still be mended. A folder that another process owns is claimed, whatever it made so far.
    """
    # Hidden files claim nothing: locks, what a kill left of a file, and journals of other hosts,
    # whose rows say themselves of which settings they are.
    names = {path.name for path in directory.iterdir()} - {MANIFEST}
    has_files = not all(name.startswith(".") for name in names)
    return manifest.is_finished or has_files or isinstance(held, Held)


def _new_manifest(identity: Identity, inputs: Mapping[str, Path]) -> Manifest:
    return Manifest(
        status="running",
        identity=identity,
        input_paths={name: str(path) for name, path in inputs.items()},
        started=now(),
        environment=this_environment(),
        lives=(this_life(),),
    )


def identity_difference(recorded: Identity, identity: Identity) -> str:
    """Name the first value in which two identities differ; empty where they are equal."""
    return _first_difference(plain(recorded), plain(identity), "")


def _first_difference(old: Any, new: Any, name: str) -> str:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            inner_name = f"{name}.{key}" if name else str(key)
            difference = _first_difference(old.get(key), new.get(key), inner_name)
            if difference:
                return difference
        return ""
    if old == new:
        return ""
    if name.startswith("inputs."):
        change = "is new" if old is None else "is left out" if new is None else "has changed"
        return f"the input {name.removeprefix('inputs.')} {change}"
    return f"{name.removeprefix('settings.')} was {old}, is {new}"


# --------------------------------------------------------------------------- commands


def identity_of(command: str, settings: CommandSettings) -> Identity:
    """Return what tells the run of a command's settings from others, without opening its folder."""
    return _identity(command, settings.recorded(), settings.input_paths())


def open_phase(command: str, settings: CommandSettings) -> Phase:
    """Start, resume or recognize the phase that a command's settings name, in one process; see
    :meth:`Phase.open`.
    """
    return Phase.open(command, settings.recorded(), output_folder(settings), settings.input_paths())


def open_in_one_process(command: str, settings: CommandSettings) -> Phase:
    """Open a phase that is one process's work.

    Raises:
        UserError: as :func:`open_phase`; or a launcher started several processes, and this is not
            the first.
    """
    refuse_further_processes(command)
    return open_phase(command, settings)


def output_folder(settings: Any) -> Path:
    """Return where a command's manifest lies: its ``phase_dir``, or else its ``output_dir``."""
    folder: Path = getattr(settings, "phase_dir", settings.output_dir)
    return folder


_Settings = TypeVar("_Settings", bound=CommandSettings)
_Arguments = ParamSpec("_Arguments")


_Work = Callable[Concatenate[_Settings, Phase, _Arguments], None]
_Command = Callable[Concatenate[_Settings, _Arguments], Phase]


def in_phase(
    command: str, opened_by: Callable[[str, CommandSettings], Phase] = open_in_one_process
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
            if phase.finished and not settings.goes_on(phase.manifest):
                return phase
            phase.reopen()
            work(settings, phase, *args, **kwargs)
            return phase

        return run

    return wrap
