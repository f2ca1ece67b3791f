"""Votes of one or several ledgers as arrays of small numbers, some seventy bytes a vote.

What is said about judges needs all votes at once: a vote that was asked again replaces an earlier
one, a persona's two votes meet, and so do two judges'. Ledgers are read as a stream
(:mod:`~jaxmodpo.evaluation.vote_reading`), and texts are kept once. The module is apart so that the
statistics see arrays, and never a database.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[Any]

COLUMNS = (
    "source",
    "unit",
    "question",
    "criterion",
    "persona",
    "repeat",
    "run",
    "status",
    "model",
)
"""the columns of a vote table that hold one number a vote, as the ledger has it"""


class Judge(NamedTuple):
    """Who gave valid votes: a judge's identity in one ledger, and the model that answered.

    The model belongs to it, since an endpoint may answer with another one than was asked for.
    """

    name: str
    ledger: str
    identity: str
    model: str


class VoteSource(NamedTuple):
    """Who was asked: a judge's identity in one ledger."""

    name: str
    ledger: str
    identity: str


@dataclass(frozen=True)
class VoteTable:
    """The votes of one kind on equally many responses, one row each; numbers index the
    :class:`Record`'s names.

    Attributes:
        kind: ``rank`` or ``compare``.
        shown: how many responses are shown.
        source: who was asked; ``judge``: who answered, −1 where nobody did.
        unit: a question with a set of responses, apart where other texts have their ids;
            ``question`` its question.
        criterion: by which; ``persona``: as whom; ``repeat``: 0, or the number of a further time of
            asking.
        run: which asked.
        status: valid, or what went wrong; ``model``: the model that is said to have answered.
        ranks: ``[votes, shown]``, of the unit's responses sorted by id: 0 is best, both 0 for a
            tie; zeros where the vote is not valid.
        positions: ``[votes, shown]``, of the same: 0 is shown first.
    """

    kind: str
    shown: int
    source: Numbers
    unit: Numbers
    question: Numbers
    criterion: Numbers
    persona: Numbers
    repeat: Numbers
    run: Numbers
    status: Numbers
    model: Numbers
    ranks: Numbers
    positions: Numbers
    judge: Numbers

    def __len__(self) -> int:
        return len(self.unit)

    def where(self, rows: Numbers) -> Self:
        """Return some of the rows: by a mask or by their numbers."""
        columns = (*COLUMNS, "ranks", "positions", "judge")
        selected: dict[str, Numbers] = {name: getattr(self, name)[rows] for name in columns}
        return replace(self, **selected)

    @property
    def order(self) -> Numbers:
        """Return a number for the order shown, equal where it is the same."""
        return together(*self.positions.T)


@dataclass(frozen=True)
class Record:
    """All votes that count, and the names behind their numbers.

    Attributes:
        tables: one for each kind and number of responses shown.
        judges: by number; so are ``sources``, ``criteria``, ``personas``, ``statuses`` and
            ``models``.
        superseded: how many votes do not count because another one under the same key does.
    """

    tables: list[VoteTable]
    judges: list[Judge]
    sources: list[VoteSource]
    criteria: list[str]
    personas: list[str]
    statuses: list[str]
    models: list[str]
    superseded: int


def together(*columns: Numbers) -> NDArray[np.int64]:
    """Combine columns into one number per row, equal where all columns are; in the order of the
    columns.
    """
    code = np.zeros(len(columns[0]), np.int64)
    # How many codes there can be so far; the next column multiplies it, like a digit of its base.
    size = 1
    for column in columns:
        values = int(column.max(initial=0)) + 1
        if size * values >= 2**62:
            # The codes that occur are far fewer than those that could: number them anew, in order.
            distinct, code = np.unique(code, return_inverse=True)
            size = len(distinct)
        code = code * values + column
        size *= values
    return code
