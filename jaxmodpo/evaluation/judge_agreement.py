"""How far two judges agree: vote by vote, and on the majorities of what both decided."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from jaxmodpo.evaluation.sums import (
    ALL,
    Estimator,
    Row,
    add_up,
    by_question,
    count_values,
    fraction,
    square_tables,
    verdicts,
)
from jaxmodpo.evaluation.vote_table import Numbers, Record, VoteTable, together
from jaxmodpo.statistics import agreement
from jaxmodpo.statistics.arrays import Array


@dataclass(frozen=True)
class _Numbered:
    """Votes, each with a number that two judges' votes on the same thing share."""

    votes: VoteTable
    numbers: Numbers


@dataclass(frozen=True)
class _Ballots:
    """One judge's ballots, and what they amount to: one majority for each unit and criterion."""

    votes: _Numbered
    majorities: _Numbered


def compare_judges(record: Record, ballots: VoteTable, estimator: Estimator) -> list[Row]:
    """Compare every two judges on what both voted on, and on the majorities of units that both
    decided.
    """
    of_judge = _ballots_by_judge(len(record.judges), ballots)
    rows: list[Row] = []
    for a, b in itertools.combinations(of_judge, 2):
        votes_a, votes_b = _shared(of_judge[a].votes, of_judge[b].votes)
        majorities_a, majorities_b = _shared(of_judge[a].majorities, of_judge[b].majorities)
        for criterion in _criteria(record, majorities_a):
            row: Row = {
                "a": record.judges[a].name,
                "b": record.judges[b].name,
                "kind": ballots.kind,
                "shown": ballots.shown,
                "criterion": ALL if criterion is None else record.criteria[criterion],
            }
            row["votes"] = agree(
                _by(votes_a, criterion),
                _by(votes_b, criterion),
                estimator,
                named_by_position=True,
            )
            # A majority was shown in no order, so its two responses have no first and second.
            row["majorities"] = agree(
                _by(majorities_a, criterion),
                _by(majorities_b, criterion),
                estimator,
                named_by_position=False,
            )
            rows.append(row)
    return rows


def _ballots_by_judge(judges: int, ballots: VoteTable) -> dict[int, _Ballots]:
    """Return the ballots of each judge that has any."""
    # Numbered before they are split by judge, so that a number means the same for all judges.
    voter = together(ballots.unit, ballots.criterion, ballots.persona)
    unit = together(ballots.unit, ballots.criterion)
    of_judge: dict[int, _Ballots] = {}
    for judge in range(judges):
        rows = np.flatnonzero(ballots.judge == judge)
        if len(rows):
            votes = ballots.where(rows)
            of_judge[judge] = _Ballots(
                _Numbered(votes, voter[rows]), _majorities(votes, unit[rows])
            )
    return of_judge


def _shared(a: _Numbered, b: _Numbered) -> tuple[VoteTable, VoteTable]:
    """Return both judges' votes on what both voted on, row by row on the same."""
    _, rows_a, rows_b = np.intersect1d(a.numbers, b.numbers, return_indices=True)
    return a.votes.where(rows_a), b.votes.where(rows_b)


def _criteria(record: Record, votes: VoteTable) -> list[int | None]:
    """Return the criteria of votes by name, and then None for all together, unless there is one."""
    numbers = sorted(np.unique(votes.criterion).tolist(), key=record.criteria.__getitem__)
    return numbers if len(numbers) == 1 else [*numbers, None]


def _by(votes: VoteTable, criterion: int | None) -> VoteTable:
    return votes if criterion is None else votes.where(votes.criterion == criterion)


def _majorities(ballots: VoteTable, unit: Numbers) -> _Numbered:
    """Return, as one vote for each unit, what its votes amount to.

    Responses stand in the order of their mean rank, and equal ones share a rank: of a comparison
    the one with more votes is first, and as many are a tie.
    """
    units, first_row, unit_index = np.unique(unit, return_index=True, return_inverse=True)
    rank_sums = add_up(unit_index, ballots.ranks, len(units))
    # All responses of a unit have the same number of votes, so sums compare as means do. The rank
    # of a response is how many others have a lower sum.
    has_lower_sum = rank_sums[:, :, None] > rank_sums[:, None, :]
    ranks = has_lower_sum.sum(axis=2)
    majorities = replace(ballots.where(first_row), ranks=ranks.astype(np.uint8))
    return _Numbered(majorities, units)


def agree(a: VoteTable, b: VoteTable, estimator: Estimator, *, named_by_position: bool) -> Row:
    """Return how far two judges' verdicts on the same things agree, row by row.

    Of comparisons the raw agreement with ties as a third value, and on what both decided the
    agreement, Cohen's κ and Gwet's AC1. Their two classes are the response that the first judge was
    shown first and the other one, so that a position that both favor counts as chance; or, not
    ``named_by_position``, the two responses counted both ways round, where κ and AC1 are both
    2 × agreement − 1. Of rankings Kendall's τ_a and the fraction with the same best response.
    """
    counts: Row = {"shared": len(a), "questions": len(np.unique(a.question))}
    if not len(a):
        return counts | _nothing_shared(a.kind)
    if a.kind == "rank":
        return counts | _agree_on_rankings(a, b, estimator)
    return counts | _agree_on_pairs(a, b, estimator, named_by_position)


def _nothing_shared(kind: str) -> Row:
    """Return the same keys as where something is shared, without values."""
    undefined: Row = {"value": None, "interval": None, "undefined": "nothing is shared"}
    if kind == "compare":
        return {"decided": 0, **dict.fromkeys(("raw", "agreement", "kappa", "ac1"), undefined)}
    return dict.fromkeys(("tau", "same_best"), undefined)


def _agree_on_rankings(a: VoteTable, b: VoteTable, estimator: Estimator) -> Row:
    signs_a = agreement.orientations(a.ranks)
    signs_b = agreement.orientations(b.ranks)
    tau = (signs_a * signs_b).mean(axis=1)
    # Of majorities several responses may be best; then all of them must be the same.
    same_best = ((a.ranks == 0) == (b.ranks == 0)).all(axis=1)
    ones = np.ones(len(a))
    undefined = "nothing is shared"
    return {
        "tau": estimator(by_question(a.question, tau, ones), fraction, undefined),
        "same_best": estimator(by_question(a.question, same_best, ones), fraction, undefined),
    }


def _agree_on_pairs(
    a: VoteTable, b: VoteTable, estimator: Estimator, named_by_position: bool
) -> Row:
    distinct_questions, question = np.unique(a.question, return_inverse=True)
    verdicts_a = verdicts(a)
    verdicts_b = verdicts(b)
    if named_by_position:
        # Both judges' verdicts are named by what judge a saw first, since one name must mean one
        # response.
        second_was_first = a.positions[:, 0] != 0
        verdicts_a = _exchanged(verdicts_a, second_was_first)
        verdicts_b = _exchanged(verdicts_b, second_was_first)
    # One confusion table for each question, so that questions can be resampled.
    cells = count_values(question, 3 * verdicts_a + verdicts_b, len(distinct_questions), 9)
    with_ties = cells.reshape(-1, 3, 3)
    both_decided = with_ties[:, :2, :2]
    decided = int(both_decided.sum())
    if not named_by_position:
        both_decided = agreement.both_ways(both_decided)
    undefined = "both judges gave one answer only" if decided else "nothing is decided by both"

    def of_decided(statistic: Callable[[Array], Array]) -> Row:
        sums = both_decided.reshape(-1, 4)
        return estimator(sums, lambda s: statistic(square_tables(s)), undefined)

    return {
        "raw": estimator(cells, lambda s: agreement.raw_agreement(square_tables(s)), ""),
        "decided": decided,
        "agreement": of_decided(agreement.raw_agreement),
        "kappa": of_decided(agreement.cohen_kappa),
        "ac1": of_decided(agreement.gwet_ac1),
    }


def _exchanged(verdicts_by_id: Numbers, to_exchange: Numbers) -> Numbers:
    """Exchange 0 and 1 in some rows; 2, a tie, has no sides."""
    is_decided = verdicts_by_id < 2
    return np.where(is_decided & to_exchange, 1 - verdicts_by_id, verdicts_by_id)
