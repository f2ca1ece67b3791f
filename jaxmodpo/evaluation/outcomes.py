"""From votes to results: who won each unit, win rates with intervals, tests, and what is
missing.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxmodpo.errors import UserError
from jaxmodpo.evaluation.contest import Contest, Unit
from jaxmodpo.files import Row
from jaxmodpo.judging.votes import Vote
from jaxmodpo.judging.voting import Missingness, Tally, both_orders
from jaxmodpo.results.evaluation import (
    ComparisonJudged,
    Counts,
    CriterionCounts,
    PairTest,
    TiesRule,
    WinRates,
)
from jaxmodpo.results.inference import Interval
from jaxmodpo.results.votes import VotesAsked
from jaxmodpo.statistics import win_rates
from jaxmodpo.statistics.arrays import Array
from jaxmodpo.statistics.intervals import Estimate
from jaxmodpo.statistics.mcnemar import mcnemar
from jaxmodpo.statistics.multiple_tests import holm

logger = logging.getLogger(__name__)

OUTCOME_COLUMNS = (
    "criterion",
    "a",
    "b",
    "question_id",
    "reply",
    "votes_a",
    "votes_b",
    "ties",
    "failed",
    "identical",
    "outcome",
)

Outcomes = Mapping[str, Array]
"""by criterion: ``[models, models, questions, replies]``, as in the statistics"""


def outcome_rows(
    contest: Contest, units: Sequence[Unit], tallies: Mapping[tuple[str, int], Tally]
) -> list[Row]:
    """Decide each unit by the majority of its votes: one row per criterion and unit, criteria
    outermost.

    ``outcome`` is 1 where a won, 0 where b won, 0.5 for as many votes for each or identical texts,
    and empty where no vote was valid. ``reply`` counts from 1.
    """
    names = contest.models
    rows: list[Row] = []
    for criterion in contest.criteria:
        for ballot_number, unit in enumerate(units):
            # Nobody is asked about two identical texts, so they have no tally.
            tally = Tally(0, 0, 0, 0) if unit.identical else tallies[criterion.name, ballot_number]
            rows.append(
                {
                    "criterion": criterion.name,
                    "a": names[unit.model_a],
                    "b": names[unit.model_b],
                    "question_id": contest.questions[unit.question].question_id,
                    "reply": unit.reply + 1,
                    "votes_a": tally.a,
                    "votes_b": tally.b,
                    "ties": tally.ties,
                    "failed": tally.failed,
                    "identical": int(unit.identical),
                    "outcome": _outcome(unit, tally),
                }
            )
    return rows


def _outcome(unit: Unit, tally: Tally) -> float | str:
    """Return a unit's outcome; empty where no vote was valid."""
    if not unit.identical and tally.a + tally.b + tally.ties == 0:
        return ""
    # Ties between two replies count for neither, so that a majority is one of those who decided.
    if tally.a == tally.b:
        return 0.5
    return 1.0 if tally.a > tally.b else 0.0


class Verdict(NamedTuple):
    """What one persona says of a unit: the reply that is better, none for a tie, None if failed."""

    persona: str
    order: tuple[str, ...] | None


def verdicts_of(votes: Sequence[Vote], in_both_orders: bool) -> list[Verdict]:
    """Return the verdict of each persona: its vote, or what its votes in both orders amount to."""
    if not in_both_orders:
        return [Verdict(vote.persona_id, vote.order) for vote in votes]
    by_persona: dict[str, list[Vote]] = {}
    for vote in votes:
        by_persona.setdefault(vote.persona_id, []).append(vote)
    verdicts: list[Verdict] = []
    for persona, (first, second) in by_persona.items():
        verdicts.append(Verdict(persona, both_orders(first, second)))
    return verdicts


def outcome_table(contest: Contest, rows: Sequence[Mapping[str, Any]]) -> dict[str, Array]:
    """Arrange outcomes by criterion into the arrays ``[models, models, questions, replies]`` of the
    statistics.
    """
    models = {name: number for number, name in enumerate(contest.models)}
    questions = {question.question_id: n for n, question in enumerate(contest.questions)}
    shape = (len(models), len(models), len(questions), contest.replies_per_question)
    # What stays NaN has no valid vote, or is a model against itself.
    table = {criterion.name: np.full(shape, np.nan) for criterion in contest.criteria}
    for row in rows:
        if row["outcome"] == "":
            continue
        a = models[row["a"]]
        b = models[row["b"]]
        question = questions[row["question_id"]]
        reply = row["reply"] - 1
        outcomes = table[row["criterion"]]
        outcomes[a, b, question, reply] = row["outcome"]
        outcomes[b, a, question, reply] = 1 - row["outcome"]
    return table


def refuse_pairs_without_votes(contest: Contest, table: Outcomes, ties: TiesRule) -> None:
    """Refuse to go on where two models have no win rate between them at all.

    Their average win rates would be taken over different opponents, which does not compare.
    """
    for criterion, outcomes in table.items():
        decided = np.asarray(np.isfinite(outcomes).any(axis=(2, 3)))
        for a, b in itertools.combinations(range(len(contest.models)), 2):
            if not decided[a, b]:
                raise UserError(
                    f"{criterion}: not one vote on {contest.models[a]} against {contest.models[b]}"
                    " is valid; 'jaxmodpo votes' shows what the judge said, and --retry-errors"
                    " asks failed votes again"
                )
            all_tied = not np.isfinite(win_rates.without_ties(outcomes[a, b])).any()
            if ties == "left-out" and all_tied:
                raise UserError(
                    f"{criterion}: {contest.models[a]} and {contest.models[b]} tie on every"
                    " question, so that nothing is left where ties are left out; use --ties half"
                )


def count(contest: Contest, rows: Sequence[Mapping[str, Any]], missing: Missingness) -> Counts:
    """Count votes and units, in all and by criterion, and failed votes by persona and by model."""
    votes_by_criterion = missing.by_criterion()
    no_votes = VotesAsked(asked=0, valid=0, failed={})
    by_criterion: dict[str, CriterionCounts] = {}
    for criterion in contest.criteria:
        # Where all replies are identical nobody was asked by any criterion.
        votes = votes_by_criterion.get(criterion.name, no_votes)
        unit_rows = [row for row in rows if row["criterion"] == criterion.name]
        by_criterion[criterion.name] = CriterionCounts(
            votes_asked=votes.asked,
            valid=votes.valid,
            failed=votes.failed,
            units=len(unit_rows),
            units_without_valid_vote=sum(row["outcome"] == "" for row in unit_rows),
            units_tied=sum(row["outcome"] == 0.5 for row in unit_rows),
            identical_replies=sum(row["identical"] for row in unit_rows),
        )
    totals = _totals(list(by_criterion.values()))
    return Counts(**vars(totals), by_criterion=by_criterion, missing=missing.summary())


def _totals(counts: Sequence[CriterionCounts]) -> CriterionCounts:
    """Add up the counts of all criteria; failed votes by status."""
    failed: Counter[str] = Counter()
    for of_criterion in counts:
        failed.update(of_criterion.failed)
    return CriterionCounts(
        votes_asked=sum(of_criterion.votes_asked for of_criterion in counts),
        valid=sum(of_criterion.valid for of_criterion in counts),
        failed=dict(sorted(failed.items())),
        units=sum(of_criterion.units for of_criterion in counts),
        units_without_valid_vote=sum(c.units_without_valid_vote for c in counts),
        units_tied=sum(of_criterion.units_tied for of_criterion in counts),
        identical_replies=sum(of_criterion.identical_replies for of_criterion in counts),
    )


class _Rates(NamedTuple):
    """One criterion's win rates: of each model on average, and of every pair."""

    averages: Estimate
    pairs: Estimate


def under_ties_rule(outcomes: Array, ties: TiesRule) -> Array:
    """Return outcomes in which ties count as half a win, or as not judged."""
    return outcomes if ties == "half" else win_rates.without_ties(outcomes)


def summarize(
    contest: Contest, table: Outcomes, *, ties: TiesRule = "half", resamples: int, seed: int
) -> WinRates:
    """Turn outcomes into average win rates, pairwise win rates, their intervals, and tests."""
    names = contest.models
    rated_table = {name: under_ties_rule(outcomes, ties) for name, outcomes in table.items()}
    # All criteria share one seed, and so one draw of questions: their differences are paired.
    rates: dict[str, _Rates] = {}
    for criterion, outcomes in rated_table.items():
        rates[criterion] = _Rates(
            win_rates.estimate_average_win_rates(outcomes, resamples=resamples, seed=seed),
            win_rates.estimate_win_rate(outcomes, resamples=resamples, seed=seed),
        )
    models: dict[str, dict[str, float]] = {}
    intervals: dict[str, dict[str, Interval]] = {}
    for number, name in enumerate(names):
        models[name] = {}
        intervals[name] = {}
        for criterion, (averages, _) in rates.items():
            models[name][criterion] = float(averages.value[number])
            intervals[name][criterion] = interval_of(averages.low[number], averages.high[number])
    pairwise: dict[str, dict[str, dict[str, float]]] = {}
    pairwise_intervals: dict[str, dict[str, dict[str, Interval]]] = {}
    for criterion, (_, pairs) in rates.items():
        pairwise[criterion] = {name: {} for name in names}
        pairwise_intervals[criterion] = {name: {} for name in names}
        # Both directions of every pair, so that a reader looks up a row and never subtracts.
        for i, j in itertools.permutations(range(len(names)), 2):
            of_model = pairwise[criterion][names[i]]
            of_model[names[j]] = float(pairs.value[i, j])
            intervals_of_model = pairwise_intervals[criterion][names[i]]
            intervals_of_model[names[j]] = interval_of(pairs.low[i, j], pairs.high[i, j])
    tests: dict[str, tuple[PairTest, ...]] = {}
    for criterion, outcomes in table.items():
        # The differences are of the win rates as they are shown; a test counts ties, and leaves
        # them out by itself.
        differences = win_rates.estimate_average_differences(
            rated_table[criterion], resamples=resamples, seed=seed
        )
        tests[criterion] = compare_pairs(names, outcomes, differences)
    return WinRates(
        models=models,
        intervals=intervals,
        pairwise=pairwise,
        pairwise_intervals=pairwise_intervals,
        tests=tests,
        criteria=tuple(table),
        ties=ties,
    )


def interval_of(low: ArrayLike, high: ArrayLike) -> Interval:
    """Return an interval; None where there is none."""
    ends = np.array([low, high], dtype=np.float64)
    if not np.isfinite(ends).all():
        return None
    return (float(ends[0]), float(ends[1]))


def count_judged(contest: Contest, table: Outcomes) -> int:
    """Count the questions that have a valid outcome in every comparison by every criterion."""
    judged_everywhere = np.ones(len(contest.questions), dtype=bool)
    for *_, judged in _judged_questions(contest, table):
        judged_everywhere &= judged
    return int(judged_everywhere.sum())


def incomplete_comparisons(contest: Contest, table: Outcomes) -> tuple[ComparisonJudged, ...]:
    """Return the comparisons that lack a valid outcome on some question, and how many they have."""
    incomplete: list[ComparisonJudged] = []
    for criterion, a, b, judged in _judged_questions(contest, table):
        if not judged.all():
            questions = int(judged.sum())
            incomplete.append(ComparisonJudged(criterion=criterion, a=a, b=b, judged=questions))
    return tuple(incomplete)


def _judged_questions(
    contest: Contest, table: Outcomes
) -> Iterator[tuple[str, str, str, np.ndarray]]:
    """Yield each comparison: its criterion, its two models, and of each question whether it is
    judged.
    """
    for criterion, outcomes in table.items():
        # One valid reply is enough for a question to count as judged.
        judged = np.asarray(np.isfinite(outcomes).any(axis=-1))
        for i, j in itertools.combinations(range(len(contest.models)), 2):
            yield criterion, contest.models[i], contest.models[j], judged[i, j]


def in_words(results: WinRates) -> list[str]:
    """Return one line for each criterion: every model's average win rate with its interval, best
    first.
    """
    lines: list[str] = []
    for criterion in results.criteria:
        rates = {name: by_criterion[criterion] for name, by_criterion in results.models.items()}
        words: list[str] = []
        best_first = sorted(rates, key=lambda name: -rates[name])
        for name in best_first:
            interval = results.intervals[name][criterion]
            ends = ""
            if interval is not None:
                low, high = interval
                ends = f" [{100 * low:.1f}–{100 * high:.1f}]"
            words.append(f"{name} {100 * rates[name]:.1f}%{ends}")
        of_ties = ", ties left out" if results.ties == "left-out" else ""
        lines.append(f"average win rates on {criterion}{of_ties}: {', '.join(words)}")
    return lines


def compare_pairs(
    names: Sequence[str], outcomes: Array, differences: Estimate
) -> tuple[PairTest, ...]:
    """Test every pair of models on one criterion: McNemar's test, its p value adjusted for the
    number of pairs, and the difference of their averages.

    The difference and not the two averages: both are taken over the same questions, and much of
    what moves one moves the other.
    """
    pairs = list(itertools.combinations(range(len(names)), 2))
    tests = [mcnemar(outcomes[i, j]) for i, j in pairs]
    # All pairs of one criterion are one family: a reader looks for the small p among all of them.
    adjusted = holm([test.decisive_p_value for test in tests])
    pair_tests: list[PairTest] = []
    for (i, j), test, p_value_holm in zip(pairs, tests, adjusted, strict=True):
        low = differences.low[i, j]
        high = differences.high[i, j]
        pair_tests.append(
            PairTest(
                a=names[i],
                b=names[j],
                **test._asdict(),
                p_value_holm=float(p_value_holm),
                average_difference=float(differences.value[i, j]),
                average_difference_interval=interval_of(low, high),
            )
        )
    return tuple(pair_tests)
