"""``jaxmodpo study status``: how a running study goes, in the terminal."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxmodpo.study.place import StudyPlace, open_place
from jaxmodpo.terminal import printable

if TYPE_CHECKING:
    from jaxmodpo.study.app.figures import Figures, RaterProgress


@dataclass(frozen=True, kw_only=True)
class StudyStatusConfig(StudyPlace):
    """Show how a running study goes: raters, items, attention checks, times, agreement so far. No
    figure is of a model by name.
    """


def study_status(config: StudyStatusConfig) -> None:
    """Run ``study status``.

    Raises:
        UserError: there is no database yet, or it is of another study file.
    """
    config.check()
    store = open_place(config)
    from jaxmodpo.study.app.figures import figures_of

    try:
        figures = figures_of(store)
        title = store.study.title
    finally:
        store.close()
    print(printable(title))
    for line in status_lines(figures):
        print(line)


def status_lines(figures: Figures) -> list[str]:
    """Return how a study goes, line by line."""
    states = Counter(progress.rater.status for progress in figures.raters)
    of_states = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    lines = [
        f"{figures.places_taken} of {figures.places} places taken; raters: {of_states or 'none'};"
        f" {figures.answers} answers"
    ]
    if figures.raters:
        lines += [
            "",
            f"{'rater':<12}{'state':<11}{'items':>9}{'checks failed':>15}{'median s':>10}",
        ]
    lines += [_rater_line(progress) for progress in figures.raters]
    ratings = [item.ratings for item in figures.items if item.kind == "question"]
    if ratings:
        lines += ["", f"ratings of a question: {min(ratings)} to {max(ratings)}"]
    for criterion in figures.agreement:
        kappa = "not defined yet" if math.isnan(criterion.kappa) else f"{criterion.kappa:.2f}"
        lines.append(
            f"{printable(criterion.title)}: Fleiss' κ {kappa},"
            f" {criterion.questions} questions with two raters or more"
        )
    return lines


def _rater_line(progress: RaterProgress) -> str:
    rater = progress.rater
    seconds = "" if progress.median_seconds is None else f"{progress.median_seconds:.0f}"
    notes: list[str] = []
    if rater.excluded:
        notes.append(f"excluded: {printable(rater.excluded)}")
    if rater.rejected:
        notes.append(f"rejected: {printable(rater.rejected)}")
    items = f"{progress.done}/{progress.items}"
    line = (
        f"{rater.pseudonym:<12}{rater.status:<11}{items:>9}"
        f"{progress.checks_failed:>15}{seconds:>10}"
    )
    return "  ".join([line, *notes])
