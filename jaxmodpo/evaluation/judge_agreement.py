"""How far two judges agree: vote by vote, and on the majorities of what both decided."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np

from jaxmodpo.evaluation import agreement
from jaxmodpo.evaluation.sums import (
    ALL,
    Estimator,
    Row,
    add_up,
    by_question,
    count_values,
    share,
    square_tables,
    verdicts,
)
from jaxmodpo.evaluation.vote_table import Numbers, Record, VoteTable, together


def compare_judges(record: Record, ballots: VoteTable, estimator: Estimator) -> list[Row]:
    """Compare every two judges on what both voted on, and on the majorities of units that both
    decided.
    """
    voter = together(ballots.unit, ballots.criterion, ballots.persona)
    unit = together(ballots.unit, ballots.criterion)
    own = {
        n: np.flatnonzero(ballots.judge == n)
        for n in range(len(record.judges))
        if (ballots.judge == n).any()
    }
    decided = {n: _majorities(ballots.where(rows), unit[rows]) for n, rows in own.items()}
    found = []
    for a, b in itertools.combinations(own, 2):
        _, left, right = np.intersect1d(voter[own[a]], voter[own[b]], return_indices=True)
        votes = ballots.where(own[a][left]), ballots.where(own[b][right])
        _, left, right = np.intersect1d(decided[a][0], decided[b][0], return_indices=True)
        units = decided[a][1].where(left), decided[b][1].where(right)
        names = {
            "a": record.judges[a].name,
            "b": record.judges[b].name,
            "kind": ballots.kind,
            "shown": ballots.shown,
        }
        met = np.unique(units[0].criterion)
        for criterion in [
            *sorted(met, key=record.criteria.__getitem__),
            *([None] if len(met) != 1 else []),
        ]:
            (one, other), (unit_one, unit_other) = (
                (_by(left, criterion), _by(right, criterion)) for left, right in (votes, units)
            )
            found.append(
                names
                | {
                    "criterion": ALL if criterion is None else record.criteria[criterion],
                    "votes": agree(one, other, estimator, named_by_position=True),
                    "majorities": agree(unit_one, unit_other, estimator, named_by_position=False),
                }
            )
    return found


def _by(votes: VoteTable, criterion: Any) -> VoteTable:
    return votes if criterion is None else votes.where(votes.criterion == criterion)


def _majorities(ballots: VoteTable, unit: Numbers) -> tuple[Numbers, VoteTable]:
    """Return the units' numbers and, as one vote each, what their votes amount to.

    Responses stand in the order of their mean rank, and equal ones share a rank: of a comparison
    the one with more votes is first, and as many are a tie.
    """
    units, at, inverse = np.unique(unit, return_index=True, return_inverse=True)
    total = add_up(inverse, ballots.ranks, len(units))
    better = (total[:, :, None] > total[:, None, :]).sum(axis=2)
    return units, replace(ballots.where(at), ranks=better.astype(np.uint8))


def agree(
    one: VoteTable, other: VoteTable, estimator: Estimator, *, named_by_position: bool
) -> Row:
    """Return how far two judges' verdicts on the same things agree, row by row.

    Of comparisons the raw agreement with ties as a third value, and on what both decided the
    agreement, Cohen's κ and Gwet's AC1. Their two classes are the response that the first judge was
    shown first and the other one, so that a position that both favour counts as chance; or, not
    ``named_by_position``, the two responses counted both ways round, where κ and AC1 are both
    2 × agreement − 1. Of rankings Kendall's τ_a and the share with the same best response.
    """
    counted = {"shared": len(one), "questions": len(np.unique(one.question))}
    why = "nothing is shared"
    if not len(one):
        nothing: Row = {"value": None, "interval": None, "undefined": why}
        names = (
            ("raw", "agreement", "kappa", "ac1") if one.kind == "compare" else ("tau", "same_best")
        )
        return (
            counted
            | ({"decided": 0} if one.kind == "compare" else {})
            | dict.fromkeys(names, nothing)
        )
    if one.kind == "rank":
        tau = (agreement.orientations(one.ranks) * agreement.orientations(other.ranks)).mean(axis=1)
        best = ((one.ranks == 0) == (other.ranks == 0)).all(axis=1)
        return counted | {
            name: estimator(by_question(one.question, value, np.ones(len(one))), share, why)
            for name, value in (("tau", tau), ("same_best", best))
        }
    return counted | _agree_on_pairs(one, other, estimator, named_by_position)


def _agree_on_pairs(
    one: VoteTable, other: VoteTable, estimator: Estimator, named_by_position: bool
) -> Row:
    _, question = np.unique(one.question, return_inverse=True)
    said, said_too = verdicts(one), verdicts(other)
    if named_by_position:
        turned = one.positions[:, 0] != 0
        said, said_too = (np.where((v < 2) & turned, 1 - v, v) for v in (said, said_too))
    three = count_values(question, 3 * said + said_too, int(question.max()) + 1, 9).reshape(
        -1, 3, 3
    )
    two = three[:, :2, :2]
    decided = int(two.sum())
    if not named_by_position:
        two = agreement.both_ways(two)
    why = "both judges gave one answer only" if decided else "nothing is decided by both"
    return {
        "raw": estimator(
            three.reshape(-1, 9), lambda s: agreement.raw_agreement(square_tables(s)), ""
        ),
        "decided": decided,
        **{
            name: estimator(two.reshape(-1, 4), lambda s, f=statistic: f(square_tables(s)), why)
            for name, statistic in (
                ("agreement", agreement.raw_agreement),
                ("kappa", agreement.cohen_kappa),
                ("ac1", agreement.gwet_ac1),
            )
        },
    }
