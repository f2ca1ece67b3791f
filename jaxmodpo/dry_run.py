"""``run --dry-run``: every phase of an experiment with its inputs, its settings and its cost, and
the sums.

Of each phase it prints the settings that are not the defaults, and of each file that a phase reads
which phase before will have written it. Phases are gone through in order, as they would run, with
an :class:`~jaxmodpo.estimate.Estimator` in the place of the work.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from jaxmodpo.costs import Cost
from jaxmodpo.endpoints.families import Families
from jaxmodpo.errors import UserError
from jaxmodpo.estimate import Estimator, chip_named
from jaxmodpo.experiment import (
    check_only,
    check_settings,
    finished_before,
    is_wanted,
    label,
    resolve_all,
    set_variables,
    unset_flags,
)
from jaxmodpo.ranges import CommandSettings

_MISSING = "missing"


def dry_run(
    path: Path,
    out: Path | None,
    seed: int | None,
    overrides: Mapping[str, str],
    chip: str,
    only: Sequence[str] = (),
) -> None:
    """Print an experiment's phases and what they cost, and run none.

    Args:
        path: the experiment file.
        out: its folder; by default out/NAME.
        seed: in place of the file's.
        overrides: its variables' values.
        chip: whose hours are counted.
        only: names of the phases to print and to sum up; all if there are none.

    Raises:
        UserError: settings that no machine could run, or data that are too few for them.
    """
    experiment, out, resolved = resolve_all(path, out, seed, overrides)
    check_only(path, experiment, only)
    phases = list(zip(experiment.phases, resolved, strict=True))
    for phase, config in phases:
        if is_wanted(phase, only) and not finished_before(config):
            check_settings(f"{path.name}, phase {phase.name}", config)
    estimator = Estimator(chip_named(chip))
    total = Cost()
    # Folders and the phases that write them, so far; a dictionary serves as a set with an order.
    writers: list[tuple[Path, str]] = []
    missing: dict[str, None] = {}
    unknown: dict[str, list[str]] = {}
    for number, (phase, config) in enumerate(phases, 1):
        # Also of a phase that is not to be run, since later ones count with what it makes.
        cost = _price(estimator, config, f"{path.name}, phase {phase.name}")
        writers.append((getattr(config, "output_dir", out), phase.name))
        if not is_wanted(phase, only):
            continue
        print(label(number, len(phases), phase))
        if finished_before(config):
            print("    finished already")
        else:
            for line in [_in_words(cost), *cost.notes]:
                print(f"    {line}")
            total.add(cost)
            for why in cost.unknown:
                unknown.setdefault(why, []).append(phase.name)
        if phase.config:
            print(
                f"    config: {phase.config}  [what it leaves open until it is there: as the search"
                " begins]"
            )
        missing |= dict.fromkeys(_print_settings(config, writers[:-1]))
    print(f"in all, in hours of one {estimator.chip.name}: {_in_words(total)}")
    _print_grounds(estimator, total, missing, unknown)
    missing_flags = unset_flags(set_variables(experiment, overrides))
    if missing_flags:
        print(f"to run it, give {missing_flags}")


def _price(estimator: Estimator, config: CommandSettings, source: str) -> Cost:
    """Return a phase's cost; an error begins with the phase."""
    try:
        return estimator.phase(config)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def _print_settings(config: Any, writers: Sequence[tuple[Path, str]]) -> list[str]:
    """Print what a phase is told besides the defaults; return the files it reads that nothing
    makes.
    """
    missing: list[str] = []
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name == "output_dir" or value == field.default:
            continue
        value_text = " ".join(map(str, value)) if isinstance(value, tuple) else value
        # A cache that is not there yet will be made.
        origins = {} if field.name == "cache_dir" else _origins(value, writers)
        different_origins = ", ".join(dict.fromkeys(origins.values()))
        origin_text = f"  [{different_origins}]" if origins else ""
        print(f"    {field.name}: {value_text}{origin_text}")
        missing += [name for name, origin in origins.items() if origin == _MISSING]
    return missing


def _print_grounds(
    estimator: Estimator,
    total: Cost,
    missing: Mapping[str, None],
    unknown: Mapping[str, Sequence[str]],
) -> None:
    """Print what the sums rest on, and what they leave out."""
    if total.dollars:
        print(
            f"dollars at the prices of {Families.load().as_of} (configs/judging/models.yaml), for"
            " profiles, posts and replies of usual length; a model that thinks before it answers"
            " costs more"
        )
    for assumption in estimator.assumed:
        print(f"assumed: {assumption}")
    if missing:
        print(f"what it reads and is not there: {', '.join(missing)}")
    for why, names in unknown.items():
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        print(f"unknown: {why} ({names[0]}{others})")


def _origins(value: Any, writers: Sequence[tuple[Path, str]]) -> dict[str, str]:
    """Say of a setting that names files which phases make each of them, or that it is missing."""
    origins: dict[str, str] = {}
    for entry in value if isinstance(value, tuple) else (value,):
        # Some settings name a file behind a name or a kind: empathy=FOLDER, adapter:FOLDER.
        text = str(entry).partition("=")[2] or str(entry)
        path = Path(text.removeprefix("adapter:"))
        writer = _writer_of(path, writers)
        if isinstance(entry, Path) and _holds_outputs(path, writers):
            origins[str(path)] = "from the phases before"
        elif writer is not None:
            origins[str(path)] = f"from {writer}"
        elif isinstance(entry, Path) and not path.exists():
            origins[str(path)] = _MISSING
    return origins


def _writer_of(path: Path, writers: Sequence[tuple[Path, str]]) -> str | None:
    """Return the last phase whose folder a path lies in, or None."""
    for folder, name in reversed(writers):
        if path.is_relative_to(folder):
            return name
    return None


def _holds_outputs(path: Path, writers: Sequence[tuple[Path, str]]) -> bool:
    """Return whether phases write into folders below a path, as a report reads them."""
    return any(folder != path and folder.is_relative_to(path) for folder, _ in writers)


def _in_words(cost: Cost) -> str:
    """Return the amounts that a phase costs, and which of them are unknown."""
    amounts: list[str] = []
    if cost.judge_calls != 0:
        amounts.append(_counted(cost.judge_calls, "judge calls"))
    if cost.endpoint_replies != 0:
        amounts.append(_counted(cost.endpoint_replies, "replies of an endpoint"))
    if cost.dollars != 0:
        amounts.append("dollars unknown" if cost.dollars is None else f"${cost.dollars:,.2f}")
    if cost.chip_hours is None:
        amounts.append("chip-hours unknown")
    elif cost.chip_hours:
        hours = f"{cost.chip_hours:.2g}" if cost.chip_hours < 10 else f"{cost.chip_hours:.0f}"
        amounts.append(f"{hours} chip-hours")
    if cost.disk != 0:
        amounts.append("disk unknown" if cost.disk is None else f"{_size(cost.disk)} on disk")
    if cost.while_running:
        amounts.append(f"{_size(cost.while_running)} more while it runs")
    return ", ".join(amounts) or "next to nothing"


def _counted(count: int | None, unit: str) -> str:
    return f"{unit} unknown" if count is None else f"{count:,} {unit}"


def _size(size: float) -> str:
    """Return bytes with three digits and a unit, in powers of 1,000 as disks are sold."""
    units = ("B", "kB", "MB", "GB", "TB")
    thousands = int(math.log10(max(size, 1)) / 3)
    power = min(thousands, len(units) - 1)
    return f"{size / 1000**power:.3g} {units[power]}"
