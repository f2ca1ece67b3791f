"""Calls that are made again where that may help, by many threads that an endpoint slows down
together.

Judges and the sampler are patient alike, since what they ask for is alike: one chat completion for
each request, thousands of requests, and an endpoint that now and then fails, is full or gives up
for good. What a completion means is for each of them to say, in an :class:`Errand`::

    calls = PatientCalls(
        base_url, key, "the endpoint at …", timeout=300, attempts=5, max_concurrency=8
    )

    def work(errand):
        reply = calls.run(errand)        # None where the run is to stop
        if reply is not None:
            keep(reply)

    calls.run_all(errands, work)
"""

from __future__ import annotations

import abc
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from jaxmodpo.endpoints.address import http_client, make_client
from jaxmodpo.endpoints.chat_calls import (
    CHAT,
    Completion,
    FailedCall,
    LimitName,
    Service,
    TokenLimit,
    post,
)
from jaxmodpo.endpoints.failures import HOPELESS, Failure, Meaning
from jaxmodpo.endpoints.pool import Limiter, drain
from jaxmodpo.endpoints.waits import pause_before
from jaxmodpo.errors import UserError
from jaxmodpo.parsing import JsonObject

LONGEST_WAIT = 3600.0
"""Seconds beyond which a run does not wait for an endpoint: it ends, to be continued later."""

PATIENCE = 100
"""So often one request waits for an endpoint that pushes back."""

SLOW_ATTEMPTS = 2
"""Attempts of one call that may take all the time that an attempt has: a server that drips is not
waited for longer."""

# An endpoint that has nothing left until its limits are reset is believed for so long; then it is
# asked again, since a reset in hours may be one of a limit that other calls do not need.
_LONGEST_PAUSE = 60.0

Result = TypeVar("Result")
Item = TypeVar("Item")


class Errand(abc.ABC, Generic[Result]):
    """One thing to ask an endpoint for, and what to make of what comes back.

    Attributes:
        service: what of the endpoint is called.
    """

    service: Service = CHAT

    @abc.abstractmethod
    def body(self, limit_name: LimitName) -> JsonObject:
        """Return the JSON of the call; ``limit_name`` is what the model calls its limit of
        tokens.
        """

    @abc.abstractmethod
    def clean(self, failure: Failure) -> Failure:
        """Return what the endpoint said without what must not be repeated, such as the key."""

    @abc.abstractmethod
    def read(self, completion: Completion) -> Result:
        """Return what an answer means."""

    @abc.abstractmethod
    def failed(self, meaning: Meaning, failure: Failure) -> Result:
        """Return what it means that no attempt brought an answer."""

    @abc.abstractmethod
    def hopeless(self, meaning: Meaning, failure: Failure) -> UserError:
        """Return the sentence that ends the run by what holds for every request."""

    def begin(self, stop: threading.Event) -> bool:
        """Take an attempt's price out of what may be spent; return False where ``stop`` was set."""
        return True

    def end(self, result: Result | None) -> None:
        """Settle an attempt's price: by its result, or None for one that brought nothing."""

    def broke_off(self) -> None:
        """Settle the price of an attempt that ended in an exception, and may have been paid."""


@dataclass(frozen=True)
class _TryAgain:
    """An attempt that failed in a way that may pass.

    Attributes:
        meaning: of the failure.
        failure: what the endpoint or the network said.
        pushed_back: the endpoint has too much to do, and said so.
        wait: the seconds that it asked for; None where it named none.
        slow: the attempt took all its time.
    """

    meaning: Meaning
    failure: Failure
    pushed_back: bool = False
    wait: float | None = None
    slow: bool = False


@dataclass(frozen=True)
class _Ended(Generic[Result]):
    """An attempt after which the request is not asked again."""

    result: Result


@dataclass(eq=False)
class PatientCalls:
    """Makes the calls of one run to one endpoint.

    Attributes:
        base_url: up to and with ``/v1``.
        key: may be empty.
        addressee: what is asked, for sentences, such as ``the judge at https://…``.
        timeout: of one attempt, in seconds.
        attempts: before a request counts as failed; waiting for a rate limit is no attempt.
        max_concurrency: calls at once, at most; fewer are made where the endpoint pushes back.
        limit_name: what the model's family calls the limit of an answer's tokens.
        backoff: seconds before the second attempt; doubled for each further one.
    """

    base_url: str
    key: str
    addressee: str
    timeout: float
    attempts: int
    max_concurrency: int
    limit_name: LimitName = "max_tokens"
    backoff: float = 0.5
    client: Any = field(init=False)
    limit: TokenLimit = field(init=False)

    def __post_init__(self) -> None:
        self._certificates = _certificates()
        # Attempts are counted here, so that the client makes none of its own.
        self.client = make_client(
            self.base_url,
            self.key,
            timeout=self.timeout,
            max_retries=0,
            certificates=self._certificates,
        )
        self.limit = TokenLimit(self.base_url, self.limit_name)
        self._stop = threading.Event()
        self._limiter = Limiter(self.max_concurrency, self._stop)
        self._threads = threading.local()

    def run_all(self, items: Iterator[Item], work: Callable[[Item], None]) -> None:
        """Do ``work``, which calls :meth:`run`, on every item, on a bounded number of threads.

        Raises:
            UserError: what will hold for every request: wrong key, no such model, an unsupported
                setting, no credit left, or what ``work`` raises.
        """
        self._stop.clear()
        drain(items, work, workers=self.max_concurrency, stop=self._stop)

    def run(self, errand: Errand[Result]) -> Result | None:
        """Ask once, with further attempts where that may help; None where the run is to stop.

        Three counts end it. A failure may pass, but five in a row seldom do. A server that only
        asks to wait has not failed, and is asked more patiently. An attempt that took all its time
        is costly in time, and is made only once more.

        Raises:
            UserError: as :meth:`run_all`.
        """
        failures = 0
        pushbacks = 0
        slow_attempts = 0
        while True:
            outcome = self._attempt_within_limits(errand)
            if outcome is None:
                return None
            if isinstance(outcome, _Ended):
                return outcome.result
            if outcome.pushed_back:
                pushbacks += 1
            else:
                failures += 1
            if outcome.slow:
                slow_attempts += 1
            if failures >= self.attempts or pushbacks >= PATIENCE or slow_attempts >= SLOW_ATTEMPTS:
                return errand.failed(outcome.meaning, outcome.failure)
            self._wait(outcome, pushbacks if outcome.pushed_back else failures)

    def _attempt_within_limits(self, errand: Errand[Result]) -> _Ended[Result] | _TryAgain | None:
        """Make one attempt where budget and limiter allow it; None where the run stops."""
        # The budget first: a call that waits for its turn at the endpoint is already promised, and
        # no other thread may spend what it will cost.
        if not errand.begin(self._stop):
            return None
        entered = self._limiter.enter()
        if entered is None:
            errand.end(None)
            return None
        try:
            outcome = self._attempt(errand)
        except BaseException:
            # A call that may have been made counts as made.
            self._limiter.leave(entered, pushed_back=False)
            errand.broke_off()
            raise
        if isinstance(outcome, _Ended):
            self._limiter.leave(entered, pushed_back=False)
            errand.end(outcome.result)
        else:
            self._limiter.leave(entered, pushed_back=outcome.pushed_back)
            errand.end(None)
        return outcome

    def _attempt(self, errand: Errand[Result]) -> _Ended[Result] | _TryAgain:
        body = errand.body(self.limit.name)
        outcome = post(self._own_client(), body, errand.service)
        if outcome.exhausted_for is not None:
            self._limiter.pause(min(outcome.exhausted_for, _LONGEST_PAUSE))
        if isinstance(outcome, Completion):
            return _Ended(errand.read(outcome))
        return self._failed(outcome, body, errand)

    def _failed(
        self, failed: FailedCall, body: Mapping[str, Any], errand: Errand[Result]
    ) -> _Ended[Result] | _TryAgain:
        """Decide what a failed call means for its request, or for all of them."""
        wait = failed.wait
        # Cleaned before it is looked at, so that no sentence can repeat a text of a person.
        failure = errand.clean(failed.failure)
        meaning = failure.meaning(wait=wait is not None)
        if self.limit.renamed_after(failure, body):
            return _TryAgain(meaning, failure)
        if meaning in HOPELESS:
            raise errand.hopeless(meaning, failure) from None
        if meaning == "busy":
            return _TryAgain(meaning, failure, pushed_back=True, wait=wait)
        if meaning == "passing":
            return _TryAgain(meaning, failure, wait=wait, slow=failed.slow)
        return _Ended(errand.failed(meaning, failure))

    def _own_client(self) -> Any:
        """Return this thread's client: a pool that all threads share looks through its connections
        at each call.
        """
        if not hasattr(self._threads, "client"):
            http = http_client(self.base_url, self.timeout, self._certificates)
            self._threads.client = self.client.with_options(http_client=http)
        return self._threads.client

    def _wait(self, again: _TryAgain, times: int) -> None:
        """Wait before a further attempt of a request, its ``times``-th of this kind."""
        if again.wait is not None and again.wait > LONGEST_WAIT:
            raise UserError(
                f"{self.addressee} asks to wait {again.wait:,.0f} seconds; "
                "run the same command again then"
            )
        seconds = pause_before(times, again.wait, self.backoff)
        if again.pushed_back:
            # The endpoint has too much to do, whoever asks: all threads wait, not this one alone.
            self._limiter.pause(seconds)
        else:
            self._limiter.wait(seconds)


def _certificates() -> Any:
    """Read the authorities that are trusted, once for all threads: it takes longer than many a
    call.
    """
    import httpx2

    return httpx2.create_ssl_context()
