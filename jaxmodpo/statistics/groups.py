"""Win rates by group of personas: whether young and old, or women and men, prefer the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxmodpo.statistics.arrays import Array
from jaxmodpo.statistics.bootstrap import RESAMPLES, estimate

SMALLEST_GROUP = 5
"""personas below which nothing is shown of a group: a figure would be one person's"""


class GroupRate(NamedTuple):
    """One group's share of votes for the first model of a pair."""

    group: str
    personas: int
    votes: int
    rate: float | None
    """mean vote, a tie counting half; None where nothing is shown"""
    interval: tuple[float, float] | None
    """95% over the personas of the group; None where there is none"""
    hidden: str
    """why nothing is shown; empty where something is"""


def rates_by_group(
    votes: ArrayLike,
    personas: ArrayLike,
    group_of_persona: Sequence[str],
    *,
    smallest: int = SMALLEST_GROUP,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[GroupRate]:
    """Return the mean vote of each group, in the order of its names.

    A group's figure is of votes and not of majorities: a majority of few personas is not that of
    many, so that groups of unequal size would differ by their size alone. Its interval resamples
    the personas of the group, who are what is few.

    Args:
        votes: 1 for the first model, 0 for the second, 0.5 for a tie: ``[votes]``.
        personas: who gave each, ``[votes]``, from 0.
        group_of_persona: each persona's group; an empty text belongs to none.
        smallest: groups with fewer personas who voted are counted and not shown.
        resamples: of the personas.
        seed: of the draws.
    """
    votes = np.asarray(votes, np.float64)
    personas = np.asarray(personas, np.int64)
    group_names = np.asarray(group_of_persona, dtype=object)
    count = len(group_names)
    # One row a persona: the sum of its votes, and how many there are.
    vote_sums = np.bincount(personas, votes, count)
    vote_counts = np.bincount(personas, minlength=count)
    sums = np.stack([vote_sums, vote_counts], axis=1)
    has_voted = vote_counts > 0
    rates: list[GroupRate] = []
    for group in sorted(set(group_of_persona) - {""}):
        of_group = sums[(group_names == group) & has_voted]
        total = int(of_group[:, 1].sum())
        if len(of_group) < smallest:
            reason = f"fewer than {smallest} personas"
            rates.append(GroupRate(group, len(of_group), total, None, None, reason))
            continue
        group_estimate = estimate(of_group, _mean_vote, "", resamples=resamples, seed=seed)
        interval = group_estimate["interval"]
        ends = (interval[0], interval[1]) if interval else None
        rates.append(GroupRate(group, len(of_group), total, group_estimate["value"], ends, ""))
    return rates


def _mean_vote(sums: Array) -> Array:
    """Return the mean vote: ``[..., 2]`` sums and numbers of votes to ``[...]``."""
    votes = sums[..., 0]
    count = sums[..., 1]
    return votes / count
