"""``jaxmodpo report``: one HTML file that shows what a set of runs did and how they compare.

The command finds the runs and reads their files (:mod:`jaxmodpo.evaluation.run_folders`), counts
the votes of judged folders, and writes ``report.html`` with its figures inside, together with the
figures as PNG files. The page needs no network and no scripts, and holds no times, so that equal
inputs give equal bytes. It is apart from the evaluation because it shows finished work of any kind,
and asks no judge.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.evaluation import figures
from jaxmodpo.evaluation.fronts import front_figure
from jaxmodpo.evaluation.judges import JUDGES, draw, merged, words
from jaxmodpo.evaluation.reliability import analyze
from jaxmodpo.evaluation.run_folders import (
    DIVERGENCE,
    MALFORMED,
    METRICS,
    RESULTS,
    SWEEP,
    VALIDATION,
    VOTES,
    Run,
    find_runs,
    read_divergences,
    read_malformed_rates,
    read_metrics,
    read_results,
    read_sweep,
    read_validation,
    settle,
    with_votes,
)
from jaxmodpo.evaluation.statistics import FEW_DISCORDANT
from jaxmodpo.files import atomic_path, read_json, write_text
from jaxmodpo.judging.database import NoLedger
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.pages import png, template
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.ranges import Incidental, Settings
from jaxmodpo.results.shapes import Judges
from jaxmodpo.results.versioned import plain

logger = logging.getLogger(__name__)

_TEMPLATE = Path(__file__).parent / "templates" / "report.html"


@dataclass(frozen=True, kw_only=True)
class ReportConfig(Settings, help_group="output"):
    """Write one self-contained HTML file, and its figures as PNG files, about finished runs."""

    inputs: tuple[Path, ...]
    """Folders to search, with everything below them, for the output folders of other commands."""

    output_dir: Incidental[Path]
    """Folder for report.html and the PNG files; it may lie inside an input."""

    title: str = "Alignment to several therapeutic objectives"
    """The title of the page."""

    def input_paths(self) -> dict[str, Path]:
        """Return the files with numbers that the page shows; other manifests hold times and do not
        count.
        """
        runs = find_runs(self.inputs, self.output_dir)
        numbers = {
            f"{run.name}/{name}": run.folder / name
            for run in runs
            for name in (RESULTS, METRICS, DIVERGENCE, MALFORMED, VALIDATION, SWEEP, JUDGES)
            if (run.folder / name).is_file()
        }
        for run in with_votes(runs):
            settle(run.folder / VOTES)
            numbers[f"{run.name}/{VOTES}"] = run.folder / VOTES
        return numbers

    def cost(self, estimator: Estimates) -> Cost:
        return Cost()  # takes seconds, and leaves little behind


@dataclass
class Gallery:
    """The report's figures: PNG bytes by file name."""

    images: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, figure: figures.Figure, caption: str) -> dict[str, str]:
        """Keep a figure under a file name made from ``name``; return what the page needs to show
        it.
        """
        stem = re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-.")
        file, number = f"{stem}.png", 1
        while file in self.images:
            number += 1
            file = f"{stem}-{number}.png"
        self.images[file] = png(figure)
        return {
            "file": file,
            "caption": caption,
            "data": base64.b64encode(self.images[file]).decode(),
        }


@in_phase("report")
def report(config: ReportConfig, phase: Phase) -> None:
    """Write the report.

    Raises:
        UserError: an input is missing or holds no manifest, or a file is not as its command writes
            it.
    """
    runs = find_runs(config.inputs, config.output_dir)
    gallery = Gallery()
    page = render(config.title, runs, gallery)
    for name, image in gallery.images.items():
        with atomic_path(config.output_dir / name) as temporary:
            temporary.write_bytes(image)
    write_text(config.output_dir / "report.html", page)
    phase.finish(runs=len(runs), figures=len(gallery.images))
    logger.info(
        "report: %d runs, %d figures in %s", len(runs), len(gallery.images), config.output_dir
    )


def render(title: str, runs: Sequence[Run], gallery: Gallery) -> str:
    """Return the page, adding its figures to ``gallery``."""
    evaluations = [run for run in runs if run.evaluates]
    open_ones = {
        run.name for run in runs if run.command == "evaluate" and not run.manifest.is_finished
    }
    results = {run.name: read_results(run.folder / RESULTS) for run in evaluations}
    divergences, malformed = read_divergences(runs), read_malformed_rates(runs)
    filters = {"percent": _percent, "p_value": _p_value, "flat": flat, "words": words}
    return template(_TEMPLATE, filters).render(
        title=title,
        notes=notes(runs, results.values()),
        evaluations=[
            {
                "name": name,
                "results": values,
                "unfinished": name in open_ones,
                "figures": evaluation_figures(name, values, gallery, only_one=len(results) == 1),
            }
            for name, values in results.items()
        ],
        divergences=divergences,
        malformed=malformed,
        rewards=reward_models(runs, gallery),
        sweeps=sweeps(runs, gallery),
        judges=judge_sections(runs, gallery),
        curves=curves([run for run in runs if run.trains], gallery),
        runs=runs,
    )


def notes(runs: Iterable[Run], results: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what must be read first: each evaluation's note on its judge, once, and made-up
    preferences.
    """
    sentences = list(dict.fromkeys(values["note"] for values in results if values.get("note")))
    runs = list(runs)
    unfinished = [run for run in runs if not run.manifest.is_finished]
    if evaluations := [run.name for run in unfinished if run.command == "evaluate"]:
        sentences.append(
            f"The evaluation in {', '.join(evaluations)} is not finished: run its command again."
            " What is shown of it, if anything, is not its result."
        )
    if others := [f"{run.name} ({run.command})" for run in unfinished if run.command != "evaluate"]:
        sentences.append(
            f"Not finished yet: {', '.join(others)}. What is shown of them, if anything, is a part"
            " of the whole."
        )
    made_up = [
        r.name for r in runs if r.command == "preferences" and r.settings.get("judge") == "rubric"
    ]
    if made_up:
        sentences.append(
            f"The preferences in {', '.join(made_up)} come from the built-in rubric, a stand-in for"
            " patients that scores words: models trained on them have no clinical meaning."
        )
    return sentences


def evaluation_figures(
    name: str, results: Mapping[str, Any], gallery: Gallery, only_one: bool
) -> dict[str, list[dict[str, str]]]:
    """Draw one evaluation: scatters of criteria, pairwise and significance matrices.

    With more than two criteria, each is set against safety, or else against the last one.
    """
    criteria = results["criteria"]
    prefix = "" if only_one else f"{name}-"
    across = "safety" if "safety" in criteria else criteria[-1]
    scatters = [
        gallery.add(
            f"{prefix}scatter-{across}-{criterion}",
            figures.win_rate_scatter(results["models"], results["intervals"], across, criterion),
            f"Average win rates on {across} and {criterion}; bars are 95% intervals over resampled"
            " questions.",
        )
        for criterion in criteria
        if criterion != across
    ]
    pairwise = [
        gallery.add(
            f"{prefix}pairwise-{criterion}",
            figures.pairwise_matrix(results["pairwise"][criterion], criterion),
            f"How often the row's model wins over the column's on {criterion}.",
        )
        for criterion in criteria
    ]
    significance = [
        gallery.add(
            f"{prefix}significance-{criterion}",
            figures.significance_matrix(
                results["pairwise"][criterion], results["tests"][criterion], criterion
            ),
            f"McNemar's test on {criterion}, one majority outcome per question: uncorrected"
            f" chi-square, or the exact test where fewer than {FEW_DISCORDANT} questions are won or"
            " lost.",
        )
        for criterion in criteria
    ]
    return {"scatters": scatters, "pairwise": pairwise, "significance": significance}


def reward_models(runs: Iterable[Run], gallery: Gallery) -> list[dict[str, Any]]:
    """Return each validated reward model's accuracies and its figure."""
    sections = []
    validated = {
        run.folder: run
        for run in runs
        if run.command == "reward" and (run.folder / VALIDATION).is_file()
    }
    for run in validated.values():
        # A refitted model carries the figures of the one in its subfolder: they are shown once.
        if run.folder.name != "validation" or run.folder.parent not in validated:
            values = read_validation(run.folder / VALIDATION)
            figure = gallery.add(
                f"reward-{run.name}",
                figures.reward_validation(values, run.name),
                f"{run.name}: how often held-out rankings agree with the model, by the probability"
                " it gives its own preference, and the rewards of the best and the worst"
                " responses.",
            )
            sections.append({"name": run.name, "values": values, "figure": figure})
    return sections


def sweeps(runs: Iterable[Run], gallery: Gallery) -> list[dict[str, Any]]:
    """Return each sweep's hypervolumes and, of two objectives, its fronts."""
    sections = []
    for run in runs:
        path = run.folder / SWEEP
        if run.command == "sweep" and path.is_file():
            values = read_sweep(path)
            fronts = []
            if len(values["objectives"]) == 2:
                first, second = values["objectives"]
                figure = front_figure(values["fronts"], (first, second), values["base"])
                caption = f"{run.name}: fronts over a grid of weights."
                fronts.append(gallery.add(f"fronts-{run.name}", figure, caption))
            sections.append(
                {"name": run.name, "hypervolume": values["hypervolume"], "figures": fronts}
            )
    return sections


def judge_sections(runs: Sequence[Run], gallery: Gallery) -> list[dict[str, Any]]:
    """Return what is said of the judges: as ``judges`` wrote it, or counted here from the votes of
    a folder.
    """
    analyses = {run.name: read_json(run.folder / JUDGES, Judges) for run in runs if run.judges}
    for run in with_votes(runs):
        # A run killed as it began leaves a file without tables.
        with contextlib.suppress(NoLedger), Ledger(run.folder / VOTES, read_only=True) as ledger:
            if next(ledger.every_vote(), None) is not None:
                analyses[run.name] = analyze([ledger])
    return [
        {
            "name": name,
            "said": values,
            "rows": merged(values),
            "figures": [
                gallery.add(f"{name}-{one.name}", one.figure, one.caption) for one in draw(values)
            ],
        }
        for name, values in sorted(analyses.items())
    ]


def curves(runs: Iterable[Run], gallery: Gallery) -> list[dict[str, str]]:
    """Draw the training curves of each run that has some."""
    drawn = []
    for run in runs:
        figure = figures.training_curves(read_metrics(run.folder / METRICS), run.name)
        if figure is not None:
            drawn.append(gallery.add(f"curves-{run.name}", figure, f"{run.name} ({run.command})"))
    return drawn


def flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Flatten nested settings or counts into dotted names and their values as text."""
    if dataclasses.is_dataclass(value):
        value = plain(value)
    if isinstance(value, Mapping):
        return [
            row
            for key, inner in value.items()
            for row in flat(inner, f"{name}.{key}" if name else key)
        ]
    if isinstance(value, list):
        return [(name, ", ".join(map(str, value)))]
    return [(name, f"{value:.6g}" if isinstance(value, float) else str(value))]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
