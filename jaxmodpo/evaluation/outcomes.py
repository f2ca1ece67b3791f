"""From votes to results: who won each unit, win rates with intervals, tests, and what is
missing.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxmodpo.errors import UserError
from jaxmodpo.evaluation import statistics
from jaxmodpo.evaluation.contest import Contest, Unit
from jaxmodpo.judging.votes import Vote
from jaxmodpo.judging.voting import Missingness, Tally, both_orders

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

Outcomes = Mapping[str, statistics.Array]
"""by criterion: ``[models, models, questions, replies]``, as in the statistics"""


def outcome_rows(
    contest: Contest, units: Sequence[Unit], tallies: Mapping[tuple[str, int], Tally]
) -> list[dict[str, Any]]:
    """Decide each unit by the majority of its votes: one row per criterion and unit, criteria
    outermost.

    ``outcome`` is 1 where a won, 0 where b won, 0.5 for as many votes for each or identical texts,
    and empty where no vote was valid. ``reply`` counts from 1.
    """
    names = contest.models
    rows: list[dict[str, Any]] = []
    for criterion in contest.criteria:
        for slot, unit in enumerate(units):
            # Nobody is asked about two identical texts, so they have no tally.
            tally = Tally(0, 0, 0, 0) if unit.identical else tallies[criterion.name, slot]
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
    if tally.a == tally.b:
        return 0.5
    return 1.0 if tally.a > tally.b else 0.0


def verdicts_of(votes: Sequence[Vote], in_both_orders: bool) -> list[tuple[str, ...] | None]:
    """Return the verdict of each persona: its vote, or what its votes in both orders amount to."""
    if not in_both_orders:
        return [vote.order for vote in votes]
    by_persona: dict[str, list[Vote]] = {}
    for vote in votes:
        by_persona.setdefault(vote.persona_id, []).append(vote)
    return [both_orders(first, second) for first, second in by_persona.values()]


def outcome_table(
    contest: Contest, rows: Sequence[Mapping[str, Any]]
) -> dict[str, statistics.Array]:
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


def refuse_pairs_without_votes(contest: Contest, table: Outcomes) -> None:
    """Refuse to go on where two models have no valid vote between them at all.

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


def count(
    contest: Contest, rows: Sequence[Mapping[str, Any]], missing: Missingness
) -> dict[str, Any]:
    """Count votes and units, in all and by criterion, and failed votes by persona and by model."""
    votes_by_criterion = missing.by_criterion()
    no_votes: dict[str, Any] = {"asked": 0, "valid": 0, "failed": {}}
    by_criterion: dict[str, dict[str, Any]] = {}
    for criterion in contest.criteria:
        votes = votes_by_criterion.get(criterion.name, no_votes)
        unit_rows = [row for row in rows if row["criterion"] == criterion.name]
        by_criterion[criterion.name] = {
            "votes_asked": votes["asked"],
            "valid": votes["valid"],
            "failed": votes["failed"],
            "units": len(unit_rows),
            "units_without_valid_vote": sum(row["outcome"] == "" for row in unit_rows),
            "units_tied": sum(row["outcome"] == 0.5 for row in unit_rows),
            "identical_replies": sum(row["identical"] for row in unit_rows),
        }
    totals = _totals(list(by_criterion.values()))
    return totals | {"by_criterion": by_criterion, "missing": missing.summary()}


def _totals(counts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up the counts of all criteria; failed votes by status."""
    totals: dict[str, Any] = {}
    for name in counts[0]:
        if name != "failed":
            totals[name] = sum(of_criterion[name] for of_criterion in counts)
    failed: dict[str, int] = {}
    for of_criterion in counts:
        for status, times in of_criterion["failed"].items():
            failed[status] = failed.get(status, 0) + times
    totals["failed"] = dict(sorted(failed.items()))
    return totals


class _Rates(NamedTuple):
    """One criterion's win rates: of each model on average, and of every pair."""

    averages: statistics.Estimate
    pairs: statistics.Estimate


def summarize(contest: Contest, table: Outcomes, *, resamples: int, seed: int) -> dict[str, Any]:
    """Turn outcomes into average win rates, pairwise win rates, their intervals, and tests."""
    names = contest.models
    # All criteria share one seed, and so one draw of questions: their differences are paired.
    rates: dict[str, _Rates] = {}
    for criterion, outcomes in table.items():
        rates[criterion] = _Rates(
            statistics.estimate_average_win_rates(outcomes, resamples=resamples, seed=seed),
            statistics.estimate_win_rate(outcomes, resamples=resamples, seed=seed),
        )
    models: dict[str, dict[str, float]] = {}
    intervals: dict[str, dict[str, list[float] | None]] = {}
    for number, name in enumerate(names):
        models[name] = {}
        intervals[name] = {}
        for criterion, (averages, _) in rates.items():
            models[name][criterion] = float(averages.value[number])
            intervals[name][criterion] = ends(averages.low[number], averages.high[number])
    pairwise: dict[str, dict[str, dict[str, float]]] = {}
    pairwise_intervals: dict[str, dict[str, dict[str, list[float] | None]]] = {}
    for criterion, (_, pairs) in rates.items():
        pairwise[criterion] = {name: {} for name in names}
        pairwise_intervals[criterion] = {name: {} for name in names}
        # Both directions of every pair, so that a reader looks up a row and never subtracts.
        for i, j in itertools.permutations(range(len(names)), 2):
            of_model = pairwise[criterion][names[i]]
            of_model[names[j]] = float(pairs.value[i, j])
            intervals_of_model = pairwise_intervals[criterion][names[i]]
            intervals_of_model[names[j]] = ends(pairs.low[i, j], pairs.high[i, j])
    return {
        "models": models,
        "intervals": intervals,
        "pairwise": pairwise,
        "pairwise_intervals": pairwise_intervals,
        "tests": {
            criterion: tests(names, outcomes, resamples=resamples, seed=seed)
            for criterion, outcomes in table.items()
        },
        "criteria": list(table),
    }


def ends(low: ArrayLike, high: ArrayLike) -> list[float] | None:
    """Return an interval for JSON; None where there is none."""
    both = np.array([low, high], dtype=np.float64)
    return both.tolist() if np.isfinite(both).all() else None


def judged_of_asked(contest: Contest, table: Outcomes) -> dict[str, Any]:
    """Count the questions with a valid outcome: in all comparisons alike, and in each that lacks
    some.
    """
    judged_everywhere = np.ones(len(contest.questions), dtype=bool)
    lacking: list[dict[str, Any]] = []
    for criterion, outcomes in table.items():
        # One valid reply is enough for a question to count as judged.
        judged = np.asarray(np.isfinite(outcomes).any(axis=-1))
        for a, b in itertools.combinations(range(len(contest.models)), 2):
            judged_everywhere &= judged[a, b]
            if not judged[a, b].all():
                lacking.append(
                    {
                        "criterion": criterion,
                        "a": contest.models[a],
                        "b": contest.models[b],
                        "judged": int(judged[a, b].sum()),
                    }
                )
    return {
        "questions_judged": int(judged_everywhere.sum()),
        "questions_judged_by_comparison": lacking,
    }


def in_words(results: Mapping[str, Any]) -> list[str]:
    """Return one line for each criterion: every model's average win rate with its interval, best
    first.
    """
    lines: list[str] = []
    for criterion in results["criteria"]:
        rates = {name: by_criterion[criterion] for name, by_criterion in results["models"].items()}
        words: list[str] = []
        for name in sorted(rates, key=lambda name: -rates[name]):
            interval = results["intervals"][name][criterion]
            width = f" [{100 * interval[0]:.1f}–{100 * interval[1]:.1f}]" if interval else ""
            words.append(f"{name} {100 * rates[name]:.1f}%{width}")
        lines.append(f"average win rates on {criterion}: {', '.join(words)}")
    return lines


def tests(
    names: Sequence[str], outcomes: statistics.Array, *, resamples: int, seed: int
) -> list[dict[str, Any]]:
    """Test every pair of models on one criterion: McNemar's test, and the difference of their
    averages.
    """
    differences = statistics.estimate_average_differences(outcomes, resamples=resamples, seed=seed)
    rows: list[dict[str, Any]] = []
    for i, j in itertools.combinations(range(len(names)), 2):
        row: dict[str, Any] = {"a": names[i], "b": names[j]}
        row |= statistics.mcnemar(outcomes[i, j])._asdict()
        row["average_difference"] = float(differences.value[i, j])
        row["average_difference_interval"] = ends(differences.low[i, j], differences.high[i, j])
        rows.append(row)
    return rows
