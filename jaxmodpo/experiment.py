"""An experiment file: phases in order, each a command with its settings; finished ones are skipped.

In a setting, ``$out`` stands for the experiment's folder and ``$seed`` for its seed. A phase writes to
``$out/NAME`` unless its settings say otherwise.
"""

from __future__ import annotations

import logging
import string
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import tyro

from jaxmodpo.artifacts import Phase
from jaxmodpo.cli import COMMANDS, load
from jaxmodpo.config import builtin, from_mapping, load_yaml
from jaxmodpo.errors import UserError, nearest

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Run an experiment's phases in order, skipping the finished ones."""

    experiment: Annotated[str, tyro.conf.Positional]
    """a YAML file, or the name of one that comes with jaxmodpo (demo)"""
    output_dir: Path | None = None
    """the experiment's folder; default out/NAME"""
    seed: int | None = None
    """replaces the file's seed"""
    dry_run: bool = False
    """print the phases and their settings without running them"""


@dataclass(frozen=True)
class PhaseSpec:
    """One phase of an experiment file."""

    name: str
    command: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Experiment:
    """An experiment file.

    Attributes:
        name: names the default output folder.
        seed: what ``$seed`` stands for.
        phases: in order.
    """

    name: str
    seed: int
    phases: tuple[PhaseSpec, ...]


_KEYS = ("name", "seed", "phases", "shared")


def read_experiment(path: Path) -> Experiment:
    """Read an experiment file; ``shared`` may hold anything, for YAML anchors to refer to.

    Raises:
        UserError: an unknown key or command, a phase without a name or a command, a name twice.
    """
    content = load_yaml(path)
    for key in content:
        if key not in _KEYS:
            raise UserError(f"{path}: unknown key '{key}'{nearest(str(key), _KEYS)}")
    phases: list[PhaseSpec] = []
    for number, row in enumerate(content.get("phases") or [], 1):
        if not isinstance(row, Mapping) or not {"name", "command"} <= set(row):
            raise UserError(f"{path}, phase {number}: a phase needs a name and a command")
        unknown = sorted(set(row) - {f.name for f in fields(PhaseSpec)})
        if unknown:
            raise UserError(
                f"{path}, phase {row['name']}: unknown key '{unknown[0]}'{nearest(unknown[0], ['settings'])}"
            )
        if row["command"] not in COMMANDS:
            raise UserError(
                f"{path}, phase {row['name']}: no command '{row['command']}'{nearest(str(row['command']), COMMANDS)}"
            )
        if any(row["name"] == phase.name for phase in phases):
            raise UserError(f"{path}: two phases are named '{row['name']}'")
        phases.append(PhaseSpec(str(row["name"]), row["command"], row.get("settings") or {}))
    if not phases:
        raise UserError(f"{path} has no phases")
    return Experiment(str(content.get("name", path.stem)), int(content.get("seed", 0)), tuple(phases))


def resolve(phase: PhaseSpec, out: Path, seed: int, source: str) -> Any:
    """Return a phase's settings as its command's dataclass."""

    def fill(value: Any) -> Any:
        if isinstance(value, str):
            try:
                return string.Template(value).substitute(out=out, seed=seed)
            except (KeyError, ValueError) as error:
                raise UserError(f"{source}: in '{value}' only $out and $seed can be used ({error})") from error
        if isinstance(value, Mapping):
            return {key: fill(item) for key, item in value.items()}
        return [fill(item) for item in value] if isinstance(value, list) else value

    cls, _ = load(phase.command)
    settings = {key: fill(value) for key, value in phase.settings.items()}
    known = {field.name for field in fields(cls)}
    if "output_dir" in known:
        settings.setdefault("output_dir", str(out / phase.name))
    return from_mapping(cls, settings, source)


def run_experiment(path: Path, out: Path | None = None, seed: int | None = None, dry_run: bool = False) -> Path:
    """Run an experiment; all settings of all phases are checked before the first one starts.

    Returns:
        The experiment's folder.
    """
    experiment = read_experiment(path)
    out = out or Path("out") / experiment.name
    seed = experiment.seed if seed is None else seed
    resolved = [resolve(phase, out, seed, f"{path.name}, phase {phase.name}") for phase in experiment.phases]
    for number, (phase, config) in enumerate(zip(experiment.phases, resolved, strict=True), 1):
        label = f"[{number}/{len(resolved)}] {phase.name} ({phase.command})"
        if dry_run:
            print(label)
            for field in fields(config):
                print(f"    {field.name}: {getattr(config, field.name)}")
            continue
        started = time.monotonic()
        _, function = load(phase.command)
        logger.info(label)
        done: Phase | None = function(config)  # type: ignore[operator]
        took = time.monotonic() - started
        recorded = done.manifest.get("seconds", 0.0) if done else took
        logger.info("    %s", f"{took:.0f} s" if took + 1 >= recorded else "already finished")
    return out


def run(config: RunConfig) -> None:
    """Run ``run``."""
    name = Path(config.experiment)
    path = name if name.suffix in (".yaml", ".yml") else builtin(".", config.experiment)
    run_experiment(path, config.output_dir, config.seed, config.dry_run)
