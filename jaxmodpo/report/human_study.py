"""The part of a report's page about a human study: the paper's Figures 5, 16, 17 and 18.

``study analyze`` writes the same blocks as a page of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxmodpo.report import human_study_figures as figures
from jaxmodpo.report.blocks import (
    Block,
    Cell,
    Column,
    Folded,
    Heading,
    Listing,
    Paragraph,
    Properties,
    Section,
    Table,
)
from jaxmodpo.report.gallery import Gallery
from jaxmodpo.report.human_study_tables import (
    agreement_table,
    confusion_table,
    consensus_table,
    corrected_table,
    judge_table,
    levels_table,
    shares_table,
)
from jaxmodpo.report.sources import Sources
from jaxmodpo.report.wording import count, listed, percent, spoken, title
from jaxmodpo.results.human_study import (
    EXAMPLES,
    HUMAN_STUDY,
    CriterionFindings,
    Example,
    HumanStudyResults,
    StudyExamples,
)
from jaxmodpo.results.versioned import read_result

SIMULATED = "Nobody took part: the answers are simulated, and their numbers mean nothing."
OTHER_JUDGE = (
    "The judge's outcomes are not those by which the study's questions were picked: another judge's,"
    " or those of an evaluation that was run again."
)
_CORRECTED = (
    "Judge: all questions of the evaluation. People: the majority's labels of the study's questions."
    " Corrected: prediction-powered inference (PPI++), the judge's outcomes on all questions made"
    " right by the people's labels; λ is how much the judge counts, from 0 to 1. Inflation: how much"
    " more often the judge prefers the first model than people do, on the same questions."
)


def human_study_sections(sources: Sources, gallery: Gallery) -> list[Section]:
    """Read every ``human_study.json``, and draw it."""
    sections: list[Section] = []
    for run, results in sources.results_of("study analyze", HUMAN_STUDY, HumanStudyResults):
        examples = None
        if sources.include_texts and (run.folder / EXAMPLES).is_file():
            examples = read_result(run.folder / EXAMPLES, StudyExamples)
        blocks = human_study_blocks(f"human-study-{run.name}", results, examples, gallery)
        sections.append(Section(f"Human study: {run.name}", blocks))
    return sections


def human_study_blocks(
    stem: str, results: HumanStudyResults, examples: StudyExamples | None, gallery: Gallery
) -> list[Block]:
    """Return what a page says of a human study.

    Args:
        stem: what the names of its figures and tables begin with.
        results: of the analysis.
        examples: texts of its examples; None where the page holds none.
        gallery: keeps the figures.
    """
    blocks: list[Block] = []
    if results.is_simulated:
        blocks.append(Paragraph(SIMULATED, "note"))
    if not results.judge_is_samples:
        blocks.append(Paragraph(OTHER_JUDGE, "note"))
    blocks += _outcome_blocks(stem, results, gallery)
    blocks += _agreement_blocks(stem, results, gallery)
    blocks += _corrected_blocks(stem, results, gallery)
    blocks += _examples(stem, results, examples)
    return blocks


def _outcome_blocks(stem: str, results: HumanStudyResults, gallery: Gallery) -> list[Block]:
    """Return who took part and whose replies people preferred."""
    first, second = results.models
    answers: list[str] = []
    for name, findings in results.criteria.items():
        answers.append(_answer(name, findings, results))
    return [
        Paragraph(_who_took_part(results)),
        Listing(answers),
        gallery.add(
            f"{stem}-shares",
            figures.outcome_shares(results),
            f"Questions by the majority's preference between {first} and {second}, in percent.",
        ),
        shares_table(f"{stem}-outcomes", results),
    ]


def _agreement_blocks(stem: str, results: HumanStudyResults, gallery: Gallery) -> list[Block]:
    """Return how far people agree with each other, and the judge with them."""
    return [
        Heading("Do people agree, and does the judge agree with them?"),
        gallery.add(
            f"{stem}-agreement",
            figures.decided_agreement(results),
            "Agreement where neither side leaves a question tied: one person against the majority"
            " of the others, and the judge against the majority of all; 95% intervals.",
        ),
        agreement_table(f"{stem}-two-class", results),
        gallery.add(
            f"{stem}-levels",
            figures.agreement_levels(results),
            "Shares of equal labels among three, ties included, with 95% intervals.",
        ),
        levels_table(f"{stem}-equal-labels", results),
        gallery.add(
            f"{stem}-confusion",
            figures.confusion_tables(results),
            "Questions by the majority's label (rows) and the judge's (columns).",
        ),
        Folded("Confusion tables as numbers", [confusion_table(f"{stem}-counts", results)]),
        gallery.add(
            f"{stem}-consensus",
            figures.accuracy_by_consensus(results),
            "The judge's accuracy by how clearly people decide, with 95% intervals and the number"
            " of questions at the foot.",
        ),
        Folded("Accuracy by consensus", [consensus_table(f"{stem}-strength", results)]),
    ]


def _corrected_blocks(stem: str, results: HumanStudyResults, gallery: Gallery) -> list[Block]:
    """Return the judge's win rates as people's answers correct them."""
    first, second = results.models
    return [
        Heading("Win rates, corrected by what people say"),
        gallery.add(
            f"{stem}-corrected",
            figures.win_rates(results),
            f"Win rate of {first} over {second} as the judge has it, as people have it, and"
            " corrected, with 95% intervals.",
        ),
        corrected_table(f"{stem}-win-rates", results),
        Paragraph(_CORRECTED, "faint"),
        Folded("The judge against the majority, ties included", [judge_table(stem, results)]),
    ]


def _who_took_part(results: HumanStudyResults) -> str:
    """Say how many raters count, how many are left out, and why."""
    raters = results.raters
    verb = "counts" if raters.counted == 1 else "count"
    sentence = f"{count(raters.counted, 'rater')} {verb}, on {count(results.questions, 'question')}"
    if raters.median_seconds is not None:
        sentence += f"; an item took {raters.median_seconds:.0f} seconds (median)"
    if not raters.excluded:
        return f"{sentence}. Nobody is left out."
    reasons = [f"{number} ({reason})" for reason, number in raters.excluded.items()]
    return f"{sentence}. Left out: {listed(reasons)}."


def _answer(name: str, findings: CriterionFindings, results: HumanStudyResults) -> str:
    """Return the sentence that says what people prefer by a criterion, and whether the judge
    agrees.
    """
    first, second = results.models
    shares = [findings.shares[label].value for label in ("a", "b", "equal")]
    if any(share is None for share in shares):
        return f"{title(name)}: {findings.shares['a'].undefined}."
    won, lost, tied = (percent(share or 0.0) for share in shares)
    sentence = f"{title(name)}: people prefer {first} on {won}%, {second} on {lost}%, neither on {tied}% of questions."
    accuracy = findings.two_class.accuracy
    if accuracy.value is None:
        return f"{sentence} The judge is not compared: {accuracy.undefined}."
    sentence += f" Where both decide, the judge says the same on {percent(accuracy.value)}%"
    baseline = findings.leave_one_out.accuracy.value
    if baseline is not None:
        sentence += f"; one person says the same as the others on {percent(baseline)}%"
    return f"{sentence}."


# --------------------------------------------------------------------------- examples


def _examples(
    stem: str, results: HumanStudyResults, examples: StudyExamples | None
) -> Sequence[Block]:
    """Return the questions of each cell, with texts if there are some (the paper's figure 16)."""
    blocks: list[Block] = []
    for name, findings in results.criteria.items():
        if not findings.examples:
            continue
        inner: list[Block] = [_example_table(f"{stem}-examples-{name}", findings, results)]
        for example in findings.examples:
            texts = examples.texts.get(example.item_id) if examples else None
            if texts is not None:
                rows = [
                    ("post", texts.post),
                    (results.models[0], texts.reply_a),
                    (results.models[1], texts.reply_b),
                ]
                inner += [Heading(_cell_in_words(example, results), 4), Properties(rows)]
        blocks.append(Folded(f"Examples: {spoken(name)}", inner))
    return [Heading("Examples of agreement and disagreement"), *blocks] if blocks else []


def _example_table(name: str, findings: CriterionFindings, results: HumanStudyResults) -> Table:
    names = figures.label_names(results)
    columns = [
        Column("question", is_word=True),
        Column("majority", is_word=True),
        Column("judge", is_word=True),
        *(Column(f"chose {label}") for label in names),
    ]
    rows: list[list[Cell | str]] = []
    for example in findings.examples:
        votes = [str(votes) for votes in example.votes.values()]
        majority, judge = _names(example, results)
        rows.append([example.question_id, majority, judge, *votes])
    return Table(name, columns, rows)


def _names(example: Example, results: HumanStudyResults) -> tuple[str, str]:
    by_label = dict(zip(("a", "b", "equal"), figures.label_names(results), strict=True))
    return by_label[example.majority], by_label[example.judge]


def _cell_in_words(example: Example, results: HumanStudyResults) -> str:
    majority, judge = _names(example, results)
    return f"{example.question_id}: the majority says {majority}, the judge {judge}"
