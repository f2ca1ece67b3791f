"""Rows of ``sampled.jsonl``: a reply and what it belongs to, so that no row's place in the file
means anything.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from jaxmodpo.files import Journal
from jaxmodpo.ranges import Tally
from jaxmodpo.records import Question
from jaxmodpo.schema import read_as


def place(question: Question, number: int) -> tuple[str, int]:
    """Return what tells one reply of a run from all others."""
    return question.question_id, number


def row(question: Question, number: int, settings: str) -> dict[str, Any]:
    """Begin a reply's row; ``settings`` is a digest of all that the run's replies depend on."""
    return {"question_id": question.question_id, "number": number, "settings": settings}


def sampled(journal: Journal, settings: str) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the replies of these settings by their place.

    A reply that stands there twice was sampled twice; the last one counts, as its batch is whole.
    """
    mine = (
        read_as(entry, _Row, f"{journal.path}, line {number}")
        for number, entry in enumerate(journal.rows, 1)
        if entry.get("settings") == settings and {"question_id", "number"} <= set(entry)
    )
    return {(entry["question_id"], entry["number"]): dict(entry) for entry in mine}


class _Row(TypedDict):
    """A reply and what it belongs to."""

    question_id: str
    number: Tally
    response_text: str
    ended: bool
    model: NotRequired[str]
    kind: NotRequired[str]
