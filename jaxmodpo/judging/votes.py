"""What a vote is: one answer by one criterion, with what was shown, said and paid.

Scores are votes too: of a reply instead of between replies. All that makes a vote durable, such as
keys, calls, statuses and costs, is the same, and only the answer differs.

Apart from the ledger, since voting, evaluation and exports read votes wherever they were kept.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

from jaxmodpo.errors import UserError
from jaxmodpo.judging.judge import Answer, Call, Kind, Request, Status, vote_keys
from jaxmodpo.parsing import JsonObject
from jaxmodpo.schema import is_number


class Vote(NamedTuple):
    """One answer by one criterion.

    A tuple, since a million are made when an evaluation is counted, and a frozen dataclass takes
    several times as long to make.

    Attributes:
        key: of :func:`jaxmodpo.judging.judge.vote_keys`.
        kind: a ranking of all shown, the better of two, or a score of the one shown.
        question_id: as in the request; so are ``persona_id``, ``criterion`` (its name) and
            ``repeat``.
        shown: response ids in the order shown.
        order: response ids, best first, for ``rank``; the winner alone or, for a tie, nothing for
            ``compare``; None for ``score``, and unless ``status`` is valid.
        status: valid, or what went wrong.
        raw: what the judge said, by all criteria of the call.
        model: the model that answered.
        judge: the judge's identity.
        run: the run that asked.
        call: names the call; votes of one call share it.
        prompt_tokens: the call's, divided by its votes, as are ``cached_tokens``,
            ``completion_tokens`` and ``cost`` (dollars); None where unknown.
        request_id: by which the endpoint knows the call.
        time: of the answer, UTC.
        score: from 0 to 1, for ``score``; None for other kinds, and unless ``status`` is valid.
    """

    key: str
    kind: Kind
    question_id: str
    persona_id: str
    criterion: str
    repeat: int
    shown: tuple[str, ...]
    order: tuple[str, ...] | None
    status: Status
    raw: str
    model: str
    judge: str = ""
    run: str = ""
    call: str = ""
    prompt_tokens: float | None = None
    cached_tokens: float | None = None
    completion_tokens: float | None = None
    cost: float | None = None
    request_id: str = ""
    time: str = ""
    score: float | None = None


FIELDS = Vote._fields


def check_votes(request: Request, votes: Sequence[Vote]) -> None:
    """Refuse votes that stand under a request's keys and speak of something else than the request.

    A key is a hash of the request, so that such votes were changed in the database by hand.

    Args:
        request: what was asked.
        votes: one for each of its criteria, in its order.

    Raises:
        UserError: a vote names another question, persona or criterion.
    """
    expected: list[tuple[str, str, str]] = []
    for criterion in request.criteria:
        expected.append((request.question_id, request.persona_id, criterion.name))
    recorded = [(vote.question_id, vote.persona_id, vote.criterion) for vote in votes]
    if recorded != expected:
        raise UserError(
            f"the ledger's votes on question {request.question_id} are not those that were asked"
            " for: a persona, question or criterion was changed in it"
        )


def votes_of(call: Call, answer: Answer, *, judge: str, run: str) -> list[Vote]:
    """Put a request and its answer together: a vote for each criterion, in the request's order."""
    request = call.request
    shown_ids = tuple(response.response_id for response in request.responses)
    # A name of this very call. Its key is the same each time that the request is asked.
    call_id = uuid.uuid4().hex
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    paid = _use_of_each(answer, len(request.criteria))
    votes: list[Vote] = []
    for key, criterion in zip(vote_keys(call), request.criteria, strict=True):
        order = None
        score = None
        status = answer.status
        if answer.status == "valid":
            order = answer.orders.get(criterion.name)
            score = answer.scores.get(criterion.name)
            # The call succeeded, and what it says of this criterion cannot be read.
            if order is None and score is None:
                status = "parse_error"
        votes.append(
            Vote(
                key=key,
                kind=request.kind,
                question_id=request.question_id,
                persona_id=request.persona_id,
                criterion=criterion.name,
                repeat=request.repeat,
                shown=shown_ids,
                order=order,
                status=status,
                raw=answer.raw,
                model=answer.model,
                judge=judge,
                run=run,
                call=call_id,
                request_id=answer.request_id,
                time=now,
                score=score,
                **paid,
            )
        )
    return votes


def _use_of_each(answer: Answer, votes: int) -> dict[str, float]:
    """Return each vote's part of what its call used; what nobody counted is left out.

    Parts, so that sums over votes are sums over calls, whatever the votes are grouped by.
    """
    shares: dict[str, float] = {}
    if answer.usage is not None:
        shares["prompt_tokens"] = answer.usage.prompt / votes
        shares["cached_tokens"] = answer.usage.cached / votes
        shares["completion_tokens"] = answer.usage.completion / votes
    if answer.cost is not None:
        shares["cost"] = answer.cost / votes
    return shares


def as_record(vote: Vote) -> JsonObject:
    """Return a vote as plain values, for JSON Lines and Parquet."""
    record: JsonObject = {}
    for name in FIELDS:
        value = getattr(vote, name)
        record[name] = list(value) if isinstance(value, tuple) else value
    return record


def from_record(record: JsonObject, location: str) -> Vote:
    """Read :func:`as_record`'s values back.

    Raises:
        UserError: not a vote; ``location`` says which, and the message what is wrong.
    """
    if not isinstance(record, dict) or record.keys() != set(FIELDS):
        raise UserError(f"{location}: not a vote ({', '.join(FIELDS)})")
    for name, value in record.items():
        if not _fits(name, value):
            raise UserError(f"{location}: not a vote ({name} is {str(value)[:60]!r})")
    values = dict(record)
    values["shown"] = tuple(record["shown"])
    if record["order"] is not None:
        values["order"] = tuple(record["order"])
    vote = Vote(**values)
    # Whoever edits an export, or writes one with another program, is told here: a vote that no
    # judge could have given would count like any other later on.
    if fault := fault_of(vote):
        raise UserError(f"{location}: not a vote ({fault})")
    return vote


_NUMBERS = frozenset({"prompt_tokens", "cached_tokens", "completion_tokens", "cost", "score"})


def _fits(name: str, value: Any) -> bool:
    """Whether a record's value has its field's type."""
    if name in _NUMBERS:
        return value is None or is_number(value)
    if name == "repeat":
        return type(value) is int and value >= 0
    if name == "order" and value is None:
        return True
    if name in ("shown", "order"):
        is_list = isinstance(value, list | tuple)
        return is_list and all(isinstance(element, str) for element in value)
    return isinstance(value, str)


def fault_of(vote: Vote) -> str:
    """Say what keeps a vote from being one of its kind; nothing where it can be.

    A ranking puts all that is shown in order; a comparison of two names the better one, or neither;
    a score of one reply is a number from 0 to 1. A vote that failed has no answer.
    """
    if vote.kind not in get_args(Kind):
        return f"its kind is '{vote.kind}'"
    if vote.status not in get_args(Status):
        return f"its status is '{vote.status}'"
    if not _can_be_asked(vote):
        return f"'{vote.kind}' cannot be asked about {', '.join(vote.shown) or 'nothing'}"
    if vote.kind == "score":
        return _fault_of_score(vote)
    return _fault_of_order(vote)


def _can_be_asked(vote: Vote) -> bool:
    """Whether a question of the vote's kind can be about as many replies as were shown."""
    count = len(vote.shown)
    if vote.kind == "score":
        return count == 1
    too_many = vote.kind == "compare" and count > 2
    has_doubles = len(set(vote.shown)) != count
    return count >= 2 and not too_many and not has_doubles


def _fault_of_score(vote: Vote) -> str:
    if vote.order is not None:
        return "it is a score, but with an order"
    if (vote.score is None) == (vote.status == "valid"):
        contrast = "without" if vote.score is None else "but with"
        return f"it is recorded as {vote.status}, {contrast} a score"
    # Also where it is no number: nothing compares with NaN.
    if vote.score is not None and not 0.0 <= vote.score <= 1.0:
        return f"its score {vote.score} is not from 0 to 1"
    return ""


def _fault_of_order(vote: Vote) -> str:
    order = vote.order
    shown_ids = vote.shown
    if vote.score is not None:
        return f"it is a '{vote.kind}', but with a score"
    if (order is None) == (vote.status == "valid"):
        contrast = "without" if order is None else "but with"
        return f"it is recorded as {vote.status}, {contrast} an order"
    if order is None:
        return ""
    if vote.kind == "rank":
        answers_request = sorted(order) == sorted(shown_ids)
    else:
        # Nothing is a tie.
        is_winner = len(order) == 1 and order[0] in shown_ids
        answers_request = not order or is_winner
    if answers_request:
        return ""
    return (
        f"it is recorded as valid, but its order {list(order)} does not answer '{vote.kind}' for"
        f" {', '.join(shown_ids)}"
    )
