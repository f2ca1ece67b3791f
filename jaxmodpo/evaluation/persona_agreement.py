"""How far personas agree: one ballot for each persona, and Krippendorff's α over them."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from jaxmodpo.evaluation.sums import (
    Estimator,
    Row,
    add_up,
    by_question,
    count_values,
    counted,
    square_tables,
    verdicts,
)
from jaxmodpo.evaluation.vote_table import Numbers, VoteTable, together
from jaxmodpo.statistics import agreement
from jaxmodpo.statistics.arrays import Array


def cast_ballots(votes: VoteTable) -> VoteTable:
    """Return one verdict for each judge, unit, criterion and persona.

    Of a persona that was asked about a pair in both orders the verdict is the evaluation's: what it
    said both times, a tie where that differs, and nothing where one vote failed, since the other
    may be the position's. Of several rankings the last counts. The order shown is that of the first
    vote.

    Args:
        votes: asked for the first time, failed ones included.
    """
    if votes.kind == "compare":
        # A failed vote has no judge, only a source; it takes the vote in the other order with it.
        request = together(votes.source, votes.unit, votes.criterion, votes.persona)
        failed_requests = request[votes.judge < 0]
        votes = votes.where(~np.isin(request, failed_requests))
    votes = votes.where(votes.judge >= 0)
    voter = together(votes.judge, votes.unit, votes.criterion, votes.persona)
    _, first_row, voter_index = np.unique(voter, return_index=True, return_inverse=True)
    if votes.kind == "compare":
        ranks = _verdict_ranks(votes, voter_index, len(first_row))
    else:
        # Later rows overwrite earlier ones, which leaves each voter's last.
        last_row = np.empty(len(first_row), np.int64)
        last_row[voter_index] = np.arange(len(votes))
        ranks = votes.ranks[last_row]
    return replace(votes.where(first_row), ranks=ranks)


def _verdict_ranks(votes: VoteTable, voter_index: Numbers, voters: int) -> Numbers:
    """Return the ranks of each voter's verdict on two responses: ``[voters, 2]``, zeros for a
    tie.
    """
    # 1 for the first response, −1 for the second, 0 for a tie.
    # Ranks are unsigned, so a difference would wrap around below zero.
    lead_of_first = votes.ranks[:, 1].astype(int) - votes.ranks[:, 0]
    preferred = np.sign(lead_of_first)
    ones = np.ones_like(preferred)
    sums = add_up(voter_index, np.stack([preferred, ones], axis=1), voters)
    balance, vote_count = sums.T
    # A response wins where every vote is for it; the other then has rank 1.
    second_won = balance == -vote_count
    first_won = balance == vote_count
    return np.stack([second_won, first_won], axis=1).astype(np.uint8)


def persona_agreement(ballots: VoteTable, estimator: Estimator) -> Row:
    """Return how far personas agree: Krippendorff's α over units with at least two votes.

    A unit of a comparison is a pair, and its values are the two responses and a tie, nominal; each
    pair counts both ways round, since which response is called a means nothing. A unit of a ranking
    is a response, and its values are ranks, ordinal; where everybody ranks everything that is the
    mean Spearman correlation of two personas.
    """
    unit, first_row, unit_index = np.unique(
        together(ballots.unit, ballots.criterion), return_index=True, return_inverse=True
    )
    level: Literal["nominal", "ordinal"]
    if ballots.kind == "compare":
        level = "nominal"
        coincidences = _of_pairs(ballots, unit_index, len(unit))
    else:
        level = "ordinal"
        coincidences = _of_rankings(ballots, unit_index, len(unit))
    vote_counts = np.bincount(unit_index, minlength=len(unit))
    has_pair = vote_counts > 1
    sums = by_question(ballots.question[first_row], coincidences)
    why_no_alpha = "all votes are the same" if has_pair.any() else "no unit has two votes"
    return counted(ballots) | {
        "units": int(has_pair.sum()),
        "units_with_one_vote": int((~has_pair).sum()),
        "level": level,
        "alpha": estimator(
            sums,
            lambda s: agreement.krippendorff_alpha(square_tables(s), level),
            why_no_alpha,
        ),
        "agreement": estimator(
            sums, lambda s: agreement.raw_agreement(square_tables(s)), "no unit has two votes"
        ),
    }


def _of_pairs(ballots: VoteTable, unit_index: Numbers, units: int) -> Array:
    """Return the coincidences of verdicts: ``[units, 3, 3]``."""
    counts = count_values(unit_index, verdicts(ballots), units, 3)
    return agreement.both_ways(agreement.coincidences(counts))


def _of_rankings(ballots: VoteTable, unit_index: Numbers, units: int) -> Array:
    """Return the coincidences of the ranks of each response, added up over a unit's responses:
    ``[units, ranks, ranks]``.
    """
    counts_by_response: list[Array] = []
    for ranks in ballots.ranks.T:
        counts_by_response.append(count_values(unit_index, ranks, units, ballots.shown))
    counts = np.stack(counts_by_response, axis=1)
    return agreement.coincidences(counts).sum(axis=1)
