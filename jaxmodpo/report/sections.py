"""The parts of a report's page: what each of them shows, with its figures.

Example: ``reward_sections(runs, gallery)`` reads every ``validation.json``, draws it into the
gallery, and returns what the template lays out: a name, the numbers, and the picture.
"""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from jaxmodpo.evaluation.fronts import front_figure
from jaxmodpo.evaluation.judge_table import JudgedRow, merge_rows
from jaxmodpo.evaluation.judges import draw_judges, read_judges
from jaxmodpo.judging.database import NoLedger
from jaxmodpo.judging.judge import PREFERENCES
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.pages import png
from jaxmodpo.report import figures, training_figures
from jaxmodpo.report.run_folders import (
    METRICS,
    VOTES,
    Run,
    read_metrics,
    with_votes,
)
from jaxmodpo.results.evaluation import RESULTS, EvaluationResults
from jaxmodpo.results.judges import JUDGES, Judges
from jaxmodpo.results.reward import VALIDATION, Validation
from jaxmodpo.results.sweep import SWEEP, Hypervolume, Sweep
from jaxmodpo.results.versioned import read_result
from jaxmodpo.statistics.mcnemar import FEW_DISCORDANT


@dataclass(frozen=True)
class Picture:
    """A figure as the page shows it."""

    file: str
    caption: str
    data: str
    """PNG bytes in base64"""


@dataclass
class Gallery:
    """The report's figures: PNG bytes by file name."""

    images: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, figure: figures.Figure, caption: str) -> Picture:
        """Keep a figure under a file name made from ``name``; return what the page needs to show
        it.
        """
        # Names of models and criteria are the user's: none may lead out of the folder, or into
        # another file system's reserved characters.
        stem = re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-.")
        file = f"{stem}.png"
        number = 1
        # Two names may differ only in characters that a file name cannot have.
        while file in self.images:
            number += 1
            file = f"{stem}-{number}.png"
        self.images[file] = png(figure)
        return Picture(file, caption, base64.b64encode(self.images[file]).decode())


# --------------------------------------------------------------------------- evaluations


@dataclass(frozen=True)
class EvaluationSection:
    """One evaluation: its results, and its figures by criterion."""

    name: str
    results: EvaluationResults
    unfinished: bool
    scatters: list[Picture]
    pairwise: dict[str, Picture]
    significance: dict[str, Picture]


def evaluation_sections(runs: Sequence[Run], gallery: Gallery) -> list[EvaluationSection]:
    """Read and draw every evaluation."""
    evaluations = [run for run in runs if run.evaluates]
    sections: list[EvaluationSection] = []
    for run in evaluations:
        results = read_result(run.folder / RESULTS, EvaluationResults)
        # Only where there are several do the names of the figures have to tell them apart.
        prefix = "" if len(evaluations) == 1 else f"{run.name}-"
        sections.append(
            EvaluationSection(
                name=run.name,
                results=results,
                unfinished=not run.manifest.is_finished,
                scatters=_scatters(results, gallery, prefix),
                pairwise=_pairwise(results, gallery, prefix),
                significance=_significance(results, gallery, prefix),
            )
        )
    return sections


def _scatters(results: EvaluationResults, gallery: Gallery, prefix: str) -> list[Picture]:
    """Set each criterion against safety, or else against the last one."""
    # The paper's figure 2 has safety along x; other sets of criteria have no such pair.
    across = "safety" if "safety" in results.criteria else results.criteria[-1]
    pictures: list[Picture] = []
    for criterion in results.criteria:
        if criterion == across:
            continue
        figure = figures.win_rate_scatter(results.models, results.intervals, across, criterion)
        caption = (
            f"Average win rates on {across} and {criterion}; bars are 95% intervals over resampled"
            " questions."
        )
        pictures.append(gallery.add(f"{prefix}scatter-{across}-{criterion}", figure, caption))
    return pictures


def _pairwise(results: EvaluationResults, gallery: Gallery, prefix: str) -> dict[str, Picture]:
    pictures: dict[str, Picture] = {}
    for criterion in results.criteria:
        figure = figures.pairwise_matrix(results.pairwise[criterion], criterion)
        caption = f"How often the row's model wins over the column's on {criterion}."
        pictures[criterion] = gallery.add(f"{prefix}pairwise-{criterion}", figure, caption)
    return pictures


def _significance(results: EvaluationResults, gallery: Gallery, prefix: str) -> dict[str, Picture]:
    pictures: dict[str, Picture] = {}
    for criterion in results.criteria:
        figure = figures.significance_matrix(
            results.pairwise[criterion], results.tests[criterion], criterion
        )
        caption = (
            f"McNemar's test on {criterion}, one majority outcome per question: uncorrected"
            f" chi-square, or the exact test where fewer than {FEW_DISCORDANT} questions are won or"
            " lost. Filled triangles stand after Holm's adjustment for all pairs, hollow ones do"
            " not."
        )
        pictures[criterion] = gallery.add(f"{prefix}significance-{criterion}", figure, caption)
    return pictures


# --------------------------------------------------------------------------- other results


@dataclass(frozen=True)
class RewardSection:
    """One reward model's validation."""

    name: str
    validation: Validation
    figure: Picture


def reward_sections(runs: Iterable[Run], gallery: Gallery) -> list[RewardSection]:
    """Read and draw every reward model's validation."""
    validated = {
        run.folder: run
        for run in runs
        if run.command == "reward" and (run.folder / VALIDATION).is_file()
    }
    sections: list[RewardSection] = []
    for run in validated.values():
        # A refitted model carries the figures of the one in its subfolder: they are shown once.
        if run.folder.name == "validation" and run.folder.parent in validated:
            continue
        validation = read_result(run.folder / VALIDATION, Validation)
        picture = gallery.add(
            f"reward-{run.name}",
            training_figures.reward_validation(validation, run.name),
            f"{run.name}: how often held-out rankings agree with the model, by the probability"
            " it gives its own preference, and the rewards of the best and the worst"
            " responses.",
        )
        sections.append(RewardSection(run.name, validation, picture))
    return sections


@dataclass(frozen=True)
class SweepSection:
    """One sweep's hypervolumes and, of two objectives, its fronts."""

    name: str
    hypervolume: Mapping[str, Hypervolume]
    figures: list[Picture]


def sweep_sections(runs: Iterable[Run], gallery: Gallery) -> list[SweepSection]:
    """Read every sweep, and draw those that can be drawn."""
    sections: list[SweepSection] = []
    for run in runs:
        path = run.folder / SWEEP
        if run.command != "sweep" or not path.is_file():
            continue
        sweep = read_result(path, Sweep)
        pictures: list[Picture] = []
        # More objectives would need more axes; their table says what a figure could not.
        if len(sweep.objectives) == 2:
            first, second = sweep.objectives
            figure = front_figure(sweep.fronts, (first, second), sweep.base)
            caption = f"{run.name}: fronts over a grid of weights."
            pictures.append(gallery.add(f"fronts-{run.name}", figure, caption))
        sections.append(SweepSection(run.name, sweep.hypervolume, pictures))
    return sections


@dataclass(frozen=True)
class JudgeSection:
    """What is known of the judges of one run."""

    name: str
    judges: Judges
    rows: list[JudgedRow]
    figures: list[Picture]


def judge_sections(runs: Sequence[Run], gallery: Gallery) -> list[JudgeSection]:
    """Show the judges as ``judges`` wrote of them, or as counted here from the votes of a
    folder.
    """
    judges_by_name = {
        run.name: read_result(run.folder / JUDGES, Judges) for run in runs if run.judges
    }
    for run in with_votes(runs):
        # A run killed as it began leaves a file without tables.
        with contextlib.suppress(NoLedger), Ledger(run.folder / VOTES, read_only=True) as ledger:
            if next(ledger.every_vote(kinds=PREFERENCES), None) is not None:
                judges_by_name[run.name] = read_judges([ledger])
    sections: list[JudgeSection] = []
    for name, judges in sorted(judges_by_name.items()):
        pictures = [
            gallery.add(f"{name}-{drawing.name}", drawing.figure, drawing.caption)
            for drawing in draw_judges(judges)
        ]
        sections.append(JudgeSection(name, judges, merge_rows(judges), pictures))
    return sections


def training_curves(runs: Iterable[Run], gallery: Gallery) -> list[Picture]:
    """Draw the training curves of each run that has some."""
    pictures: list[Picture] = []
    for run in runs:
        if not run.trains:
            continue
        figure = training_figures.training_curves(read_metrics(run.folder / METRICS), run.name)
        if figure is not None:
            caption = f"{run.name} ({run.command})"
            pictures.append(gallery.add(f"curves-{run.name}", figure, caption))
    return pictures
