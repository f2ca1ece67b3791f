"""The sections of evaluations: win rates, the paper's figures of them, tests, and votes' health."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxmodpo.report import figures, ranking_figures
from jaxmodpo.report.blocks import (
    Block,
    Cell,
    Column,
    Folded,
    Heading,
    Paragraph,
    Picture,
    Section,
    Side,
    Table,
)
from jaxmodpo.report.gallery import Gallery
from jaxmodpo.report.rating_table import rating_blocks
from jaxmodpo.report.run_folders import read_divergences, read_malformed_rates
from jaxmodpo.report.sources import Evaluation, Sources
from jaxmodpo.report.wording import (
    NO_INTERVAL,
    count,
    p_value,
    percent,
    percent_cell,
    percent_range,
    spoken,
    title,
)
from jaxmodpo.results.evaluation import CriterionCounts, EvaluationResults
from jaxmodpo.statistics.mcnemar import FEW_DISCORDANT

_INTERVAL = "95% interval"


def evaluation_sections(sources: Sources, gallery: Gallery) -> list[Section]:
    """Return a section for each evaluation."""
    sections: list[Section] = []
    for evaluation in sources.evaluations:
        suffix = "" if evaluation.is_finished else " (not finished)"
        blocks: list[Block] = [Paragraph(_scope(evaluation.results), "faint")]
        blocks.append(Heading("Average win rates"))
        blocks += _average_blocks(evaluation, sources, gallery)
        blocks.append(Heading("Pair by pair"))
        blocks.append(Side(_matrices(evaluation, gallery)))
        blocks.append(Heading("McNemar's tests"))
        blocks += _tests(evaluation)
        blocks.append(Heading("Votes and what became of them"))
        blocks += _health(evaluation, gallery)
        sections.append(Section(f"Evaluation: {evaluation.name}{suffix}", blocks))
    return sections


def _scope(results: EvaluationResults) -> str:
    questions = count(results.questions, "question")
    if results.questions_judged < results.questions:
        questions = (
            f"{results.questions_judged} of {questions} judged by every criterion in every"
            " comparison"
        )
    return (
        f"{count(len(results.models), 'model')}, {questions}, replies per question:"
        f" {results.replies_per_question}. Judge: {results.judge}."
    )


# --------------------------------------------------------------------------- average win rates


def _average_blocks(evaluation: Evaluation, sources: Sources, gallery: Gallery) -> list[Block]:
    results = evaluation.results
    # A column is added where there is something to show in it, so that rows are kept by column and
    # put in order at the end. Keys that begin with a space can be no criterion's name.
    columns: dict[str, Column] = {" model": Column("model", is_word=True)}
    cells: dict[str, dict[str, Cell]] = {name: {" model": Cell(name)} for name in results.models}
    for criterion in results.criteria:
        columns[criterion] = Column(f"{spoken(criterion)}, %", detail=_INTERVAL)
        for name, rates in results.models.items():
            interval = results.intervals[name][criterion]
            cells[name][criterion] = percent_cell(rates[criterion], interval, NO_INTERVAL)
    _add_replies(columns, cells, results)
    _add_measures(columns, cells, sources)
    rows = [[row[key] for key in columns] for row in cells.values()]
    name = f"{evaluation.prefix}win-rates"
    return [
        Table(name, list(columns.values()), rows, _explanation(results, set(columns))),
        *_panels(evaluation),
        *rating_blocks(evaluation.results, evaluation.prefix),
        *_rankings(evaluation, gallery),
        *_scatters(evaluation, gallery),
    ]


def _add_replies(
    columns: dict[str, Column],
    cells: Mapping[str, dict[str, Cell]],
    results: EvaluationResults,
) -> None:
    """Add what is known of each model's replies, where some are empty or cut."""
    if sum(results.empty_replies.values()):
        columns[" empty"] = Column("empty replies")
        for name, row in cells.items():
            row[" empty"] = Cell(str(results.empty_replies[name]))
    if not results.cut_replies:
        return
    columns[" cut"] = Column("replies cut at the token limit, %", detail="counts")
    for name, row in cells.items():
        row[" cut"] = Cell("", "not recorded")
        if name in results.cut_replies:
            cut = results.cut_replies[name]
            row[" cut"] = Cell(percent(cut.share), f"{cut.cut} of {cut.replies}")


def _add_measures(
    columns: dict[str, Column], cells: Mapping[str, dict[str, Cell]], sources: Sources
) -> None:
    """Add what other commands measured of each model."""
    divergences = read_divergences(sources.runs)
    if divergences:
        columns[" kl"] = Column("KL, nats per reply")
    malformed = read_malformed_rates(sources.runs)
    if malformed:
        columns[" malformed"] = Column("malformed replies, %")
    for name, row in cells.items():
        row[" kl"] = Cell(f"{divergences[name]:.2f}" if name in divergences else "–")
        row[" malformed"] = Cell(percent(malformed[name]) if name in malformed else "–")


def _explanation(results: EvaluationResults, columns: set[str]) -> str:
    """Say what the table's numbers are, and what is not in it."""
    rule = "A tie is half a win for either model."
    if results.ties == "left-out":
        rule = "Ties are left out, as in the paper."
    sentences = [
        rule,
        "Small figures beside win rates: 95% intervals over resampled questions, for the personas"
        " asked: with other personas the true value lies outside more often.",
    ]
    judged: list[str] = []
    for row in results.questions_judged_by_comparison:
        judged.append(
            f"{row.judged} of {results.questions} for {row.a} and {row.b} on"
            f" {spoken(row.criterion)}"
        )
    if judged:
        sentences.append(f"Questions judged: {', '.join(judged)}.")
    if " kl" in columns:
        sentences.append("KL: how far a model's policy moved from its reference.")
    if not results.cut_replies:
        sentences.append("The files of replies do not say which of them were cut at a token limit.")
    elif len(results.cut_replies) < len(results.models):
        sentences.append("Not recorded: the file of replies does not say which of them were cut.")
    return " ".join(sentences)


def _panels(evaluation: Evaluation) -> list[Block]:
    """Show the intervals over questions beside those over questions and personas at once."""
    results = evaluation.results
    rows: list[list[Cell | str]] = []
    sentences: list[str] = []
    for criterion, panel in results.panels.items():
        if panel.undefined:
            sentences.append(f"{title(criterion)}: no interval over personas, {panel.undefined}.")
            continue
        for name in results.models:
            rows.append(
                [
                    name,
                    spoken(criterion),
                    percent(results.models[name][criterion]),
                    _ends(results.intervals[name][criterion]),
                    _ends(panel.models.get(name)),
                    str(panel.personas),
                ]
            )
    blocks: list[Block] = []
    if rows:
        explanation = (
            "Over questions: what other questions would have given, with these personas. Over both:"
            " what other questions and other personas would have given."
        )
        table = Table(f"{evaluation.prefix}panels", _PANEL_COLUMNS, rows, explanation)
        blocks.append(Folded("Intervals over questions, and over questions and personas", [table]))
    if sentences:
        blocks.append(Paragraph(" ".join(sentences), "faint"))
    return blocks


def _ends(interval: Sequence[float] | None) -> str:
    return percent_range(interval) if interval else "none"


_PANEL_COLUMNS = (
    Column("model", is_word=True),
    Column("criterion", is_word=True),
    Column("win rate, %"),
    Column("95% interval over questions"),
    Column("95% interval over questions and personas"),
    Column("personas"),
)


def _rates_in_words(results: EvaluationResults, criterion: str) -> str:
    """Say every model's average win rate, best first, for readers who do not see the figure."""
    rates = {name: by_criterion[criterion] for name, by_criterion in results.models.items()}
    best_first = sorted(rates, key=lambda name: (-rates[name], name))
    words = [f"{name} {percent(rates[name])}%" for name in best_first]
    return f"{title(criterion)}: {', '.join(words)}."


def _rankings(evaluation: Evaluation, gallery: Gallery) -> list[Block]:
    """Draw the models' ranking by each criterion (the paper's Figures 11 and 13)."""
    results = evaluation.results
    figure = ranking_figures.rankings(results.models, results.intervals, results.criteria)
    caption = (
        "Models by average win rate on each criterion, best first; bars are 95% intervals over"
        " resampled questions, and the dashed line is 50%."
    )
    words = [_rates_in_words(results, criterion) for criterion in results.criteria]
    return [gallery.add(f"{evaluation.prefix}rankings", figure, caption, " ".join(words))]


def _scatters(evaluation: Evaluation, gallery: Gallery) -> list[Block]:
    """Set each criterion against safety, or else against the last one (the paper's Figures 2 and
    4).
    """
    results = evaluation.results
    # What an alignment to other criteria may cost is looked for in safety first, as in the paper.
    across = "safety" if "safety" in results.criteria else results.criteria[-1]
    pictures: list[Picture] = []
    for criterion in results.criteria:
        if criterion == across:
            continue
        figure = figures.win_rate_scatter(results.models, results.intervals, across, criterion)
        caption = (
            f"Average win rates on {spoken(across)} and {spoken(criterion)}; bars are 95% intervals"
            " over resampled questions."
        )
        alternative = f"{_rates_in_words(results, across)} {_rates_in_words(results, criterion)}"
        name = f"{evaluation.prefix}scatter-{across}-{criterion}"
        pictures.append(gallery.add(name, figure, caption, alternative))
    if not pictures:
        return [
            Paragraph(
                "A figure of two criteria against each other is not here, since there is one"
                f" criterion, {spoken(across)}.",
                "faint",
            )
        ]
    return [Side(pictures)]


# --------------------------------------------------------------------------- pair by pair


def _matrices(evaluation: Evaluation, gallery: Gallery) -> list[Picture]:
    """Draw the win rates and the tests of all pairs by each criterion (the paper's Figures 3, 12,
    14 and 15).
    """
    results = evaluation.results
    pictures: list[Picture] = []
    for criterion in results.criteria:
        heading = title(criterion)
        pairwise = results.pairwise[criterion]
        tests = results.tests[criterion]
        figure = figures.pairwise_matrix(pairwise, heading)
        caption = f"How often the row's model wins over the column's on {spoken(criterion)}."
        name = f"{evaluation.prefix}pairwise-{criterion}"
        words = _pairs_in_words(pairwise)
        pictures.append(gallery.add(name, figure, caption, f"{caption} {words}"))
        figure = figures.significance_matrix(pairwise, tests, heading)
        caption = (
            f"McNemar's test on {spoken(criterion)}, one majority outcome per question:"
            f" uncorrected chi-square, or the exact test where fewer than {FEW_DISCORDANT} questions"
            " are won or lost. Filled triangles stand after Holm's adjustment for all pairs, hollow"
            " ones do not."
        )
        name = f"{evaluation.prefix}significance-{criterion}"
        # For a reader who does not see the figure: a list of all p values would help nobody.
        alternative = f"{caption} The table of McNemar's tests has its numbers."
        pictures.append(gallery.add(name, figure, caption, alternative))
    return pictures


def _pairs_in_words(pairwise: Mapping[str, Mapping[str, float]]) -> str:
    words: list[str] = []
    names = list(pairwise)
    for number, name in enumerate(names):
        # Each pair once: the other direction is what is missing to 100%.
        for opponent in names[number + 1 :]:
            words.append(f"{name} over {opponent} {100 * pairwise[name][opponent]:.0f}%")
    return f"{', '.join(words)}."


_TEST_COLUMNS = (
    Column("a", is_word=True),
    Column("b", is_word=True),
    Column("won by a"),
    Column("ties"),
    Column("won by b"),
    Column("χ²"),
    Column("p"),
    Column("p corrected"),
    Column("p exact"),
    Column("p, Holm"),
    Column("difference of averages, points", detail=_INTERVAL),
)


def _tests(evaluation: Evaluation) -> list[Block]:
    """Return the table of tests of each criterion, folded."""
    blocks: list[Block] = []
    for criterion, tests in evaluation.results.tests.items():
        rows: list[list[Cell | str]] = []
        for test in tests:
            interval = test.average_difference_interval
            ends = percent_range(interval, " to ") if interval else ""
            rows.append(
                [
                    test.a,
                    test.b,
                    str(test.wins),
                    str(test.ties),
                    str(test.losses),
                    f"{test.statistic:.2f}",
                    p_value(test.p_value),
                    p_value(test.p_value_corrected),
                    p_value(test.p_value_exact),
                    p_value(test.p_value_holm),
                    Cell(percent(test.average_difference), ends),
                ]
            )
        table = Table(f"{evaluation.prefix}tests-{criterion}", _TEST_COLUMNS, rows)
        summary = f"{title(criterion)}: {count(len(tests), 'test')}"
        blocks.append(Folded(summary, [table]))
    return blocks


# --------------------------------------------------------------------------- votes

_HEALTH_COLUMNS = (
    Column("criterion", is_word=True),
    Column("votes asked for"),
    Column("valid"),
    Column("failed, %", detail="by kind"),
    Column("comparisons of two replies"),
    Column("tied"),
    Column("identical replies"),
    Column("without a valid vote"),
)


def _health(evaluation: Evaluation, gallery: Gallery) -> list[Block]:
    """Show how many votes failed and how many comparisons they decided."""
    counts = evaluation.results.counts
    rows: list[list[Cell | str]] = []
    for criterion, of_criterion in counts.by_criterion.items():
        rows.append(_health_row(title(criterion), of_criterion))
    rows.append(_health_row("All criteria", counts))
    caption = (
        "A comparison is a question with one reply of each of two models. It is tied where as many"
        " votes are for each, or where both replies are the same text, about which nobody is asked."
    )
    blocks: list[Block] = [
        Table(f"{evaluation.prefix}votes", _HEALTH_COLUMNS, rows, caption),
        _failures_of_models(counts.missing.models),
    ]
    if counts.votes_asked:
        figure = ranking_figures.vote_health(counts.by_criterion)
        words = (
            f"What became of the votes and of the comparisons, by criterion:"
            f" {counts.valid:,} of {counts.votes_asked:,} votes are valid."
        )
        blocks.append(gallery.add(f"{evaluation.prefix}votes-health", figure, words))
    else:
        blocks.append(Paragraph("No vote was asked for, so none can be drawn.", "faint"))
    return blocks


def _health_row(name: str, counts: CriterionCounts) -> list[Cell | str]:
    failed = counts.votes_asked - counts.valid
    # Where all replies are the same, no vote is asked for.
    share = percent(failed / counts.votes_asked) if counts.votes_asked else "–"
    kinds = [f"{number:,} {spoken(status)}" for status, number in counts.failed.items() if number]
    return [
        name,
        f"{counts.votes_asked:,}",
        f"{counts.valid:,}",
        Cell(share, ", ".join(kinds)),
        f"{counts.units:,}",
        f"{counts.units_tied:,}",
        f"{counts.identical_replies:,}",
        f"{counts.units_without_valid_vote:,}",
    ]


def _failures_of_models(models: Mapping[str, Any]) -> Paragraph:
    """Say which models answered, and how many of their votes failed."""
    words: list[str] = []
    for name, votes in models.items():
        failed = votes.asked - votes.valid
        words.append(f"{name} {failed:,} of {votes.asked:,}")
    if not words:
        return Paragraph("No vote names the model that answered.", "faint")
    return Paragraph(f"Failed votes by the model that answered: {', '.join(words)}.", "faint")
