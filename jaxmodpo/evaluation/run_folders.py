"""The output folders of finished runs: how they are found, and how the files in them are read and
checked.

A folder is a run's if it holds a manifest. Every reader refuses a file that lacks what the report
shows, naming the file and the key, so that what draws and lays out needs no checks of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jaxmodpo.errors import UserError
from jaxmodpo.evaluation import figures
from jaxmodpo.evaluation.judges import JUDGES
from jaxmodpo.evaluation.statistics import mcnemar_from_counts
from jaxmodpo.files import read_json, read_json_lines
from jaxmodpo.judging.database import NoLedger
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.results.manifest import MANIFEST, Manifest, read_manifest
from jaxmodpo.results.shapes import (
    Divergence,
    Malformed,
    OfModels,
    Results,
    Sweep,
    Test,
    Validation,
)
from jaxmodpo.schema import read_as

RESULTS = "results.json"
METRICS = "metrics.jsonl"
DIVERGENCE = "kl.json"
MALFORMED = "malformed.json"
VALIDATION = "validation.json"
SWEEP = "sweep.json"
VOTES = "votes.sqlite"
MANY = ("tune", "sweep")
"""commands whose folders hold other runs' folders, which are not listed"""
_OptionalNumber: Any = float | None


@dataclass(frozen=True)
class Run:
    """The output folder of one command, with the name the report gives it."""

    name: str
    folder: Path
    manifest: Manifest

    @property
    def command(self) -> str:
        return self.manifest.identity.command

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.manifest.identity.settings

    @property
    def trains(self) -> bool:
        return (
            self.command.partition(" ")[0] in ("align", "reward")
            and (self.folder / METRICS).is_file()
        )

    @property
    def evaluates(self) -> bool:
        return self.command == "evaluate" and (self.folder / RESULTS).is_file()

    @property
    def judges(self) -> bool:
        return self.command == "judges" and (self.folder / JUDGES).is_file()


def find_runs(inputs: Sequence[Path], output_dir: Path) -> list[Run]:
    """Find every folder with a manifest below ``inputs``, by name; ``output_dir`` is left out.

    A run is named by its path below its input, or by the input where it is that folder itself;
    with several inputs, by its whole path.
    """
    runs: dict[Path, Run] = {}
    for root in inputs:
        if not root.is_dir():
            raise UserError(
                f"inputs: {root} is not a folder; give folders that other commands wrote to"
            )
        manifests = sorted(root.rglob(MANIFEST))
        for path in manifests:
            folder = path.parent
            below = folder.relative_to(root)
            hidden = any(part.startswith(".") for part in below.parts)
            if hidden or folder.resolve().is_relative_to(output_dir.resolve()):
                continue
            if len(inputs) > 1:
                name = str(folder)
            elif below.parts:
                name = str(below)
            else:
                name = root.resolve().name
            runs.setdefault(folder.resolve(), Run(name, folder, read_manifest(path)))
    if not runs:
        raise UserError(
            f"inputs: no manifest.json in {', '.join(map(str, inputs))} or below; give folders that"
            " other commands wrote to"
        )
    # The trials of a search and the models of a sweep are parts of one result, which shows them
    # itself.
    containers = [folder for folder, run in runs.items() if run.command.partition(" ")[0] in MANY]
    listed = [
        run
        for folder, run in runs.items()
        if not any(
            folder != container and folder.is_relative_to(container) for container in containers
        )
    ]
    return sorted(listed, key=lambda run: run.name)


def with_votes(runs: Iterable[Run]) -> list[Run]:
    """Return the runs whose folders hold votes that no ``judges`` run among them has read."""
    runs = list(runs)
    already_read: set[Path] = set()
    for run in runs:
        if run.judges:
            places = run.manifest.input_paths.values()
            already_read |= {Path(ledger).resolve() for ledger in places}
    judged = [run for run in runs if (run.folder / VOTES).is_file()]
    return [run for run in judged if (run.folder / VOTES).resolve() not in already_read]


def settle(ledger: Path) -> None:
    """Let the database put into its file what an interrupted run left beside it, so that reading
    changes nothing.
    """
    with contextlib.suppress(NoLedger), Ledger(ledger, read_only=True):
        pass


def read_results(path: Path) -> dict[str, Any]:
    """Read an evaluation's results.

    Raises:
        UserError: a part that the report shows is missing.
    """
    results: Results = read_json(path, Results)
    models, criteria = set(results["models"]), results["criteria"]
    if not models or not criteria:
        raise UserError(f"{path} holds no models or no criteria; write it with 'jaxmodpo evaluate'")
    for name in models:
        for part in ("models", "intervals"):
            _needs(criteria, results[part].get(name, {}), f"{path}: {part}, {name}")
        if "empty_replies" in results:
            _needs([name], results["empty_replies"], f"{path}: empty_replies")
    for criterion in criteria:
        for part in ("pairwise", "tests"):
            _needs([criterion], results[part], f"{path}: {part}")
        _needs(models, results["pairwise"][criterion], f"{path}: pairwise, {criterion}")
        for number, test in enumerate(results["tests"][criterion], 1):
            _needs(
                (test["a"], test["b"]),
                models,
                f"{path}: models, beside tests, {criterion}, item {number},",
            )
    completed = {
        criterion: list(map(_completed, results["tests"][criterion])) for criterion in criteria
    }
    return dict(results) | {"tests": completed}


def _needs(names: Iterable[str], mapping: Collection[str], where: str) -> None:
    for name in names:
        if name not in mapping:
            raise UserError(
                f"{where} lacks '{name}'; write the file with the command that its folder's"
                " manifest names"
            )


def _completed(test: Test) -> dict[str, Any]:
    """Return a test with the p values that it lacks, and which of them decides, computed from its
    counts.

    Files of earlier versions do not say which p value decides.
    """
    counted = mcnemar_from_counts(test["wins"], test["losses"], test.get("ties", 0))
    return counted._asdict() | dict(test)


def read_divergences(runs: Iterable[Run]) -> dict[str, float]:
    """Return nats per reply between each model and its reference.

    They stand under ``kl`` in a results file, or in a ``kl.json``, which counts both for the model
    that it names and for one named as its folder.
    """
    named: dict[str, float] = {}
    for run in runs:
        path = run.folder / DIVERGENCE
        if path.is_file():
            value = read_json(path, Divergence)
            named[run.folder.name] = value["kl"]
            named[value.get("model", run.name)] = value["kl"]
    return named | _values_of_models(runs, "kl")


def read_malformed_rates(runs: Iterable[Run]) -> dict[str, float]:
    """Return the share of malformed replies of each model.

    It stands under ``malformed`` in a results file, or in a ``malformed.json``, which counts for
    the model of its folder's name.
    """
    runs = list(runs)
    named = {
        run.folder.name: read_json(run.folder / MALFORMED, Malformed)["malformed"]
        for run in runs
        if (run.folder / MALFORMED).is_file()
    }
    return named | _values_of_models(runs, "malformed")


def _values_of_models(runs: Iterable[Run], key: Literal["kl", "malformed"]) -> dict[str, float]:
    named: dict[str, float] = {}
    for run in runs:
        path = run.folder / RESULTS
        if path.is_file():
            named |= read_json(path, OfModels).get(key, {})
    return named


def read_validation(path: Path) -> Validation:
    """Read a reward model's validation.

    Raises:
        UserError: a histogram and its edges do not belong together.
    """
    values: Validation = read_json(path, Validation)
    _check_histograms(values, path)
    return values


def read_sweep(path: Path) -> Sweep:
    """Read a sweep's fronts.

    Raises:
        UserError: a point lacks an objective's score or weight.
    """
    values: Sweep = read_json(path, Sweep)
    _check_points(values, path)
    return values


def _check_histograms(values: Validation, path: Path) -> None:
    """Refuse rewards whose bins and edges do not belong together."""
    edges = values["rewards"]["histogram_edges"]
    for name in ("best", "worst"):
        if len(values["rewards"][name]["histogram"]) + 1 != len(edges):
            raise UserError(
                f"{path}: rewards, {name}, histogram must have one bin less than histogram_edges"
                " has edges"
            )


def _check_points(values: Sweep, path: Path) -> None:
    """Refuse points that lack an objective's score or weight."""
    objectives = values["objectives"]
    _needs(objectives, values["base"]["scores"], f"{path}: base, scores")
    for method, points in values["fronts"].items():
        if not points:
            raise UserError(f"{path}: fronts, {method} holds no point")
        for number, point in enumerate(points, 1):
            where = f"{path}: fronts, {method}, item {number}"
            _needs(objectives, point["scores"], f"{where}, scores")
            if not len(point["weights"]) == len(point["scores"]) == len(values["base"]["scores"]):
                raise UserError(
                    f"{where}: as many weights and scores are needed as the base has scores"
                )


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read a training run's metrics; a last line still being written is left out."""
    rows = list(read_json_lines(path, dict[str, Any]))
    shown = {"step", *(name for names in figures.CURVES.values() for name in names)}
    for number, row in enumerate(rows, 1):
        for name in sorted(shown & set(row)):
            read_as(row[name], _OptionalNumber, f"{path}, line {number}", name)
    return [row for row in rows if row.get("step") is not None]
