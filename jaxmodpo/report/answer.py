"""The first section of a report: what the evaluations show, in sentences, and what they do not.

Every criterion has a sentence with the best model's win rate, its interval and the number of
questions, another with its lead over the second, and a third with what the two's own comparison
says. What follows are the limits of these numbers, as far as the files show them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jaxmodpo.report.blocks import Block, Heading, Listing, Paragraph, Section
from jaxmodpo.report.gallery import Gallery
from jaxmodpo.report.run_folders import Run
from jaxmodpo.report.sources import Evaluation, Sources
from jaxmodpo.report.wording import (
    count,
    interval_in_words,
    listed,
    p_equals,
    percent,
    title,
)
from jaxmodpo.results.evaluation import EvaluationResults, PairTest

LEVEL = 0.05
"""the p value below which a difference is called one"""
MANY_FAILED = 0.02
"""the share of failed votes from which on the answer speaks of them"""
_PROCEDURE = (
    "Models answered the same questions and were compared head to head: on each question, patient"
    " personas said which of two blinded replies is better on one criterion, and the majority"
    " decided. A model's win rate is its average over all opponents."
)


def answer(sources: Sources, gallery: Gallery) -> list[Section]:
    """Return the answer, which is always there."""
    blocks: list[Block] = [Paragraph(note, "note") for note in notes(sources)]
    if not sources.evaluations:
        blocks.append(Paragraph("No evaluation was found in the folders searched.", "faint"))
        return [Section("The answer", blocks)]
    blocks.append(Paragraph(_PROCEDURE))
    # A single evaluation needs no name above it.
    has_headings = len(sources.evaluations) > 1
    for evaluation in sources.evaluations:
        if has_headings:
            blocks.append(Heading(evaluation.name))
        blocks.append(Listing(findings(evaluation.results)))
    blocks.append(Heading("What cannot be concluded"))
    for evaluation in sources.evaluations:
        if has_headings:
            blocks.append(Heading(evaluation.name, level=4))
        blocks.append(Listing(limits(evaluation)))
    return [Section("The answer", blocks)]


# --------------------------------------------------------------------------- warnings


def notes(sources: Sources) -> list[str]:
    """Return what must be read first: each evaluation's note on its judge, once, what is not
    finished, and made-up preferences.
    """
    # The same judge says the same of every evaluation, and is heard once.
    judge_notes = [e.results.note for e in sources.evaluations if e.results.note]
    return [*dict.fromkeys(judge_notes), *_unfinished(sources.runs), *_made_up(sources.runs)]


def _unfinished(runs: Sequence[Run]) -> list[str]:
    # An evaluation is told of apart: its numbers are what the page is opened for.
    evaluations: list[str] = []
    others: list[str] = []
    for run in runs:
        if run.manifest.is_finished:
            continue
        if run.command == "evaluate":
            evaluations.append(run.name)
        else:
            others.append(f"{run.name} ({run.command})")
    sentences: list[str] = []
    if evaluations:
        sentences.append(
            f"The evaluation in {', '.join(evaluations)} is not finished: run its command again."
            " What is shown of it, if anything, is not its result."
        )
    if others:
        sentences.append(
            f"Not finished yet: {', '.join(others)}. What is shown of them, if anything, is a part"
            " of the whole."
        )
    return sentences


def _made_up(runs: Sequence[Run]) -> list[str]:
    names = [run.name for run in runs if run.has_made_up_preferences]
    if not names:
        return []
    return [
        f"The preferences in {', '.join(names)} come from the built-in rubric, a stand-in for"
        " patients that scores words: models trained on them have no clinical meaning."
    ]


# --------------------------------------------------------------------------- what was found


class _Place(NamedTuple):
    """A model and its average win rate on a criterion."""

    model: str
    rate: float


def findings(results: EvaluationResults) -> list[str]:
    """Return two or three sentences for each criterion."""
    return [_finding(results, criterion) for criterion in results.criteria]


def _finding(results: EvaluationResults, criterion: str) -> str:
    first, second = _best_two(results, criterion)
    interval = interval_in_words(results.intervals[first.model][criterion])
    # With votes of each persona there is a second interval, over new questions and new personas
    # at once. It is the wider one, and is said beside the first.
    panel = results.panels.get(criterion)
    of_panel = panel.models.get(first.model) if panel else None
    if of_panel:
        low, high = map(percent, of_panel)
        interval += f" over questions, {low} to {high} over questions and personas"
    questions = _questions_of(results, criterion, first.model)
    sentence = (
        f"{title(criterion)}: {first.model} is preferred most often, with an average win rate of"
        f" {percent(first.rate)}% ({interval}; {count(questions, 'question')})."
    )
    test = pair_test(results, criterion, first.model, second.model)
    if test is None:
        return f"{sentence} It was not compared with {second.model}, the second."
    return f"{sentence} {_lead(first, second, test)} {_meeting(first, second, test)}"


def _best_two(results: EvaluationResults, criterion: str) -> tuple[_Place, _Place]:
    """Return the two models of the highest average win rates, ties by name."""
    rated_models = [_Place(name, rates[criterion]) for name, rates in results.models.items()]
    rated_models.sort(key=lambda place: (-place.rate, place.model))
    first = rated_models[0]
    # One model alone has no second: it then stands for both.
    second = rated_models[1] if len(rated_models) > 1 else first
    return first, second


def _questions_of(results: EvaluationResults, criterion: str, model: str) -> int:
    """Return the smallest number of questions that a comparison of a model has."""
    # Only comparisons that lack a question are listed; in all others every question was judged.
    fewest = results.questions
    for row in results.questions_judged_by_comparison:
        if row.criterion == criterion and model in (row.a, row.b):
            fewest = min(fewest, row.judged)
    return fewest


def pair_test(results: EvaluationResults, criterion: str, a: str, b: str) -> PairTest | None:
    """Return the test of two models on a criterion, whichever of them it names first."""
    for test in results.tests[criterion]:
        if {test.a, test.b} == {a, b}:
            return test
    return None


def _lead(first: _Place, second: _Place, test: PairTest) -> str:
    """Say by how much the first model's average is above the second's, and whether that may be
    chance.
    """
    if first.rate == second.rate:
        return f"{second.model} has the same average win rate."
    interval = test.average_difference_interval
    # A test is of a minus b, in the order in which the models were given; here the leader is first.
    if interval is not None and test.a != first.model:
        low, high = interval
        interval = (-high, -low)
    points = f"{percent(first.rate - second.rate)} points ({interval_in_words(interval)})"
    # By its own interval, and not by the test of the two: an average is over all opponents, and a
    # model may beat the second clearly while it loses to others.
    if interval is not None and interval[0] > 0:
        return f"It leads {second.model}, the second, by {points}."
    return f"Its lead over {second.model}, the second, may be chance: {points}."


def _meeting(first: _Place, second: _Place, test: PairTest) -> str:
    """Say who won where the two best models themselves were compared, and whether that may be
    chance.
    """
    wins = test.wins
    losses = test.losses
    if test.a != first.model:
        wins, losses = losses, wins
    if wins + losses == 0:
        return f"Compared with {second.model} alone it ties on every question."
    chance = f"{p_equals(test.p_value_holm)}, adjusted for all pairs by Holm's method"
    doubt = ", which may be chance" if test.p_value_holm >= LEVEL else ""
    won = count(wins, "question")
    return f"Compared with {second.model} alone it wins {won} and loses {losses}{doubt} ({chance})."


# --------------------------------------------------------------------------- what was not found


def limits(evaluation: Evaluation) -> list[str]:
    """Return what the numbers of an evaluation do not show, as far as its files tell."""
    results = evaluation.results
    sentences = [
        f"The judge was {results.judge}, which answered as personas: whether real patients or"
        " clinicians would choose alike is not shown by any number here.",
        "Intervals over questions are for the personas asked: with other personas the true value"
        " lies outside more often than in 5 of 100 cases.",
    ]
    for criterion in results.criteria:
        sentences += _undecided_pairs(results, criterion)
    sentences += _missing(results)
    sentences += _replies(results)
    return sentences


def _undecided_pairs(results: EvaluationResults, criterion: str) -> list[str]:
    """Name the pairs of models that a criterion does not tell apart."""
    tests = results.tests[criterion]
    undecided = [test for test in tests if test.p_value_holm >= LEVEL]
    if not undecided:
        return []
    # Of eight models there are 28 pairs: some are named, the others counted.
    names = [f"{test.a} and {test.b}" for test in undecided[:5]]
    if len(undecided) > len(names):
        names.append(f"{len(undecided) - len(names)} more")
    return [
        f"{title(criterion)}: {len(undecided)} of {count(len(tests), 'pair')} of models cannot be"
        f" told apart at the 5% level ({'; '.join(names)}). That is no proof that they are equal."
    ]


def _missing(results: EvaluationResults) -> list[str]:
    """Say where questions or votes are missing."""
    sentences: list[str] = []
    if results.questions_judged < results.questions:
        sentences.append(
            f"Only {results.questions_judged} of {count(results.questions, 'question')} were judged"
            " by every criterion in every comparison; what the others would change is not known."
        )
    for criterion, counts in results.counts.by_criterion.items():
        if not counts.votes_asked:
            continue
        failed = counts.votes_asked - counts.valid
        share = failed / counts.votes_asked
        if share > MANY_FAILED:
            sentences.append(
                f"{title(criterion)}: {failed:,} of {counts.votes_asked:,} votes"
                f" ({percent(share)}%) failed. If the judge refused some kinds of replies more than"
                " others, the win rates are shifted."
            )
    return sentences


def _replies(results: EvaluationResults) -> list[str]:
    """Say what else than its quality may have decided over a reply."""
    sentences: list[str] = []
    if not results.length_controlled:
        sentences.append(
            "Judges tend to like long replies: where models differ in length, a part of a win rate"
            " may be that. No file says how long the replies are."
        )
    cut = [name for name, counts in results.cut_replies.items() if counts.cut]
    if cut:
        sentences.append(
            f"Some replies of {listed(cut)} were cut at a limit of tokens, and may have lost by"
            " that alone."
        )
    empty = [name for name, number in results.empty_replies.items() if number]
    if empty:
        sentences.append(f"Some replies of {listed(empty)} are empty, and were compared as such.")
    return sentences
