"""Rows of ``sampled.jsonl``: a reply and what it belongs to, so that no row's place in the file
means anything.
"""

from __future__ import annotations

from typing import Any, NamedTuple, NotRequired, TypedDict

from jaxmodpo.files import Journal
from jaxmodpo.ranges import Tally
from jaxmodpo.records import Question
from jaxmodpo.schema import read_as

ReplyKey = tuple[str, int]
"""what tells one reply of a run from all others: its question's id and its number"""


class ReplySlot(NamedTuple):
    """A reply that a run is to have.

    Attributes:
        question: that is replied to.
        number: of the reply among those to this question, from 0.
    """

    question: Question
    number: int

    @property
    def key(self) -> ReplyKey:
        """What tells it from all other replies of the run."""
        return self.question.question_id, self.number


def row(question: Question, number: int, settings: str) -> dict[str, Any]:
    """Begin a reply's row; ``settings`` is a digest of all that the run's replies depend on."""
    return {"question_id": question.question_id, "number": number, "settings": settings}


def sampled(journal: Journal, settings: str) -> dict[ReplyKey, dict[str, Any]]:
    """Return the rows of these settings by their reply's key.

    A reply that stands there twice was sampled twice; the last one counts, as its batch is whole.
    """
    rows: dict[ReplyKey, dict[str, Any]] = {}
    for line, entry in enumerate(journal.rows, 1):
        # A journal may hold rows of other settings, from before somebody changed them.
        if entry.get("settings") != settings or not {"question_id", "number"} <= set(entry):
            continue
        reply = read_as(entry, _Row, f"{journal.path}, line {line}")
        rows[reply["question_id"], reply["number"]] = dict(reply)
    return rows


class _Row(TypedDict):
    """A reply and what it belongs to."""

    question_id: str
    number: Tally
    response_text: str
    ended: bool
    model: NotRequired[str]
    kind: NotRequired[str]
