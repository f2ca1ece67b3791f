"""A judge that hands its requests to OpenAI's Batch API: half the price, within a day.

The module owns the promise that nothing is paid twice and nothing lost over hours in which the
process may die. A batch is written down, with a tag that it carries at the endpoint, before it is
created; its requests are claimed in its name, and a later run finds it, reads it and goes on. What
a batch did not come to is asked again in another one.

Its parts, in the order in which a request meets them: :mod:`jaxmodpo.judging.batch_writer` writes
requests into files (:mod:`jaxmodpo.judging.batch_files`), :mod:`jaxmodpo.judging.batch_run` moves
batches through their states and calls the endpoint (:mod:`jaxmodpo.judging.batch_api`), and
:mod:`jaxmodpo.judging.batch_answers` reads what came back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxmodpo.endpoints.usage import Usage
from jaxmodpo.errors import UserError
from jaxmodpo.judging.batch_run import BatchRun
from jaxmodpo.judging.budget import Budget
from jaxmodpo.judging.judge import Answer, Call, Request
from jaxmodpo.judging.ledger import Ledger

if TYPE_CHECKING:
    from openai import OpenAI

    from jaxmodpo.judging.endpoint import EndpointJudge

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class BatchJudge:
    """Asks a model through the Batch API. Votes are interchangeable with the endpoint judge's.

    Statuses: those of ``parse_completion`` for what was answered; ``content_filter``; ``expired``
    where a request was not come to in ``rounds`` batches; ``error`` for everything else, with the
    endpoint's words.

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
    costs: bool = field(init=False, default=True)

    @classmethod
    def of(
        cls,
        judge: EndpointJudge,
        ledger: Ledger,
        folder: Path,
        discount: float,
        *,
        poll_seconds: float = 60.0,
    ) -> BatchJudge:
        """Make the batch judge that asks what an endpoint judge would ask, within its budget."""
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

    def ask(self, requests: Iterator[Call], put: Callable[[Call, Answer], None]) -> None:
        """Read the batches of an earlier start, then answer all requests.

        On Ctrl-C batches stay at the endpoint, and the next start reads them.

        Raises:
            UserError: what will hold for every request (key, model, credit, budget), an endpoint
                that does not answer, or the files of an unread batch are gone.
        """
        run = BatchRun(self, put)
        try:
            run.take_over()
            while True:
                # Twice, before and after drawing: what an earlier round left waiting is sent
                # before new requests are claimed, and what was just drawn need not wait for the
                # next poll.
                run.send()
                run.take_requests(requests)
                run.send()
                if run.is_done:
                    break
                if not run.poll():
                    time.sleep(self.poll_seconds)
        except BaseException as error:
            if run.running and isinstance(error, KeyboardInterrupt | UserError):
                logger.warning(
                    "the endpoint goes on with what it has (batches: %d); the same command reads"
                    " it, within 30 days",
                    len(run.running),
                )
            raise
        finally:
            run.leave()
        # Only now, when everything that was paid for is read.
        if run.refusal is not None:
            raise run.refusal

    def discounted(self, dollars: float | None) -> float | None:
        """Return the price of a call through the Batch API; None where no price is known."""
        if dollars is None:
            return None
        return dollars * (1 - self.discount)
