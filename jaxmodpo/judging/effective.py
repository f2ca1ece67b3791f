"""Which of several votes under one key counts: the effective vote.

The same may be asked more than once, since a call failed or a criterion could not be read. The
ledger keeps all of these votes, and one under each key is effective: the newest valid one, or the
newest where none is valid. The rule stands here alone, once for each form that votes are held in:
rows of a database, and columns of numbers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sql
from numpy.typing import NDArray

from jaxmodpo.judging.tables import VOTES


def is_effective(run: str | None = None) -> sql.ColumnElement[bool]:
    """Return the condition that a row of the votes is effective; with ``run``, among that run's
    votes alone.

    Other votes are looked up by the vote's key, which has an index, so that a million votes need no
    sort.
    """
    vote = VOTES.c
    rival = VOTES.alias("rival").c
    is_valid = vote.status == "valid"
    rival_is_valid = rival.status == "valid"
    is_newer = rival.id > vote.id
    # A rival under the same key takes a vote's place in two ways: it is valid and the vote is not,
    # whichever is newer; or it is newer and no worse. A failed vote never replaces a valid one.
    is_better = rival_is_valid & ~is_valid
    is_no_worse = rival_is_valid | ~is_valid
    replaces = is_better | (is_newer & is_no_worse)
    condition = (rival.key == vote.key) & replaces
    if run is not None:
        condition &= rival.run == run
    return ~sql.exists().where(condition)


class Effective(NamedTuple):
    """Where effective votes stand, and where a vote under the same key stood first; one of each for
    every key.
    """

    positions: NDArray[np.int64]
    first: NDArray[np.int64]


def effective_positions(keys: NDArray[Any], valid: NDArray[np.bool_]) -> Effective:
    """Find the effective votes among columns of votes, oldest first.

    Args:
        keys: ``[votes, parts]``, numbers that are equal where votes have one key.
        valid: ``[votes]``, whether a vote is valid.

    Returns:
        Positions among the votes, in the order of the effective votes.
    """
    # Sorted by key, then failed before valid, then oldest before newest, since the sort is stable:
    # the effective vote is the last of its key.
    #
    #     key      a a a b b      sorted, with the status and the position of each vote
    #     status   x v v x x      x failed, v valid: the last of a is the newest valid one, the last
    #     position 2 0 5 1 4      of b the newest, since b has no valid one
    #
    # (lexsort takes its last key as the first to sort by.)
    by_key = np.lexsort((valid, *keys.T))
    sorted_keys = keys[by_key]
    differs_from_next = (sorted_keys[1:] != sorted_keys[:-1]).any(axis=1)
    is_last = np.append(differs_from_next, True)
    is_first = np.append(True, differs_from_next)
    positions = by_key[is_last]
    first = np.minimum.reduceat(by_key, np.flatnonzero(is_first))
    in_order = np.argsort(positions)
    return Effective(positions[in_order], first[in_order])
