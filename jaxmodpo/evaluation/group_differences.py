"""Which comparisons a group of personas decided otherwise than all personas together.

Rates say how far groups differ on the whole; these rows say where, so that somebody can read the
replies. They go into ``group_differences.csv``, a row for every comparison and group.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import sparse

from jaxmodpo.evaluation.ballot_box import BallotBox
from jaxmodpo.evaluation.contest import Contest
from jaxmodpo.evaluation.outcomes import Outcomes
from jaxmodpo.files import Row, write_table
from jaxmodpo.statistics.panels import PanelVotes

GROUP_DIFFERENCES = "group_differences.csv"
DIFFERENCE_COLUMNS = (
    "criterion",
    "a",
    "b",
    "question_id",
    "reply",
    "dimension",
    "group",
    "votes_a",
    "votes_b",
)


def write_differences(
    folder: Path,
    contest: Contest,
    table: Outcomes,
    ballots: BallotBox,
    groups_of: Mapping[str, Sequence[str]],
    smallest: int,
) -> None:
    """Write the comparisons that groups decided otherwise than all; no file without groups.

    Args:
        folder: where to.
        contest: what was compared.
        table: the outcomes.
        ballots: every persona's verdicts.
        groups_of: each persona's group by dimension, in the order of the ballot box.
        smallest: votes of a group on a comparison below which nothing is said of it.
    """
    if not any(any(groups) for groups in groups_of.values()):
        return
    rows: list[Row] = []
    for criterion, outcomes in table.items():
        votes = ballots.votes(contest, criterion, outcomes)
        for dimension, groups in groups_of.items():
            names = {"criterion": criterion, "dimension": dimension}
            rows += [names | row for row in _differences(contest, votes, groups, smallest)]
    write_table(folder / GROUP_DIFFERENCES, rows, DIFFERENCE_COLUMNS)


def _differences(
    contest: Contest, votes: PanelVotes, groups: Sequence[str], smallest: int
) -> Iterator[Row]:
    """Yield the comparisons of which a group with enough votes prefers the other reply.

    A tie, of the group or of all, prefers none.
    """
    names = sorted({group for group in groups if group})
    if not names or not len(votes.unit):
        return
    membership = np.array([[group == name for name in names] for group in groups], np.float32)
    shape = (votes.outcomes.size, votes.personas)
    cells = (votes.unit, votes.persona)
    votes_a = _sum(votes.verdict > 0, cells, shape) @ membership
    votes_b = _sum(votes.verdict < 0, cells, shape) @ membership
    voters = _sum(np.ones(len(votes.unit)), cells, shape) @ membership
    # 1 where the first model won, −1 where the second did, 0 of a tie or without a valid vote.
    decided = np.nan_to_num(2 * votes.outcomes.ravel() - 1)[:, None]
    is_opposite = np.sign(votes_a - votes_b) * decided == -1
    pair_models = np.transpose(np.triu_indices(len(contest.models), k=1))
    for unit, group in np.argwhere(is_opposite & (voters >= smallest)):
        pair, question, reply = np.unravel_index(unit, votes.outcomes.shape)
        a, b = pair_models[pair]
        yield {
            "a": contest.models[a],
            "b": contest.models[b],
            "question_id": contest.questions[question].question_id,
            "reply": int(reply) + 1,
            "group": names[group],
            "votes_a": int(votes_a[unit, group]),
            "votes_b": int(votes_b[unit, group]),
        }


def _sum(
    weights: np.ndarray, places: tuple[np.ndarray, np.ndarray], shape: tuple[int, int]
) -> sparse.csr_array:
    """Return a sparse matrix of units by personas."""
    return sparse.csr_array((weights.astype(np.float32), places), shape)
