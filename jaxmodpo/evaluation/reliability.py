"""How far judges' votes can be believed, from their ledgers alone.

Five questions, each answered by criterion: does the judge favor a position, does it say the same
when asked again, do personas agree, do two judges agree, and which votes are missing. Everything is
counted from votes as they are recorded; no vote is made up for one that failed. The module is apart
from the evaluation because it also serves preference collection, and compares ledgers of several
runs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import numpy as np

from jaxmodpo.evaluation.judge_agreement import compare_judges
from jaxmodpo.evaluation.missing_votes import missingness
from jaxmodpo.evaluation.persona_agreement import cast_ballots, persona_agreement
from jaxmodpo.evaluation.position import both_orders, position
from jaxmodpo.evaluation.repeats import repeats
from jaxmodpo.evaluation.sums import ALL, Row
from jaxmodpo.evaluation.vote_reading import read_votes
from jaxmodpo.evaluation.vote_table import Record, VoteTable
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.statistics.bootstrap import estimate


def analyze(
    ledgers: Sequence[Ledger], *, run: str | None = None, resamples: int = 2000, seed: int = 42
) -> Row:
    """Read ledgers and return everything that is said about their judges, as plain values.

    Raises:
        UserError: no votes, or a vote that cannot be one.
    """
    record = read_votes(ledgers, run)
    estimator = functools.partial(estimate, resamples=resamples, seed=seed)
    positions: list[Row] = []
    in_both_orders: list[Row] = []
    repeated: list[Row] = []
    among_personas: list[Row] = []
    between_judges: list[Row] = []
    for votes in record.tables:
        # Repeats are asked to see whether a judge is steady. They count there alone, or what is
        # asked twice would weigh twice in everything else.
        answered = votes.where(votes.judge >= 0)
        first_time = answered.where(answered.repeat == 0)
        ballots = cast_ballots(votes.where(votes.repeat == 0))
        for names, group in _groups(record, first_time):
            positions.append(names | position(group, estimator))
            in_both_orders += [names | row for row in both_orders(group, estimator)]
        for names, group in _groups(record, answered):
            repeated += [names | row for row in repeats(group, estimator)]
        for names, group in _groups(record, ballots):
            among_personas.append(names | persona_agreement(group, estimator))
        between_judges += compare_judges(record, ballots, estimator)
    missing = missingness(record, estimator)
    return {
        "judges": _judges(record),
        "ledgers": [ledger.shown_location for ledger in ledgers],
        "run": run,
        "counts": {
            "votes": missing["votes"],
            "valid": missing["valid"],
            "failed": missing["failed"],
            "superseded": record.superseded,
        },
        "position": positions,
        "both_orders": in_both_orders,
        "repeats": repeated,
        "personas": among_personas,
        "judges_compared": between_judges,
        "missing": missing,
        "resamples": resamples,
        "seed": seed,
    }


def _judges(record: Record) -> list[Row]:
    """Return who answered, each with the number of its valid votes."""
    rows: list[Row] = []
    for number, judge in enumerate(record.judges):
        valid_votes = sum(int((votes.judge == number).sum()) for votes in record.tables)
        rows.append(judge._asdict() | {"valid_votes": valid_votes})
    return rows


def _groups(record: Record, votes: VoteTable) -> Iterator[tuple[Row, VoteTable]]:
    """Yield each judge's votes by each criterion, and by all where there are several."""
    for number, judge in enumerate(record.judges):
        of_judge = votes.where(votes.judge == number)
        for criterion, group in _by_criterion(record, of_judge):
            names: Row = {
                "judge": judge.name,
                "kind": votes.kind,
                "shown": votes.shown,
                "criterion": criterion,
            }
            yield names, group


def _by_criterion(record: Record, votes: VoteTable) -> Iterator[tuple[str, VoteTable]]:
    numbers = sorted(np.unique(votes.criterion), key=lambda number: record.criteria[number])
    for number in numbers:
        yield record.criteria[number], votes.where(votes.criterion == number)
    if len(numbers) > 1:
        yield ALL, votes
