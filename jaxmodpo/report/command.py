"""``jaxmodpo report``: one HTML file that shows what a set of runs did and how they compare.

The command finds the runs and reads their files (:mod:`jaxmodpo.report.run_folders`), counts
the votes of judged folders, and writes ``report.html`` with its figures inside, together with the
figures as PNG files. The page needs no network and no scripts, and holds no times, so that equal
inputs give equal bytes. It is apart from the evaluation because it shows finished work of any kind,
and asks no judge.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.evaluation.judge_table import words
from jaxmodpo.files import atomic_path, write_text
from jaxmodpo.pages import template
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.ranges import Incidental, Settings
from jaxmodpo.report.cards import write_cards
from jaxmodpo.report.probe_section import probe_sections
from jaxmodpo.report.run_folders import (
    Run,
    find_runs,
    read_divergences,
    read_malformed_rates,
    shown_files,
)
from jaxmodpo.report.sections import (
    EvaluationSection,
    Gallery,
    evaluation_sections,
    judge_sections,
    reward_sections,
    sweep_sections,
    training_curves,
)
from jaxmodpo.report.toxicity_section import toxicity_sections
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

    @functools.cached_property
    def runs(self) -> list[Run]:
        """The runs, looked for once: what the manifest records is then what the page shows, even
        where another run ends meanwhile.
        """
        return find_runs(self.inputs, self.output_dir)

    def input_paths(self) -> dict[str, Path]:
        """Return the files with numbers that the page shows."""
        return shown_files(self.runs)

    def cost(self, estimator: Estimates) -> Cost:
        return Cost()  # takes seconds, and leaves little behind


@in_phase("report")
def report(config: ReportConfig, phase: Phase) -> None:
    """Write the report.

    Raises:
        UserError: an input is missing or holds no manifest, a file is not as its command writes it,
            or a launcher started several processes, and this is not the first.
    """
    gallery = Gallery()
    page = render(config.title, config.runs, gallery)
    for name, image in gallery.images.items():
        with atomic_path(config.output_dir / name) as temporary:
            temporary.write_bytes(image)
    write_text(config.output_dir / "report.html", page)
    write_cards(config.output_dir, config.title, config.runs)
    phase.finish(runs=len(config.runs), figures=len(gallery.images))
    logger.info(
        "report: %d runs, %d figures in %s",
        len(config.runs),
        len(gallery.images),
        config.output_dir,
    )


def render(title: str, runs: Sequence[Run], gallery: Gallery) -> str:
    """Return the page, adding its figures to ``gallery``."""
    evaluations = evaluation_sections(runs, gallery)
    filters = {"percent": _percent, "p_value": _p_value, "flat": flat, "words": words}
    return template(_TEMPLATE, filters).render(
        title=title,
        notes=notes(runs, evaluations),
        evaluations=evaluations,
        divergences=read_divergences(runs),
        malformed=read_malformed_rates(runs),
        rewards=reward_sections(runs, gallery),
        sweeps=sweep_sections(runs, gallery),
        judges=judge_sections(runs, gallery),
        probes=probe_sections(runs, gallery),
        toxicity=toxicity_sections(runs, gallery),
        curves=training_curves(runs, gallery),
        runs=runs,
    )


def notes(runs: Sequence[Run], evaluations: Sequence[EvaluationSection]) -> list[str]:
    """Return what must be read first: each evaluation's note on its judge, once, what is not
    finished, and made-up preferences.
    """
    # The same judge says the same of every evaluation, and is heard once.
    judge_notes = [section.results.note for section in evaluations if section.results.note]
    sentences = list(dict.fromkeys(judge_notes))
    unfinished = [run for run in runs if not run.manifest.is_finished]
    names = [run.name for run in unfinished if run.command == "evaluate"]
    if names:
        sentences.append(
            f"The evaluation in {', '.join(names)} is not finished: run its command again."
            " What is shown of it, if anything, is not its result."
        )
    names = [f"{run.name} ({run.command})" for run in unfinished if run.command != "evaluate"]
    if names:
        sentences.append(
            f"Not finished yet: {', '.join(names)}. What is shown of them, if anything, is a part"
            " of the whole."
        )
    names = [run.name for run in runs if run.has_made_up_preferences]
    if names:
        sentences.append(
            f"The preferences in {', '.join(names)} come from the built-in rubric, a stand-in for"
            " patients that scores words: models trained on them have no clinical meaning."
        )
    return sentences


def flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Flatten nested settings or counts into dotted names and their values as text.

    Example: ``flat({"failed": {"refusal": 9}})`` is ``[("failed.refusal", "9")]``.
    """
    if dataclasses.is_dataclass(value):
        value = plain(value)
    if isinstance(value, Mapping):
        rows: list[tuple[str, str]] = []
        for key, inner in value.items():
            rows += flat(inner, f"{name}.{key}" if name else key)
        return rows
    if isinstance(value, list | tuple):
        return [(name, ", ".join(map(str, value)))]
    return [(name, f"{value:.6g}" if isinstance(value, float) else str(value))]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
