"""Rows of ``sampled.jsonl``: a reply and what it belongs to, so that no row's place in the file
means anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

from jaxmodpo.errors import UserError
from jaxmodpo.journals import Journal
from jaxmodpo.records import FinishReason, Question
from jaxmodpo.results.manifest import Identity
from jaxmodpo.schema import Tally, read_as

ReplyKey = tuple[str, int, str]
"""what tells one reply of a run from all others: its question's id, its number and its model"""


class PlannedReply(NamedTuple):
    """A reply that a run is to have.

    Attributes:
        question: that is replied to.
        number: of the reply among this model's to this question, from 0.
        model: the name of the model that replies; empty where the run has but one.
    """

    question: Question
    number: int
    model: str = ""

    @property
    def key(self) -> ReplyKey:
        """What tells it from all other replies of the run."""
        return self.question.question_id, self.number, self.model


def plan_replies(
    questions: Sequence[Question], samples: int, models: Sequence[str] = ("",)
) -> list[PlannedReply]:
    """Return every reply that there will be: of each model, to each question, so many."""
    planned_replies: list[PlannedReply] = []
    for model in models:
        for question in questions:
            for number in range(samples):
                planned_replies.append(PlannedReply(question, number, model))
    return planned_replies


def settings_key_of(identity: Identity) -> str:
    """Return a digest of all that a run's replies depend on, which every row of its journal has."""
    return identity.digest()[:16]


def refuse_empty_questions(planned_replies: Sequence[PlannedReply]) -> None:
    """Refuse a question without text before anything is asked: a model would reply to the
    instruction alone, and be paid for it.
    """
    for planned_reply in planned_replies:
        if not planned_reply.question.question_text.strip():
            raise UserError(
                f"the question {planned_reply.question.question_id} has no text to reply to; give"
                " it one, or take it out of the file of questions"
            )


def row(planned_reply: PlannedReply, settings: str) -> dict[str, Any]:
    """Begin a reply's row; ``settings`` is a digest of all that the run's replies depend on."""
    return {
        "question_id": planned_reply.question.question_id,
        "number": planned_reply.number,
        "model_name": planned_reply.model,
        "settings": settings,
    }


def sampled(journal: Journal, settings: str) -> dict[ReplyKey, dict[str, Any]]:
    """Return a journal's rows of these settings by their reply's key."""
    return rows_by_key(journal.rows, journal.path, settings)


def rows_by_key(
    entries: Sequence[Mapping[str, Any]], path: Path, settings: str
) -> dict[ReplyKey, dict[str, Any]]:
    """Return rows of these settings by their reply's key.

    A reply that stands there twice was sampled twice; the last one counts, as its batch is whole.

    Args:
        entries: a journal's lines.
        path: of the journal, for errors.
        settings: digest of a run's settings.
    """
    rows: dict[ReplyKey, dict[str, Any]] = {}
    for line, entry in enumerate(entries, 1):
        # A journal may hold rows of other settings, from before somebody changed them.
        if entry.get("settings") != settings or not {"question_id", "number"} <= set(entry):
            continue
        reply = read_as(entry, _Row, f"{path}, line {line}")
        key = reply["question_id"], reply["number"], reply.get("model_name", "")
        rows[key] = dict(reply)
    return rows


class _Row(TypedDict):
    """A reply and what it belongs to."""

    question_id: str
    number: Tally
    response_text: str
    finish_reason: FinishReason
    tokens: NotRequired[Tally | None]
    prompt_tokens: NotRequired[Tally | None]
    cached_tokens: NotRequired[Tally | None]
    model_name: NotRequired[str]
    model: NotRequired[str]
    kind: NotRequired[str]
