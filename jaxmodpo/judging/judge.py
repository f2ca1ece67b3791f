"""What a judge is: something that answers requests about the replies to one question.

A request shows a persona some replies in a recorded order and asks about one criterion or several:
for a ranking of all replies, or for the better of two. A third kind shows one reply to nobody in
particular and asks for scores by name. Whoever asks does so through the same types, so that any
judge may serve anyone, and one ledger keeps all answers.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from jaxmodpo.criteria import Criterion
from jaxmodpo.endpoints.usage import Usage
from jaxmodpo.judging.hashing import text_digest
from jaxmodpo.records import Candidate

Status = Literal[
    "valid", "parse_error", "refusal", "content_filter", "rejected", "expired", "error"
]
"""valid, or what went wrong: an answer that cannot be read, a refusal, a filter, a request that the
endpoint does not take (too long, say), a batch that ran out of time, or no answer at all (HTTP,
network)."""

Kind = Literal["rank", "compare", "score"]
"""what is asked for: a ranking of all replies, the better of two, or scores of one"""

PREFERENCES: frozenset[Kind] = frozenset({"rank", "compare"})
"""The kinds that say which replies are preferred."""

# Of a key: 16 bytes, written as 32 hexadecimal digits. Among a billion keys two are equal with a
# chance of 1 in 10^20.
_KEY_BYTES = 16


@dataclass(frozen=True)
class Request:
    """One judgment to ask for, in one call.

    Attributes:
        kind: a ranking of all responses, the better of two, or scores of one.
        question_id: the post's; so is ``question_text``, which is empty where a reply is scored
            without its post.
        persona_id: of who judges; so is ``persona_text``. Both are empty where scores are asked
            for.
        criteria: by what; one vote comes of each.
        responses: in the order shown.
        ties: whether a comparison may be answered by a tie.
        yes_no: whether scores are asked for as yes, which is 1, or no, which is 0; else each is a
            number from 0 to 1.
        repeat: 0, or the number of a further time of asking the same.
        ballot_number: the number of the ballot or unit that its votes are counted for, in the
            caller's own list. It is no part of what is asked, so that requests that ask the same
            are equal and have one key whatever their ballots.
    """

    kind: Kind
    question_id: str
    question_text: str
    persona_id: str
    persona_text: str
    criteria: tuple[Criterion, ...]
    responses: tuple[Candidate, ...]
    ties: bool = False
    yes_no: bool = field(default=False, kw_only=True)
    repeat: int = 0
    ballot_number: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Answer:
    """What a judge said to one request.

    Attributes:
        status: of the call; a criterion without an order, or a score, in a valid call is a parse
            error.
        raw: the words.
        orders: by criterion: response ids, best first, for ``rank``; the winner alone, or nothing
            for a tie, for ``compare``.
        scores: by criterion, from 0 to 1, for ``score``.
        model: the model that answered.
        usage: None where nobody counted.
        cost: dollars; None where no price is known.
        request_id: by which the endpoint knows the call.
    """

    status: Status
    raw: str
    orders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    model: str = ""
    usage: Usage | None = None
    cost: float | None = None
    request_id: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)


class Call(NamedTuple):
    """A request and the key under which its call is known: :func:`call_key`."""

    key: str
    request: Request


class Judge(Protocol):
    """Answers requests.

    ``identity`` names everything that shapes the answers; ``costs`` says whether they cost money or
    time, so that each must be kept as soon as it is there.
    """

    costs: bool

    @property
    def identity(self) -> str: ...

    def ask(self, requests: Iterator[Call], put: Callable[[Call, Answer], None]) -> None:
        """Answer all requests, in any order, drawing each only when it is about to be asked.

        ``put`` hands over an answer and returns when it is kept; it may be called from any thread.
        On ``KeyboardInterrupt`` no more are drawn, and answers under way are still put.
        """
        ...


def call_key(request: Request, identity: str) -> str:
    """Hash everything an answer depends on: the request, the order shown, and the judge's identity.

    The digests of what goes together are remembered, since a million requests share a few thousand
    posts, personas and replies. 32 hexadecimal digits.
    """
    # How many criteria there are says where they end and the responses begin.
    form = [str(request.ties), str(request.repeat), str(len(request.criteria))]
    # Only here, so that rankings and comparisons keep the keys that ledgers hold.
    if request.kind == "score":
        form.append(str(request.yes_no))
    digests = [
        _digests(identity, request.kind),
        _digests(request.question_id, request.question_text),
        _digests(request.persona_id, request.persona_text),
        _digests(*form),
    ]
    for criterion in request.criteria:
        digests.append(_criterion_digest(criterion))
    for response in request.responses:
        digests.append(_digests(response.response_id, response.response_text))
    return hashlib.blake2b(b"".join(digests), digest_size=_KEY_BYTES).hexdigest()


@functools.lru_cache(maxsize=2**17)
def _digests(*texts: str) -> bytes:
    """Return the digests of some texts, one after another."""
    return b"".join(map(text_digest, texts))


@functools.cache
def _criterion_digest(criterion: Criterion) -> bytes:
    # A criterion's wording is asked, and not its name alone: with another wording it is another
    # question, whose votes must not be taken for this one's.
    texts = (criterion.name, criterion.description, criterion.better_when, criterion.worse_when)
    digests = [text_digest(text) for text in texts]
    return hashlib.blake2b(b"".join(digests), digest_size=_KEY_BYTES).digest()


def vote_keys(call: Call) -> list[str]:
    """Return the key of each criterion's vote, in the request's order: 32 hexadecimal digits
    each.
    """
    if len(call.request.criteria) == 1:
        return [call.key]
    keys: list[str] = []
    for criterion in call.request.criteria:
        name = f"{call.key} {criterion.name}"
        keys.append(hashlib.blake2b(name.encode(), digest_size=_KEY_BYTES).hexdigest())
    return keys
