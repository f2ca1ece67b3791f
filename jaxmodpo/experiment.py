"""An experiment file: phases in order, each a command with its settings; finished ones are skipped.

In a setting, ``$out`` stands for the experiment's folder, ``$seed`` for its seed, and ``$NAME`` for
what the file's ``variables`` or ``--set NAME=VALUE`` say. A phase writes to ``$out/NAME`` unless
its settings say otherwise. Its ``config`` names a YAML file whose settings stand where its own say
nothing, as ``--config`` does: most often the ``best.yaml`` of a search, which an earlier phase may
still have to write::

    name: small
    variables: {base: null}                         # must be set: --set base=…
    phases:
      - {name: questions, command: questions, settings: {input: [posts.csv]}}
      - name: dpo
        command: align dpo
        settings: {model: $base, pairs: $out/preferences/empathy_pairs.json, seed: $seed}
"""

from __future__ import annotations

import logging
import re
import string
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from jaxmodpo.commands import COMMANDS, load
from jaxmodpo.config import as_mapping, load_yaml
from jaxmodpo.errors import UserError, nearest
from jaxmodpo.flags.parse import from_mapping
from jaxmodpo.parsing import JsonObject
from jaxmodpo.phase import Phase, output_folder
from jaxmodpo.ranges import CommandSettings, Seed
from jaxmodpo.results.manifest import is_finished
from jaxmodpo.schema import read_as

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PhaseSpec:
    """One phase of an experiment file.

    Attributes:
        name: and its folder's.
        command: what it runs.
        settings: of the command.
        config: a YAML file with more of them, for those that ``settings`` leaves out; empty for
            none.
    """

    name: str
    command: str
    settings: Mapping[str, Any]
    config: str = ""


@dataclass(frozen=True)
class Experiment:
    """An experiment file.

    Attributes:
        name: names the default output folder.
        seed: what ``$seed`` stands for.
        variables: by name; None has no default and must be set.
        phases: in order.
    """

    name: str
    seed: int
    variables: Mapping[str, Any]
    phases: tuple[PhaseSpec, ...]


@dataclass(frozen=True)
class _Row:
    """A phase as the file has it.

    Attributes:
        name: of the phase, and of its folder in the experiment's.
        command: what the phase runs.
        settings: the command's, in place of its flags.
        config: a YAML file with more settings, for those that are not given here.
    """

    name: str | int
    command: str
    settings: JsonObject | None = None
    config: str | None = None


@dataclass(frozen=True)
class ExperimentFile:
    """An experiment file as it is written.

    Attributes:
        phases: commands with their settings, run in this order.
        name: of the experiment; its output folder is out/NAME by default.
        seed: what $seed stands for in a setting; 0 by default.
        variables: what $NAME stands for, by name; null for what --set NAME=VALUE must say.
        shared: anything, for YAML anchors to refer to.
    """

    phases: list[_Row]
    name: str | int | None = None
    seed: Seed | None = None
    variables: dict[str, str | float | bool | None] | None = None
    shared: Any = None


def read_experiment(path: Path) -> Experiment:
    """Read an experiment file; ``shared`` may hold anything, for YAML anchors to refer to.

    Raises:
        UserError: an unknown key or command, a value of another type, a phase without a name or a
            command, a name twice or one that would leave the experiment's folder.
    """
    content = read_as(load_yaml(path), ExperimentFile, str(path))
    if not content.phases:
        raise UserError(f"{path} has no phases")
    phases: dict[str, PhaseSpec] = {}
    for row in content.phases:
        phase = _phase_of(row, path)
        if phase.name in phases:
            raise UserError(f"{path}: two phases are named '{phase.name}'")
        phases[phase.name] = phase
    name = path.stem if content.name is None else str(content.name)
    _refuse_misplaced(name, str(path), "experiment")
    variables = content.variables or {}
    for variable in variables:
        if variable in ("out", "seed") or not _VARIABLE.fullmatch(variable):
            raise UserError(
                f"{path}: variables, {variable}: a variable's name is made of letters, digits and"
                " underscores, and is neither out nor seed"
            )
    return Experiment(name, content.seed or 0, variables, tuple(phases.values()))


def _phase_of(row: _Row, path: Path) -> PhaseSpec:
    """Return a phase whose name can be a folder's and whose command there is."""
    name = str(row.name)
    _refuse_misplaced(name, f"{path}, phase {name!r}", "phase")
    if row.command not in COMMANDS:
        raise UserError(
            f"{path}, phase {name}: no command '{row.command}'{nearest(row.command, COMMANDS)}"
        )
    if row.command == "run":
        raise UserError(
            f"{path}, phase {name}: an experiment cannot be a phase of one; list its phases here"
        )
    return PhaseSpec(name, row.command, row.settings or {}, row.config or "")


# What string.Template takes for a name.
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _refuse_misplaced(name: str, location: str, kind: str) -> None:
    """Refuse a name that is no folder's name below the output folder."""
    # ".." would lead out of the experiment's folder, and a name with a dot be taken for hidden.
    if any(folder.startswith(".") or not folder.strip() for folder in name.split("/")):
        article = "an" if kind == "experiment" else "a"
        raise UserError(
            f"{location}: no part of {article} {kind}'s name may be empty or begin with a dot"
        )


def set_variables(experiment: Experiment, overrides: Mapping[str, str]) -> dict[str, str]:
    """Return the variables' values; one without any keeps its ``$NAME``.

    Raises:
        UserError: a name that the experiment does not have.
    """
    for name in overrides:
        if name not in experiment.variables:
            raise UserError(
                f"--set: '{experiment.name}' has no variable"
                f" '{name}'{nearest(name, experiment.variables)}; it has"
                f" {', '.join(experiment.variables) or 'none'}"
            )
    # One that has no value keeps its name: a dry run shows it, and a real one is refused later.
    values: dict[str, str] = {}
    for name, value in {**experiment.variables, **overrides}.items():
        values[name] = f"${name}" if value is None else str(value)
    return values


def unset_flags(values: Mapping[str, str]) -> str:
    """Return the flags that would give a value to each variable without one; else an empty text."""
    unset = [name for name, value in values.items() if value == f"${name}"]
    return " and ".join(f"--set {name}=…" for name in unset)


def resolve(
    phase: PhaseSpec,
    out: Path,
    seed: int,
    source: str,
    variables: Mapping[str, str] | None = None,
    earlier: Sequence[CommandSettings] = (),
) -> Any:
    """Return a phase's settings as its command's dataclass.

    Where its ``config`` is not there yet, the settings that the search among ``earlier`` phases
    starts from stand in.

    Raises:
        UserError: an unknown variable or setting; a ``config`` that is not there and that no
            earlier phase writes.
    """
    substitutions = {**(variables or {}), "out": out, "seed": seed}
    cls, _ = load(phase.command)
    settings = {key: _filled(value, substitutions, source) for key, value in phase.settings.items()}
    if any(field.name == "output_dir" for field in fields(cls)):
        settings.setdefault("output_dir", str(out / phase.name))
    if not phase.config:
        return from_mapping(cls, settings, source)
    path = Path(str(_filled(phase.config, substitutions, source)))
    more_settings = _settings_of(path, cls, earlier, source)
    return from_mapping(cls, settings, f"{source}, with {path}", more_settings)


def _filled(value: Any, substitutions: Mapping[str, Any], source: str) -> Any:
    """Return a setting with the variables' values in place of their names, however deep they stand
    in it.
    """
    if isinstance(value, str):
        return _filled_text(value, substitutions, source)
    if isinstance(value, Mapping):
        return {key: _filled(item, substitutions, source) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, substitutions, source) for item in value]
    return value


def _filled_text(text: str, substitutions: Mapping[str, Any], source: str) -> str | bool:
    """Return a text with the variables' values; true or false where a variable alone stands for a
    switch.
    """
    try:
        filled = string.Template(text).substitute(substitutions)
    except (KeyError, ValueError) as error:
        names = ", ".join(f"${name}" for name in substitutions)
        raise UserError(f"{source}: in '{text}' only {names} can be used ({error})") from error
    switches = {"true": True, "false": False}
    if text.startswith("$") and filled.lower() in switches:
        return switches[filled.lower()]
    return filled


def _settings_of(
    path: Path, cls: type, earlier: Sequence[CommandSettings], source: str
) -> Mapping[str, Any]:
    """Return what a phase's ``config`` holds, or where a search has yet to write it, what that
    starts from.
    """
    if path.is_file():
        return load_yaml(path)
    search = _search_that_writes(path, earlier)
    if search is None:
        raise UserError(
            f"{source}: config: there is no file {path}, and no search in an earlier phase"
            " writes it"
        )
    # Before hours of search, and not when its best settings turn out to be of another command.
    settings_file = search.settings_file()
    if settings_file is None or settings_file.settings_class is not cls:
        raise UserError(f"{source}: config: {path} will hold the settings of another command")
    field_names = {field.name for field in fields(cls)} - {"output_dir"}
    return {name: value for name, value in as_mapping(search).items() if name in field_names}


def _search_that_writes(path: Path, earlier: Sequence[CommandSettings]) -> CommandSettings | None:
    """Return the settings of the last search before whose best settings will lie there, or None."""
    for config in reversed(earlier):
        settings_file = config.settings_file()
        if settings_file is not None and settings_file.path == path:
            return config
    return None


def run_experiment(
    path: Path,
    out: Path | None = None,
    seed: int | None = None,
    *,
    overrides: Mapping[str, str] | None = None,
    only: Sequence[str] = (),
) -> Path:
    """Run an experiment; all settings of all phases are checked before the first one starts.

    Args:
        path: the experiment file.
        out: its folder; by default out/NAME.
        seed: in place of the file's.
        overrides: its variables' values.
        only: names of the phases to run; all if there are none.

    Returns:
        The experiment's folder.

    Raises:
        UserError: a variable without a value, a name that no phase has, or what a phase raises.
    """
    experiment, out, resolved = resolve_all(path, out, seed, overrides or {})
    missing_flags = unset_flags(set_variables(experiment, overrides or {}))
    if missing_flags:
        raise UserError(f"{path.name} needs {missing_flags}")
    check_only(path, experiment, only)
    # All of them before the first: a wrong setting in the last phase would otherwise be told after
    # days of the others.
    for phase, config in zip(experiment.phases, resolved, strict=True):
        if is_wanted(phase, only) and not finished_before(config):
            _check(f"{path.name}, phase {phase.name}", config)
    for number, (phase, config) in enumerate(zip(experiment.phases, resolved, strict=True), 1):
        if not is_wanted(phase, only):
            continue
        if phase.config:
            # The search that writes it may have ended only now.
            config = _resolve_phases(path, experiment, out, overrides or {})[number - 1]
            _check(f"{path.name}, phase {phase.name}", config)
        started = time.monotonic()
        _, function = load(phase.command)
        logger.info(label(number, len(resolved), phase))
        outcome = function(config)  # type: ignore[operator]
        # Later phases must not build on what a comparison has shown to be damaged.
        if getattr(outcome, "exit_code", 0):
            raise UserError(f"{path.name}, phase {phase.name}: {outcome.ending}")
        seconds = time.monotonic() - started
        if isinstance(outcome, Phase) and outcome.was_finished:
            logger.info("    already finished")
        else:
            logger.info("    %.0f s", seconds)
    return out


def check_only(path: Path, experiment: Experiment, only: Sequence[str]) -> None:
    """Refuse names in ``--only`` that no phase has.

    Raises:
        UserError: naming the nearest phase.
    """
    names = [phase.name for phase in experiment.phases]
    for name in only:
        if name not in names:
            raise UserError(f"--only: {path.name} has no phase '{name}'{nearest(name, names)}")


def is_wanted(phase: PhaseSpec, only: Sequence[str]) -> bool:
    """Return whether a phase is to run: all are where none is named."""
    return not only or phase.name in only


def resolve_all(
    path: Path, out: Path | None, seed: int | None, overrides: Mapping[str, str]
) -> tuple[Experiment, Path, list[CommandSettings]]:
    """Return an experiment with its seed, its folder, and the settings of its phases."""
    experiment = read_experiment(path)
    experiment = replace(experiment, seed=experiment.seed if seed is None else seed)
    out = out or Path("out") / experiment.name
    return experiment, out, _resolve_phases(path, experiment, out, overrides)


def _resolve_phases(
    path: Path, experiment: Experiment, out: Path, overrides: Mapping[str, str]
) -> list[CommandSettings]:
    variables = set_variables(experiment, overrides)
    # In order: a phase's ``config`` may be what a search among those before it will write.
    configs: list[CommandSettings] = []
    for phase in experiment.phases:
        source = f"{path.name}, phase {phase.name}"
        configs.append(resolve(phase, out, experiment.seed, source, variables, configs))
    return configs


def check_settings(source: str, config: CommandSettings) -> None:
    """Refuse settings that no machine could run: weights off the simplex, no data named, two that
    contradict.
    """
    try:
        config.check()
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def _check(source: str, config: CommandSettings) -> None:
    """Refuse what a phase would refuse after hours of others: its settings, or a judge without a
    key.
    """
    check_settings(source, config)
    try:
        config.check_machine()
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def label(number: int, count: int, phase: PhaseSpec) -> str:
    """Return what stands above a phase in logs and in a dry run."""
    return f"[{number}/{count}] {phase.name} ({phase.command})"


def finished_before(config: Any) -> bool:
    """Return whether the folder that a phase's settings name holds a finished run."""
    return hasattr(config, "output_dir") and is_finished(output_folder(config))
