"""What an ended batch says of each of its requests, as the answers that a call would have brought.

Apart from the run of batches, because it decides nothing: it reads the endpoint's two files, one of
answers and one of errors, in any order and with lines missing, and gives every request one outcome.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from jaxmodpo.endpoints.failures import ACCOUNT_CODES
from jaxmodpo.judging.batch_api import BatchAPI
from jaxmodpo.judging.batch_context import BatchContext
from jaxmodpo.judging.batch_files import BatchFiles
from jaxmodpo.judging.batch_outcomes import EXPIRED, Outcome, outcomes
from jaxmodpo.judging.judge import Answer, Call, Status, vote_keys

if TYPE_CHECKING:
    from openai.types import Batch as EndpointsBatch

Item = TypeVar("Item")

# Outcomes are looked up in the ledger, and their answers kept, so many together.
_TOGETHER = 512


@dataclass(eq=False)
class BatchAnswers:
    """The outcomes of one batch that ended.

    Attributes:
        context: of the judge whose batch it is.
        api: where its files are downloaded.
        files: the batch's own.
        ended: the batch as the endpoint shows it.
        model: that was asked for.
        resumed: whether an earlier process may have put some of the answers.
    """

    context: BatchContext
    api: BatchAPI
    files: BatchFiles
    ended: EndpointsBatch
    model: str
    resumed: bool
    _offsets: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self._offsets = self.files.offsets()

    def outcomes(self) -> Iterator[list[tuple[Call, Outcome]]]:
        """Yield an outcome for each request that no earlier process put, some hundreds together."""
        for group in _in_lists(self._every_outcome(), _TOGETHER):
            yield self._not_yet_put(group) if self.resumed else group

    def _every_outcome(self) -> Iterator[tuple[Call, Outcome]]:
        """Yield an outcome for each request of the batch, once: of its output, its errors, or its
        absence in both.

        Request ids come as they are kept, since a resumed batch compares them with those of votes.
        """
        unread = {call.key: call for call in self.files.calls()}
        line_numbers = {key: number for number, key in enumerate(unread, 1)}
        file_ids = {"output": self.ended.output_file_id, "errors": self.ended.error_file_id}
        for kind, file_id in file_ids.items():
            if not file_id:
                continue
            path = self.files.answers(kind)
            self.api.download(file_id, path)
            for outcome in outcomes(path):
                # A request that has a line already, or that is none of this batch's, is passed
                # over.
                call = unread.pop(outcome.key, None)
                if call is not None:
                    yield call, self._with_clean_id(outcome)
        for key, call in unread.items():
            outcome = _absent(key, line_numbers[key], self.ended)
            yield call, self._with_clean_id(outcome)

    def _with_clean_id(self, outcome: Outcome) -> Outcome:
        return outcome._replace(request_id=self.context.redact_name(outcome.request_id))

    def _not_yet_put(self, group: list[tuple[Call, Outcome]]) -> list[tuple[Call, Outcome]]:
        """Leave out what an earlier process put before it died: its votes have the outcome's
        request id.
        """
        # One key for each call will do, since a call's votes are written in one transaction: all
        # of them are there, or none.
        first_keys = {call.key: vote_keys(call)[0] for call, _ in group}
        votes = self.context.ledger.votes(list(first_keys.values()))
        not_yet_put: list[tuple[Call, Outcome]] = []
        for call, outcome in group:
            vote = votes.get(first_keys[call.key])
            # A vote of another request id is of an earlier round, or of a call that failed.
            if vote is None or vote.request_id != outcome.request_id:
                not_yet_put.append((call, outcome))
        return not_yet_put

    def with_texts(self, call: Call) -> Call:
        """Return a request with what was sent as its persona's text, since an endpoint's words may
        repeat it.
        """
        if call.key not in self._offsets:
            return call
        sent = self.files.sent(self._offsets[call.key])
        return Call(call.key, replace(call.request, persona_text=sent))

    def answer(self, call: Call, outcome: Outcome) -> Answer:
        """Return what a request's outcome amounts to; ``call`` comes :meth:`with_texts`."""
        if outcome.answered:
            answer = self.context.parse_completion(outcome.completion, call.request)
            cost = self.context.discounted(answer.cost)
            request_id = outcome.request_id or answer.request_id
            return replace(answer, cost=cost, request_id=request_id)
        words = self.context.redact_words(outcome.message, call.request)
        return Answer(_status(outcome), words, model=self.model, request_id=outcome.request_id)


def _status(outcome: Outcome) -> Status:
    """Return the status of a request that was not answered."""
    if outcome.code in ("content_filter", "content_policy_violation"):
        return "content_filter"
    if outcome.code == EXPIRED:
        return "expired"
    if outcome.code in ACCOUNT_CODES or outcome.message.startswith("HTTP 402"):
        # Of the account, not of the request: the same command asks it again once the account is
        # paid.
        return "error"
    if outcome.message.startswith("HTTP 4") and not outcome.passing:
        return "rejected"
    return "error"


def _absent(key: str, number: int, ended: EndpointsBatch) -> Outcome:
    """Return what became of a request, the ``number``-th line of its batch, that no file speaks
    of.
    """
    unanswered = Outcome(key, answered=False, request_id=ended.id)
    if ended.status == "failed":
        return _absent_of_failed(unanswered, number, ended)
    if ended.status == "expired":
        message = "the batch expired before it came to this request"
        return unanswered._replace(code=EXPIRED, message=message, passing=True)
    if ended.status == "cancelled":
        # Somebody cancelled it on purpose, so that it is not sent again by itself.
        return unanswered._replace(code="batch_cancelled", message="the batch was cancelled")
    message = (
        "neither the output nor the errors of the batch have a line for this request that can be"
        " read"
    )
    return unanswered._replace(code="no_line", message=message, passing=True)


def _absent_of_failed(unanswered: Outcome, number: int, ended: EndpointsBatch) -> Outcome:
    """Return what became of a request whose batch was refused as a whole."""
    errors = ended.errors.data if ended.errors else None
    for error in errors or ():
        if error.line == number:
            # This very line was at fault, and would be again.
            message = f"refused: {error.message}"
            return unanswered._replace(code=error.code or "", message=message)
    message = "the batch failed"
    if errors:
        first_error = errors[0]
        message = f"the batch failed: {first_error.code}: {first_error.message}"
    return unanswered._replace(code="batch_failed", message=message, passing=True)


def _in_lists(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while group := list(itertools.islice(iterator, size)):
        yield group
