"""When answers that bring nothing, one after the other, end a run: no later answer would bring
anything, and each costs.

Judges and the sampler count here alike, each by its own names of what an answer may be; the
sentence that ends a run is their own.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

USELESS_IN_A_ROW = 30
USELESS_QUESTIONS = 3
"""So many answers in a row that bring nothing, about so many questions or more, end a run: no later
one brings any. One question alone may be too long for an endpoint, or too grave."""

FAILURES_IN_A_ROW = 20
"""So many requests without an answer, one after the other, end a run: the endpoint is not there."""


@dataclass(frozen=True)
class Row:
    """Answers, one after the other, that bring nothing.

    Attributes:
        count: how many there are.
        errors: how many of them at the end are errors, with none of another status between.
        unread: how many of them are answers that cannot be read.
        statuses: that they have.
        questions: that they are about; no more than are looked for.
    """

    count: int = 0
    errors: int = 0
    unread: int = 0
    statuses: frozenset[str] = frozenset()
    questions: frozenset[str] = frozenset()

    def after(self, status: str, question_id: str) -> Row:
        """Return the row with one more answer; a ``valid`` one ends it."""
        if status == "valid":
            return Row()
        questions = self.questions
        if len(questions) < USELESS_QUESTIONS:
            questions = questions | {question_id}
        return Row(
            count=self.count + 1,
            errors=self.errors + 1 if status == "error" else 0,
            unread=self.unread + 1 if status == "parse_error" else self.unread,
            statuses=self.statuses | {status},
            questions=questions,
        )

    @property
    def is_unanswered(self) -> bool:
        """Whether so many requests failed that the endpoint is not there."""
        return self.errors >= FAILURES_IN_A_ROW

    @property
    def is_hopeless(self) -> bool:
        """Whether the answers of the row are so many that no later one will bring anything."""
        # Refusals say something of their question, so that several are needed. An answer that
        # cannot be read does not.
        of_several_questions = (
            self.count >= USELESS_IN_A_ROW and len(self.questions) >= USELESS_QUESTIONS
        )
        return of_several_questions or self.unread >= USELESS_IN_A_ROW


class RowCounter:
    """Counts a run's answers; :meth:`add` may be called from any thread."""

    def __init__(self) -> None:
        self._row = Row()
        self._lock = threading.Lock()

    def add(self, status: str, question_id: str) -> Row:
        """Count an answer, ``valid`` or otherwise, and return the row that it is the last of."""
        with self._lock:
            self._row = self._row.after(status, question_id)
            return self._row
