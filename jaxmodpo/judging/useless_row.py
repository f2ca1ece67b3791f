"""When answers that are no votes, one after the other, end a run: no later answer would be a vote,
and each costs.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from jaxmodpo.errors import UserError
from jaxmodpo.failures import USELESS_IN_A_ROW, USELESS_QUESTIONS
from jaxmodpo.judging.judge import Answer, Request

FAILURES_IN_A_ROW = 20
"""So many requests without an answer, one after the other, end a run: the endpoint is not there."""


@dataclass(frozen=True)
class _Row:
    """Answers, one after the other, that are no votes.

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

    def after(self, answer: Answer, request: Request) -> _Row:
        """Return the row with one more answer; a vote ends it."""
        if answer.status == "valid":
            return _Row()
        questions = self.questions
        if len(questions) < USELESS_QUESTIONS:
            questions = questions | {request.question_id}
        return _Row(
            count=self.count + 1,
            errors=self.errors + 1 if answer.status == "error" else 0,
            unread=self.unread + 1 if answer.status == "parse_error" else self.unread,
            statuses=self.statuses | {answer.status},
            questions=questions,
        )

    @property
    def is_hopeless(self) -> bool:
        """Whether the answers of the row are so many that no later one will be a vote."""
        # Refusals say something of their question, so that several are needed. An answer that
        # cannot be read does not.
        of_several_questions = (
            self.count >= USELESS_IN_A_ROW and len(self.questions) >= USELESS_QUESTIONS
        )
        return of_several_questions or self.unread >= USELESS_IN_A_ROW


class UselessRow:
    """Watches a run's answers; :meth:`add` may be called from any thread.

    Args:
        base_url: of the endpoint, for the sentence.
    """

    def __init__(self, base_url: str):
        self._where = f"the judge at {base_url}"
        self._row = _Row()
        self._lock = threading.Lock()

    def add(self, answer: Answer, request: Request) -> None:
        """Count an answer.

        Raises:
            UserError: it is one too many of no use.
        """
        with self._lock:
            self._row = self._row.after(answer, request)
            row = self._row
        last = f"the last with '{answer.raw[:300]}'"
        if row.errors >= FAILURES_IN_A_ROW:
            raise UserError(
                f"{self._where} failed {row.errors} requests in a row, {last}; nothing is lost:"
                " mend it and run the same command again"
            )
        if row.is_hopeless and answer.status != "error":
            fault = f"were no votes ({', '.join(sorted(row.statuses))})"
            if row.statuses == {"parse_error"}:
                fault = "could not be read"
            raise UserError(
                f"{self._where}: {row.count} answers in a row {fault}, {last}; another"
                " --judge-model, --structured json_object or a larger --max-answer-tokens may"
                " help, and --retry-errors asks failed votes again"
            )
