"""The ``run`` command: the phases of an experiment file in order, or with ``--dry-run`` what they
would cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jaxmodpo.config import builtin, named_values
from jaxmodpo.errors import UserError
from jaxmodpo.experiment import run_experiment
from jaxmodpo.ranges import Seed, Settings


@dataclass(frozen=True, kw_only=True)
class RunConfig(Settings, help_group="run"):
    """Run an experiment's phases in order, skipping the finished ones."""

    experiment: Annotated[str, tyro.conf.Positional]
    """A YAML file, or the name of one that comes with jaxmodpo (demo, phase1, phase2,
    phase2_all_pairs, fronts)."""
    output_dir: Path | None = None
    """Folder of the experiment, with a folder for each phase. By default it is out/NAME."""
    seed: Seed | None = None
    """Seed that takes the place of the file's."""
    set: tuple[str, ...] = ()
    """NAME=VALUE for variables of the file, such as paths and sizes."""
    only: tuple[str, ...] = ()
    """Names of the phases to run, in the file's order. All of them run if none is named."""
    dry_run: bool = False
    """Print the phases, their inputs, and what they cost in judge calls, dollars, chip-hours and
    disk, without running them."""
    chip: str = "H100 SXM"
    """Chip whose hours a dry run counts: a name in configs/hardware/chips.yaml, or v5e, v5p,
    v6e."""


def run(config: RunConfig) -> None:
    """Run ``run``."""
    config.check()
    path = _experiment_file(config.experiment)
    overrides = named_values(config.set, "--set")
    if config.dry_run:
        # Estimates import every model; help and a real run's first phases do without.
        from jaxmodpo.dry_run import dry_run

        dry_run(path, config.output_dir, config.seed, overrides, config.chip, config.only)
    else:
        run_experiment(path, config.output_dir, config.seed, overrides=overrides, only=config.only)


def _experiment_file(name: str) -> Path:
    """Return a YAML file, or the one of ours that has this name.

    Raises:
        UserError: no file of ours, or a folder.
    """
    if Path(name).suffix in (".yaml", ".yml"):
        return Path(name)
    try:
        return builtin(".", name)
    except UserError as error:
        # Experiments lie in no folder below configs/ whose name would say what they are.
        raise UserError(str(error).replace("no . file", "no experiment file", 1)) from None
