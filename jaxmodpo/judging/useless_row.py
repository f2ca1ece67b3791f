"""The sentence that ends a run whose answers are no votes, one after the other."""

from __future__ import annotations

from jaxmodpo.endpoints.useless_row import RowCounter
from jaxmodpo.errors import UserError
from jaxmodpo.judging.judge import Answer, Request


class UselessRow:
    """Watches a run's answers; :meth:`add` may be called from any thread.

    Args:
        base_url: of the endpoint, for the sentence.
    """

    def __init__(self, base_url: str):
        self._where = f"the judge at {base_url}"
        self._counter = RowCounter()

    def add(self, answer: Answer, request: Request) -> None:
        """Count an answer.

        Raises:
            UserError: it is one too many of no use.
        """
        row = self._counter.add(answer.status, request.question_id)
        last = f"the last with '{answer.raw[:300]}'"
        if row.is_unanswered:
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
