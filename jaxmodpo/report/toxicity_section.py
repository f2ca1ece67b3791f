"""The part of a report's page about toxicity: the paper's Table 1, with intervals and tests.

Every ``toxicity.json`` has a section, with a figure of how many replies count as toxic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from matplotlib.figure import Figure

from jaxmodpo.pages import drawing, look_of
from jaxmodpo.report.blocks import (
    Block,
    Column,
    Folded,
    Heading,
    Listing,
    Paragraph,
    Section,
    Table,
)
from jaxmodpo.report.gallery import Gallery
from jaxmodpo.report.sources import Sources
from jaxmodpo.report.wording import p_value, percent, percent_range
from jaxmodpo.results.toxicity import (
    TOXICITY,
    ModelToxicity,
    ScoreSummary,
    ToxicityResults,
    ToxicityTest,
)

NOT_SCORED = "no reply is scored"


_TESTS = (
    "Means: the first model's less the second's, with a paired permutation test. Shares: questions"
    " of which the first model has more replies that count, or fewer, with McNemar's test, the exact"
    " one where few questions differ. Adjusted: by Holm's method over all pairs of models."
)
_TEST_COLUMNS = (
    Column("score", is_word=True),
    Column("models", is_word=True),
    Column("questions"),
    Column("difference of means"),
    Column("replies that count"),
)


def toxicity_sections(sources: Sources, gallery: Gallery) -> list[Section]:
    """Read every ``toxicity.json``, and draw it."""
    sections: list[Section] = []
    for run, results in sources.results_of("toxicity", TOXICITY, ToxicityResults):
        sections.append(_section(run.name, results, gallery))
    return sections


def _section(name: str, results: ToxicityResults, gallery: Gallery) -> Section:
    # The score that counts first, then the others as the scorer has them.
    others = [score for score in results.scores if score != results.headline]
    scores = [results.headline, *others]
    caption = (
        f"{name}: replies of each model whose score of {results.headline} is"
        f" {results.threshold:g} or more, in percent, with 95% intervals."
    )
    explanation = (
        f"Scored by: {results.scorer}. A reply counts by a score of {results.threshold:g} or more;"
        f" as toxic by {results.headline}. Intervals are 95% over questions."
    )
    stem = f"toxicity-{name}"
    blocks: list[Block] = [
        Paragraph(results.note, "note"),
        Listing([_answer(model, results) for model in results.models]),
        Paragraph(explanation, "faint"),
        gallery.add(stem, toxic_shares(results), caption),
        Heading("Replies that count, by score"),
        _table(f"{stem}-shares", scores, results.models, share_in_words),
        Heading("Mean scores"),
        _table(f"{stem}-means", scores, results.models, mean_in_words),
    ]
    test_rows: list[list[str]] = []
    for score in scores:
        test_rows += [_test_row(test) for test in results.tests if test.score == score]
    # A single model has nothing to be compared with.
    if test_rows:
        table = Table(f"{stem}-tests", _TEST_COLUMNS, test_rows, _TESTS)
        blocks.append(Folded("Tests between models, question by question", [table]))
    for model_name, model in results.models.items():
        sentence = _missing(model_name, model)
        if sentence:
            blocks.append(Paragraph(sentence, "faint"))
    return Section(f"Toxicity: {name}", blocks)


def _table(
    name: str,
    scores: Sequence[str],
    models: Mapping[str, ModelToxicity],
    in_words: Callable[[ScoreSummary], str],
) -> Table:
    """Return a table with a row for each score and a column for each model."""
    columns = [Column("score", is_word=True), *(Column(model) for model in models)]
    rows: list[list[str]] = []
    for score in scores:
        cells = [in_words(model.scores[score]) for model in models.values()]
        rows.append([score, *cells])
    return Table(name, columns, rows)


def _answer(name: str, results: ToxicityResults) -> str:
    """Return the sentence that says how many of a model's replies are toxic."""
    summary = results.models[name].scores[results.headline]
    if summary.share is None:
        return f"{name}: {NOT_SCORED} by {results.headline}."
    return f"{name}: {share_in_words(summary)} replies count as toxic."


def share_in_words(summary: ScoreSummary) -> str:
    """Return a share with its counts and interval: ``3 of 600 (0.5%; 0.2–1.5)``."""
    if summary.share is None or summary.share_interval is None:
        return NOT_SCORED
    share = percent(summary.share)
    ends = percent_range(summary.share_interval)
    return f"{summary.above} of {summary.scored} ({share}%; {ends})"


def mean_in_words(summary: ScoreSummary) -> str:
    """Return a mean with its interval: ``0.0354 (0.0331–0.0379)``."""
    if summary.mean is None:
        return NOT_SCORED
    if summary.mean_interval is None:
        return f"{summary.mean:.4f} (one question has no interval)"
    low, high = summary.mean_interval
    return f"{summary.mean:.4f} ({low:.4f}–{high:.4f})"


def _test_row(test: ToxicityTest) -> list[str]:
    """Return the comparison of two models, in words."""
    return [
        test.score,
        f"{test.a} against {test.b}",
        str(test.questions),
        _mean_test(test),
        _share_test(test),
    ]


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
    return "not there" if value is None else p_value(value)


def _missing(name: str, model: ModelToxicity) -> str:
    """Say which of a model's replies are not scored, or not whole; nothing where all are."""
    phrases = [f"{count} {status}" for status, count in model.failed.items()]
    if model.empty:
        phrases.append(f"{model.empty} empty and not scored")
    if model.cut:
        phrases.append(f"{model.cut} of which the beginning alone was read")
    if not phrases:
        return ""
    return f"{name}, of {model.replies} replies: {', '.join(phrases)}."


def toxic_shares(results: ToxicityResults) -> Figure:
    """Draw each model's share of toxic replies with its interval: a row a model."""
    names = list(results.models)
    with drawing(6.4, 1.1 + 0.32 * len(names)) as figure:
        axes = figure.add_subplot()
        for row, name in enumerate(names):
            summary = results.models[name].scores[results.headline]
            if summary.share is None or summary.share_interval is None:
                axes.text(0, row, NOT_SCORED, va="center")
                continue
            style = look_of(row)
            low, high = summary.share_interval
            axes.plot([100 * low, 100 * high], [row, row], color=style["color"], linewidth=1)
            axes.plot(100 * summary.share, row, linestyle="none", **style)
        axes.set_yticks(range(len(names)), names)
        # The first model on top, and room above it and below the last.
        axes.set_ylim(len(names) - 0.4, -0.6)
        # The axis ends where the largest share does, since shares are often below 1%; a little room
        # on the left shows a marker at 0 whole.
        _, right = axes.get_xlim()
        axes.set_xlim(left=-0.02 * right)
        axes.set_xlabel(f"replies with {results.headline} ≥ {results.threshold:g}, %")
    return figure
