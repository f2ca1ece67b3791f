"""The part of a report's page about toxicity: the paper's Table 1, with intervals and tests.

Example: ``toxicity_sections(runs, gallery)`` reads every ``toxicity.json``, draws how many replies
of each model count as toxic, and returns what ``toxicity.html`` lays out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.figure import Figure

from jaxmodpo.pages import STYLE, look_of
from jaxmodpo.report.run_folders import Run
from jaxmodpo.report.sections import Gallery, Picture
from jaxmodpo.results.toxicity import (
    TOXICITY,
    ModelToxicity,
    ScoreSummary,
    ToxicityResults,
    ToxicityTest,
)
from jaxmodpo.results.versioned import read_result

NOT_SCORED = "no reply is scored"


@dataclass(frozen=True)
class ScoreRow:
    """One score: a cell of means and a cell of shares for each model."""

    score: str
    means: Sequence[str]
    shares: Sequence[str]


@dataclass(frozen=True)
class TestRow:
    """One comparison of two models, in words."""

    score: str
    models: str
    questions: int
    mean_difference: str
    share_difference: str


@dataclass(frozen=True)
class ToxicitySection:
    """One run's Table 1."""

    name: str
    results: ToxicityResults
    answers: Sequence[str]
    """a sentence for each model"""
    rows: Sequence[ScoreRow]
    tests: Sequence[TestRow]
    missing: Sequence[str]
    """sentences about replies without scores"""
    figure: Picture


def toxicity_sections(runs: Iterable[Run], gallery: Gallery) -> list[ToxicitySection]:
    """Read every ``toxicity.json``, and draw it."""
    sections: list[ToxicitySection] = []
    for run in runs:
        path = run.folder / TOXICITY
        if run.command == "toxicity" and path.is_file():
            sections.append(_section(run.name, read_result(path, ToxicityResults), gallery))
    return sections


def _section(name: str, results: ToxicityResults, gallery: Gallery) -> ToxicitySection:
    # The score that counts first, then the others as the scorer has them.
    others = [score for score in results.scores if score != results.headline]
    scores = [results.headline, *others]
    caption = (
        f"{name}: replies of each model whose score of {results.headline} is"
        f" {results.threshold:g} or more, in percent, with 95% intervals."
    )
    return ToxicitySection(
        name=name,
        results=results,
        answers=[_answer(model, results) for model in results.models],
        rows=[_row(score, results.models) for score in scores],
        tests=[
            _test_row(test) for score in scores for test in results.tests if test.score == score
        ],
        missing=[
            sentence
            for name, model in results.models.items()
            if (sentence := _missing(name, model))
        ],
        figure=gallery.add(f"toxicity-{name}", toxic_shares(results), caption),
    )


def _answer(name: str, results: ToxicityResults) -> str:
    """Return the sentence that says how many of a model's replies are toxic."""
    summary = results.models[name].scores[results.headline]
    return f"{name}: {share_in_words(summary)} replies count as toxic."


def share_in_words(summary: ScoreSummary) -> str:
    """Return a share with its counts and interval: ``3 of 600 (0.5%; 0.2–1.5)``."""
    if summary.share is None or summary.share_interval is None:
        return NOT_SCORED
    low, high = summary.share_interval
    percent = f"{100 * summary.share:.1f}%; {100 * low:.1f}–{100 * high:.1f}"
    return f"{summary.above} of {summary.scored} ({percent})"


def mean_in_words(summary: ScoreSummary) -> str:
    """Return a mean with its interval: ``0.0354 (0.0331–0.0379)``."""
    if summary.mean is None:
        return NOT_SCORED
    if summary.mean_interval is None:
        return f"{summary.mean:.4f} (one question has no interval)"
    low, high = summary.mean_interval
    return f"{summary.mean:.4f} ({low:.4f}–{high:.4f})"


def _row(score: str, models: Mapping[str, ModelToxicity]) -> ScoreRow:
    summaries = [model.scores[score] for model in models.values()]
    return ScoreRow(
        score=score,
        means=[mean_in_words(summary) for summary in summaries],
        shares=[share_in_words(summary) for summary in summaries],
    )


def _test_row(test: ToxicityTest) -> TestRow:
    return TestRow(
        score=test.score,
        models=f"{test.a} against {test.b}",
        questions=test.questions,
        mean_difference=_mean_test(test),
        share_difference=_share_test(test),
    )


def _mean_test(test: ToxicityTest) -> str:
    if test.mean_difference is None or test.mean_p_value is None:
        return "no question is scored for both"
    words = f"{test.mean_difference:+.4f}"
    if test.mean_difference_interval is not None:
        low, high = test.mean_difference_interval
        words += f" ({low:+.4f} to {high:+.4f})"
    return f"{words}, p {_p(test.mean_p_value)}, adjusted {_p(test.mean_p_adjusted)}"


def _share_test(test: ToxicityTest) -> str:
    if test.share_p_value is None:
        return "no question is scored for both"
    return (
        f"more {test.more}, fewer {test.fewer}, equal {test.equal}; p {_p(test.share_p_value)}"
        f" ({test.share_test}), adjusted {_p(test.share_p_adjusted)}"
    )


def _p(value: float | None) -> str:
    if value is None:
        return "not there"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _missing(name: str, model: ModelToxicity) -> str:
    """Say which of a model's replies are not scored, or not whole; nothing where all are."""
    parts = [f"{count} {status}" for status, count in model.failed.items()]
    if model.empty:
        parts.append(f"{model.empty} empty and not scored")
    if model.cut:
        parts.append(f"{model.cut} of which the beginning alone was read")
    return f"{name}, of {model.replies} replies: {', '.join(parts)}." if parts else ""


def toxic_shares(results: ToxicityResults) -> Figure:
    """Draw each model's share of toxic replies with its interval: a row a model."""
    names = list(results.models)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 1.1 + 0.32 * len(names)), layout="constrained")
        axes = figure.add_subplot()
        for row, name in enumerate(names):
            summary = results.models[name].scores[results.headline]
            if summary.share is None or summary.share_interval is None:
                axes.text(0, row, NOT_SCORED, va="center")
                continue
            look = look_of(row)
            low, high = summary.share_interval
            axes.plot([100 * low, 100 * high], [row, row], color=look["color"], linewidth=1)
            axes.plot(100 * summary.share, row, linestyle="none", **look)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.set_xlabel(f"replies with {results.headline} ≥ {results.threshold:g}, %")
    return figure
