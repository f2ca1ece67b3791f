"""From votes to results: who won each unit, win rates with intervals, tests, and what is
missing.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxmodpo.errors import UserError
from jaxmodpo.evaluation import statistics
from jaxmodpo.evaluation.contest import Contest, Unit
from jaxmodpo.judging.votes import Vote
from jaxmodpo.judging.voting import (
    Missingness,
    Tally,
    both_orders,
)

logger = logging.getLogger(__name__)

OUTCOME_COLUMNS = (
    "criterion", "a", "b", "question_id", "reply", "votes_a", "votes_b", "ties", "failed", "identical", "outcome"
)  # fmt: skip


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
            counts = Tally(0, 0, 0, 0) if unit.identical else tallies[criterion.name, slot]
            decided = unit.identical or counts.a + counts.b + counts.ties > 0
            rows.append(
                {
                    "criterion": criterion.name,
                    "a": names[unit.model_a],
                    "b": names[unit.model_b],
                    "question_id": contest.questions[unit.question].question_id,
                    "reply": unit.reply + 1,
                    "votes_a": counts.a,
                    "votes_b": counts.b,
                    "ties": counts.ties,
                    "failed": counts.failed,
                    "identical": int(unit.identical),
                    "outcome": (
                        0.5 * (1 + (counts.a > counts.b) - (counts.a < counts.b)) if decided else ""
                    ),
                }
            )
    return rows


def verdicts_of(votes: Sequence[Vote], in_both_orders: bool) -> list[tuple[str, ...] | None]:
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
    model = {name: n for n, name in enumerate(contest.models)}
    question = {q.question_id: n for n, q in enumerate(contest.questions)}
    shape = (len(model), len(model), len(question), contest.replies_per_question)
    table = {criterion.name: np.full(shape, np.nan) for criterion in contest.criteria}
    for row in rows:
        if row["outcome"] != "":
            a, b, at = (
                model[row["a"]],
                model[row["b"]],
                (question[row["question_id"]], row["reply"] - 1),
            )
            table[row["criterion"]][(a, b, *at)] = row["outcome"]
            table[row["criterion"]][(b, a, *at)] = 1 - row["outcome"]
    return table


def refuse_pairs_without_votes(contest: Contest, table: Mapping[str, statistics.Array]) -> None:
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
    voted = missing.by_criterion()
    by_criterion: dict[str, dict[str, Any]] = {}
    for criterion in (c.name for c in contest.criteria):
        own = [row for row in rows if row["criterion"] == criterion]
        of_votes = voted.get(criterion, {"asked": 0, "valid": 0, "failed": {}})
        by_criterion[criterion] = {
            "votes_asked": of_votes["asked"],
            "valid": of_votes["valid"],
            "failed": of_votes["failed"],
            "units": len(own),
            "units_without_valid_vote": sum(row["outcome"] == "" for row in own),
            "units_tied": sum(row["outcome"] == 0.5 for row in own),
            "identical_replies": sum(row["identical"] for row in own),
        }
    totals: dict[str, Any] = {
        name: sum(counts[name] for counts in by_criterion.values())
        for name in next(iter(by_criterion.values()))
        if name != "failed"
    }
    statuses = sorted({status for counts in by_criterion.values() for status in counts["failed"]})
    totals["failed"] = {
        status: sum(counts["failed"].get(status, 0) for counts in by_criterion.values())
        for status in statuses
    }
    return totals | {"by_criterion": by_criterion, "missing": missing.summary()}


def summarize(
    contest: Contest, table: Mapping[str, statistics.Array], *, resamples: int, seed: int
) -> dict[str, Any]:
    """Turn outcomes into average win rates, pairwise win rates, their intervals, and tests."""
    names, criteria = contest.models, list(table)
    settings = {"resamples": resamples, "seed": seed}
    averages = {c: statistics.estimate_average_win_rates(table[c], **settings) for c in criteria}
    pairs = {c: statistics.estimate_win_rate(table[c], **settings) for c in criteria}

    def square(values: Any) -> dict[str, dict[str, Any]]:
        return {
            a: {b: values(i, j) for j, b in enumerate(names) if j != i} for i, a in enumerate(names)
        }

    return {
        "models": {
            name: {c: float(averages[c].value[n]) for c in criteria} for n, name in enumerate(names)
        },
        "intervals": {
            name: {c: ends(averages[c].low[n], averages[c].high[n]) for c in criteria}
            for n, name in enumerate(names)
        },
        "pairwise": {c: square(lambda i, j, c=c: float(pairs[c].value[i, j])) for c in criteria},
        "pairwise_intervals": {
            c: square(lambda i, j, c=c: ends(pairs[c].low[i, j], pairs[c].high[i, j]))
            for c in criteria
        },
        "tests": {c: tests(names, table[c], **settings) for c in criteria},
        "criteria": criteria,
    }


def ends(low: ArrayLike, high: ArrayLike) -> list[float] | None:
    """Return an interval for JSON; None where there is none."""
    both = np.array([low, high], dtype=np.float64)
    return both.tolist() if np.isfinite(both).all() else None


def judged_of_asked(contest: Contest, table: Mapping[str, statistics.Array]) -> dict[str, Any]:
    """Count the questions with a valid outcome: in all comparisons alike, and in each that lacks
    some.
    """
    comparisons = list(itertools.combinations(range(len(contest.models)), 2))
    decided = {
        criterion: np.asarray(np.isfinite(outcomes).any(axis=-1))
        for criterion, outcomes in table.items()
    }
    everywhere = np.all([of[a, b] for of in decided.values() for a, b in comparisons], axis=0)
    lacking = [
        {
            "criterion": criterion,
            "a": contest.models[a],
            "b": contest.models[b],
            "judged": int(of[a, b].sum()),
        }
        for criterion, of in decided.items()
        for a, b in comparisons
        if not of[a, b].all()
    ]
    return {"questions_judged": int(everywhere.sum()), "questions_judged_by_comparison": lacking}


def in_words(results: Mapping[str, Any]) -> list[str]:
    """Return one line for each criterion: every model's average win rate with its interval, best
    first.
    """
    lines = []
    for criterion in results["criteria"]:
        rates = {name: by_criterion[criterion] for name, by_criterion in results["models"].items()}
        words = []
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
    return [
        {
            "a": names[i],
            "b": names[j],
            **statistics.mcnemar(outcomes[i, j])._asdict(),
            "average_difference": float(differences.value[i, j]),
            "average_difference_interval": ends(differences.low[i, j], differences.high[i, j]),
        }
        for i, j in itertools.combinations(range(len(names)), 2)
    ]
