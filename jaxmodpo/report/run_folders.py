"""The output folders of finished runs: how they are found, and which of their files a report shows.

A folder is a run's if it holds a manifest. What files hold is checked where they are read: every
reader refuses a file that lacks what the report shows, naming the file and the key, so that what
draws and lays out needs no checks of its own.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxmodpo.errors import UserError
from jaxmodpo.evaluation.group_differences import GROUP_DIFFERENCES
from jaxmodpo.files import Row, read_json_lines
from jaxmodpo.judging.database import NoLedger
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.report.training_figures import CURVES
from jaxmodpo.results.evaluation import RESULTS
from jaxmodpo.results.human_study import EXAMPLES, HUMAN_STUDY
from jaxmodpo.results.judges import JUDGES
from jaxmodpo.results.manifest import MANIFEST, Manifest, read_manifest
from jaxmodpo.results.measures import DIVERGENCE, MALFORMED, Divergence, Malformed
from jaxmodpo.results.probes import PROBES
from jaxmodpo.results.reward import VALIDATION
from jaxmodpo.results.sweep import SWEEP
from jaxmodpo.results.toxicity import TOXICITY
from jaxmodpo.results.versioned import read_result
from jaxmodpo.schema import read_as

METRICS = "metrics.jsonl"
VOTES = "votes.sqlite"
OUTCOMES = "outcomes.csv"
SCORES = "scores.csv"
"""every reply's scores of a ``toxicity`` run"""
VERDICTS = "verdicts.csv"
"""every reply's verdict of a ``probes`` run"""
PERSONA_NUMBERS = "report.json"
"""the counts of a ``personas`` run"""

_WITH_NUMBERS = (
    RESULTS,
    METRICS,
    DIVERGENCE,
    MALFORMED,
    VALIDATION,
    SWEEP,
    JUDGES,
    PROBES,
    TOXICITY,
    HUMAN_STUDY,
    EXAMPLES,
)
REPLIES = "responses."
"""what the names of an evaluation's files of replies begin with in its manifest; a model's name
follows"""
_CONTAINERS = ("tune", "sweep")
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
        is_training = self.command.partition(" ")[0] in ("align", "reward")
        return is_training and (self.folder / METRICS).is_file()

    @property
    def evaluates(self) -> bool:
        return self.command == "evaluate" and (self.folder / RESULTS).is_file()

    @property
    def judges(self) -> bool:
        return self.command == "judges" and (self.folder / JUDGES).is_file()

    @property
    def contains_runs(self) -> bool:
        return self.command.partition(" ")[0] in _CONTAINERS

    @property
    def has_made_up_preferences(self) -> bool:
        return self.command == "preferences" and self.settings.get("judge") == "rubric"


# --------------------------------------------------------------------------- finding runs


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
        for folder in _folders_with_manifest(root, output_dir):
            # By their real places: an input may lie below another one, or be a link to it.
            real_folder = folder.resolve()
            if real_folder not in runs:
                name = _run_name(folder, root, several_inputs=len(inputs) > 1)
                runs[real_folder] = Run(name, folder, read_manifest(folder / MANIFEST))
    if not runs:
        raise UserError(
            f"inputs: no manifest.json in {', '.join(map(str, inputs))} or below; give folders that"
            " other commands wrote to"
        )
    return sorted(_without_parts(runs), key=lambda run: run.name)


def _folders_with_manifest(root: Path, output_dir: Path) -> list[Path]:
    """Return the folders with a manifest below a folder, without hidden ones and the report's."""
    report_folder = output_dir.resolve()
    folders: list[Path] = []
    for path in sorted(root.rglob(MANIFEST)):
        folder = path.parent
        # Hidden folders are temporary ones and other programs'. The report's own folder may lie
        # among the runs, and is not to report on itself.
        is_hidden = any(component.startswith(".") for component in folder.relative_to(root).parts)
        if not is_hidden and not folder.resolve().is_relative_to(report_folder):
            folders.append(folder)
    return folders


def _run_name(folder: Path, root: Path, *, several_inputs: bool) -> str:
    # Two inputs may hold runs of the same name.
    if several_inputs:
        return str(folder)
    if folder == root:
        return root.resolve().name
    return str(folder.relative_to(root))


def _without_parts(runs: Mapping[Path, Run]) -> list[Run]:
    """Return the runs without those inside another's folder.

    The trials of a search and the models of a sweep are parts of one result, which shows them
    itself.
    """
    containers = {folder for folder, run in runs.items() if run.contains_runs}
    whole_runs: list[Run] = []
    for folder, run in runs.items():
        # A folder is none of its own parents: a search is no part of itself.
        if containers.isdisjoint(folder.parents):
            whole_runs.append(run)
    return whole_runs


# --------------------------------------------------------------------------- what a report shows


def shown_files(runs: Sequence[Run]) -> dict[str, Path]:
    """Return the files with numbers that a report shows, by run and file name.

    Manifests hold times and do not count: a report of equal numbers stays as it is.
    """
    files: dict[str, Path] = {}
    for run in runs:
        paths = [run.folder / name for name in _WITH_NUMBERS]
        for path in [*paths, *_divergences_of_models(run)]:
            if path.is_file():
                files[f"{run.name}/{path.relative_to(run.folder)}"] = path
        if run.command == "personas" and (run.folder / PERSONA_NUMBERS).is_file():
            files[f"{run.name}/{PERSONA_NUMBERS}"] = run.folder / PERSONA_NUMBERS
        flags = {"toxicity": SCORES, "probes": VERDICTS}.get(run.command)
        if flags and (run.folder / flags).is_file():
            files[f"{run.name}/{flags}"] = run.folder / flags
        if run.evaluates:
            for name, path in _browsed_files(run).items():
                files[f"{run.name}/{name}"] = path
    for run in with_votes(runs):
        _settle(run.folder / VOTES)
        files[f"{run.name}/{VOTES}"] = run.folder / VOTES
    return files


def _browsed_files(run: Run) -> dict[str, Path]:
    """Return the files that an evaluation's questions, replies and votes are read from."""
    files = {name: run.folder / name for name in (OUTCOMES, GROUP_DIFFERENCES)}
    for name, path, _ in run.manifest.inputs():
        if name.startswith(REPLIES):
            files[name] = path
    return {name: path for name, path in files.items() if path.is_file()}


def with_votes(runs: Sequence[Run]) -> list[Run]:
    """Return the runs whose folders hold votes that no ``judges`` run among them has read."""
    # By their real places, since a judges run may have been given a link or a relative path.
    ledgers_read: set[Path] = set()
    for run in runs:
        if run.judges:
            input_paths = run.manifest.input_paths.values()
            ledgers_read.update(Path(path).resolve() for path in input_paths)
    runs_with_votes: list[Run] = []
    for run in runs:
        ledger = run.folder / VOTES
        if ledger.is_file() and ledger.resolve() not in ledgers_read:
            runs_with_votes.append(run)
    return runs_with_votes


def _settle(ledger: Path) -> None:
    """Let the database put into its file what an interrupted run left beside it, so that reading
    changes nothing.
    """
    with contextlib.suppress(NoLedger), Ledger(ledger, read_only=True):
        pass


def read_divergences(runs: Iterable[Run]) -> dict[str, float]:
    """Return nats per reply between each model and its base.

    A ``kl.json`` counts for the model of its folder's name.
    """
    divergences: dict[str, float] = {}
    for run in runs:
        for path in [run.folder / DIVERGENCE, *_divergences_of_models(run)]:
            if path.is_file():
                divergences[path.parent.name] = read_result(path, Divergence).kl
    return divergences


def _divergences_of_models(run: Run) -> list[Path]:
    """Return the files of a ``score kl`` of several models, which has a folder for each."""
    if run.command != "score kl":
        return []
    return sorted(run.folder.glob(f"*/{DIVERGENCE}"))


def read_malformed_rates(runs: Iterable[Run]) -> dict[str, float]:
    """Return the share of malformed replies of each model.

    A ``malformed.json`` counts for the model of its folder's name.
    """
    rates: dict[str, float] = {}
    for run in runs:
        path = run.folder / MALFORMED
        if path.is_file():
            rates[run.folder.name] = read_result(path, Malformed).malformed
    return rates


def read_metrics(path: Path) -> list[Row]:
    """Read a training run's metrics; a last line still being written is left out."""
    rows = list(read_json_lines(path, Row))
    # What is drawn must be numbers; whatever else a run has logged is its own affair.
    names_in_figures = {"step", *itertools.chain.from_iterable(CURVES.values())}
    for number, row in enumerate(rows, 1):
        location = f"{path}, line {number}"
        for name in sorted(names_in_figures & set(row)):
            read_as(row[name], _OptionalNumber, location, name)
    return [row for row in rows if row.get("step") is not None]
