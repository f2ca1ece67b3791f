"""A judge that hands its requests to OpenAI's Batch API: half the price, within a day.

The module owns the promise that nothing is paid twice and nothing lost over hours in which the
process may die. A batch is written down, with a tag that it carries at the endpoint, before it is
created; its requests are claimed in its name, and a later run finds it, reads it and goes on. What
a batch did not come to is asked again in another one.

Its parts, in the order in which a request meets them (all know
:mod:`jaxmodpo.judging.batch_context`): :mod:`jaxmodpo.judging.batch_writer` writes
requests into files (:mod:`jaxmodpo.judging.batch_files`), :mod:`jaxmodpo.judging.batch_run` moves
batches through their states and calls the endpoint (:mod:`jaxmodpo.judging.batch_api`), and
:mod:`jaxmodpo.judging.batch_answers` reads what came back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from jaxmodpo.errors import UserError
from jaxmodpo.judging.batch_context import BatchContext
from jaxmodpo.judging.batch_run import BatchRun
from jaxmodpo.judging.judge import Answer, Call

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class BatchJudge:
    """Asks a model through the Batch API. Votes are interchangeable with the endpoint judge's.

    Statuses: those of ``parse_completion`` for what was answered; ``content_filter``; ``expired``
    where a request was not come to in ``rounds`` batches; ``error`` for everything else, with the
    endpoint's words.

    Attributes:
        context: whom it asks, what it may spend, and where answers go.
    """

    context: BatchContext
    costs: bool = field(init=False, default=True)

    @property
    def identity(self) -> str:
        return self.context.identity

    def ask(self, requests: Iterator[Call], put: Callable[[Call, Answer], None]) -> None:
        """Read the batches of an earlier start, then answer all requests.

        On Ctrl-C batches stay at the endpoint, and the next start reads them.

        Raises:
            UserError: what will hold for every request (key, model, credit, budget), an endpoint
                that does not answer, or the files of an unread batch are gone.
        """
        run = BatchRun(self.context, put)
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
                    time.sleep(self.context.poll_seconds)
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
