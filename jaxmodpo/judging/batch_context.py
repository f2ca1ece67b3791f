"""What all parts of a batch judge need: the endpoint's client, the ledger, the budget and a batch's
limits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxmodpo.endpoints.usage import Usage
from jaxmodpo.judging.budget import Budget
from jaxmodpo.judging.judge import Answer, Request
from jaxmodpo.judging.ledger import Ledger

if TYPE_CHECKING:
    from openai import OpenAI

    from jaxmodpo.judging.endpoint import EndpointJudge


@dataclass(eq=False)
class BatchContext:
    """Whom a batch judge asks, what it may spend, and where answers go.

    Attributes:
        client: makes no attempts of its own.
        ledger: the one that the answers are kept in; it also keeps the batches and whose each
            request is.
        folder: for the files of batches; they are deleted once read.
        body: returns the JSON body of one chat completion.
        parse_completion: turns a chat completion, or whatever was sent for one, into an answer.
        identity: the endpoint judge's.
        discount: the share of the price that is taken off the costs of the answers.
        budget: what may be spent; what is in batches that are under way counts as its mean call so
            far.
        price: dollars for a call's tokens, undiscounted: what a call counts for while there is no
            mean.
        poll_seconds: between two looks at the batches.
        max_requests: of one batch.
        max_bytes: of one batch's input file.
        max_batches: at the endpoint at once.
        rounds: batches in which a request that was not come to is asked, at most.
        backoff: seconds before a failed call's second attempt.
        redact_words: returns what an endpoint said without the key and without the request's own
            texts.
        redact_name: returns a name that an endpoint gave without the key, and of a length that
            names have.
        watch: takes each answer in turn, and raises where one after the other was of no use.
    """

    client: OpenAI
    ledger: Ledger
    folder: Path
    body: Callable[[Request], dict[str, Any]]
    parse_completion: Callable[[Any, Request], Answer]
    identity: str
    discount: float = 0.0
    budget: Budget = field(default_factory=Budget)
    price: Callable[[Usage], float | None] = lambda usage: None
    poll_seconds: float = 60.0
    max_requests: int = 50_000
    max_bytes: int = 200_000_000
    max_batches: int = 20
    rounds: int = 3
    backoff: float = 1.0
    redact_words: Callable[[str, Request], str] = lambda text, request: text
    redact_name: Callable[[str], str] = lambda text: text
    watch: Callable[[Answer, Request], None] = lambda answer, request: None

    @classmethod
    def of(
        cls,
        judge: EndpointJudge,
        ledger: Ledger,
        folder: Path,
        discount: float,
        *,
        poll_seconds: float = 60.0,
    ) -> BatchContext:
        """Make the context in which an endpoint judge's requests are asked, within its budget."""
        return cls(
            client=judge.client,
            ledger=ledger,
            folder=folder,
            body=judge.body,
            parse_completion=judge.read,
            identity=judge.identity,
            discount=discount,
            budget=judge.budget,
            price=judge.family.cost,
            poll_seconds=poll_seconds,
            redact_words=judge.redact,
            redact_name=judge.redaction.name,
            watch=judge.row.add,
        )

    def discounted(self, dollars: float | None) -> float | None:
        """Return the price of a call through the Batch API; None where no price is known."""
        if dollars is None:
            return None
        return dollars * (1 - self.discount)
