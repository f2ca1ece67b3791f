"""A judge behind an OpenAI-compatible chat endpoint: OpenAI, vLLM, Ollama and the like.

It turns a request into one call with a JSON schema, and whatever comes back into an answer with a
named status. Its other duties are those of a client that handles private data, a key and money:
persona profiles leave this machine only where that was asked for, the key is never written
anywhere, and an endpoint that pushes back is given the time that it asks for.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from jaxmodpo.endpoints.address import http_client, make_client
from jaxmodpo.endpoints.chat_calls import Completion, FailedCall, TokenLimit, post_chat
from jaxmodpo.endpoints.failures import HOPELESS, Failure, Meaning, failure_in
from jaxmodpo.endpoints.families import Usage
from jaxmodpo.endpoints.messages import refusal_text
from jaxmodpo.endpoints.pool import Limiter, drain
from jaxmodpo.endpoints.redaction import Redaction
from jaxmodpo.endpoints.waits import pause_before
from jaxmodpo.errors import UserError
from jaxmodpo.judging.answers import answer_text
from jaxmodpo.judging.budget import Budget
from jaxmodpo.judging.endpoint_settings import (
    Endpoint,
    checked_family,
    checked_key,
    endpoint_identity,
    fitting_endpoint,
)
from jaxmodpo.judging.judge import Answer, Call, Request
from jaxmodpo.judging.prompts import Prompts, answer_schema, parse_orders
from jaxmodpo.judging.useless_row import UselessRow

LONGEST_WAIT = 3600.0
"""Seconds beyond which a run does not wait for an endpoint: it ends, to be continued later."""

PATIENCE = 100
"""So often one request waits for an endpoint that pushes back."""

SLOW_ATTEMPTS = 2
"""attempts of one call that may take all the time that an attempt has: a server that drips is not
waited for longer"""

# An endpoint that has nothing left until its limits are reset is believed for so long; then it is
# asked again, since a reset in hours may be one of a limit that other calls do not need.
_LONGEST_PAUSE = 60.0

# Of one call; no model reads or says as many.
_MOST_TOKENS = 2**40


@dataclass(eq=False)
class EndpointJudge:
    """Asks a model at an endpoint; one call per request, structured by a JSON schema.

    Statuses: ``refusal`` (the message says so), ``content_filter`` (the call or its answer was
    filtered), ``parse_error`` (not JSON of the schema, not a permutation, or cut off), ``rejected``
    (the endpoint does not take this request), ``error`` (HTTP or network, after all attempts).
    ``raw`` is what was said, less the request's own texts; ``model`` is the model that answered.

    Attributes:
        endpoint: where and how to ask.
        budget: what may be spent.
        backoff: seconds before the second attempt; doubled for each further one.
        redaction: takes out of what the endpoint says what must not be kept.
        row: ends a run whose answers are of no use.

    Raises:
        UserError: no model, an unusable URL, no key, personas that may not be sent, or a setting
            that the model's family does not take.
    """

    endpoint: Endpoint
    budget: Budget = field(default_factory=Budget)
    backoff: float = 0.5
    costs: bool = field(init=False, default=True)

    def __post_init__(self) -> None:
        self.endpoint = fitting_endpoint(self.endpoint)
        base_url = self.endpoint.base_url
        self._key = checked_key(self.endpoint)
        self.prompts = Prompts.load(self.endpoint.prompts)
        self.family = checked_family(self.endpoint)
        self._stop = threading.Event()
        self._limiter = Limiter(self.endpoint.max_concurrency, self._stop)
        self.redaction = Redaction(self._key)
        self.row = UselessRow(base_url)
        self._limit = TokenLimit(base_url, self.family.limit)
        # Attempts are counted here, so that the client makes none of its own.
        self.client = make_client(base_url, self._key, timeout=self.endpoint.timeout, max_retries=0)
        self._threads = threading.local()
        self._certificates = _certificates()

    @property
    def identity(self) -> str:
        return endpoint_identity(self.endpoint, self.prompts)

    def body(self, request: Request) -> dict[str, Any]:
        """Return the JSON body of one call."""
        body: dict[str, Any] = {
            "model": self.endpoint.model,
            "messages": self.prompts.messages(request),
        }
        if self.endpoint.structured == "json_schema":
            schema = {"name": request.kind, "strict": True, "schema": answer_schema(request)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        else:
            body["response_format"] = {"type": "json_object"}
        if self.endpoint.temperature is not None:
            body["temperature"] = self.endpoint.temperature
        if self.endpoint.max_answer_tokens is not None:
            body[self._limit.name] = self.endpoint.max_answer_tokens
        return body

    # ------------------------------------------------------------------ asking

    def ask(self, requests: Iterator[Call], put: Callable[[Call, Answer], None]) -> None:
        """Answer all requests on a bounded number of threads.

        Raises:
            UserError: what will hold for every request: wrong key, no such model, an unsupported
                setting, no credit or budget left, or an endpoint that does not answer at all.
        """

        def work(call: Call) -> None:
            answer = self.answer(call.request)
            if answer is not None:
                # Kept first: the row may end the run, and the answer is paid for.
                put(call, answer)
                self.row.add(answer, call.request)

        self._stop.clear()
        drain(requests, work, workers=self.endpoint.max_concurrency, stop=self._stop)

    def answer(self, request: Request) -> Answer | None:
        """Ask once, with further attempts where that may help; None where the run is to stop.

        Three counts end it. A failure may pass, but five in a row seldom do. A server that only
        asks to wait has not failed, and is asked more patiently. An attempt that took all its time
        is costly in time, and is made only once more.

        Raises:
            UserError: as :meth:`ask`.
        """
        failures = 0
        pushbacks = 0
        slow_attempts = 0
        while True:
            outcome = self._attempt_within_limits(request)
            if outcome is None or isinstance(outcome, Answer):
                return outcome
            if outcome.pushed_back:
                pushbacks += 1
            else:
                failures += 1
            if outcome.slow:
                slow_attempts += 1
            if (
                failures >= self.endpoint.attempts
                or pushbacks >= PATIENCE
                or slow_attempts >= SLOW_ATTEMPTS
            ):
                return Answer("error", outcome.words, model=self.endpoint.model)
            self._wait(outcome, pushbacks if outcome.pushed_back else failures)

    def _attempt_within_limits(self, request: Request) -> Answer | _TryAgain | None:
        """Make one attempt where the budget and the limiter allow it; None where the run stops."""
        # The budget first: a call that waits for its turn at the endpoint is already promised, and
        # no other thread may spend what it will cost.
        if not self.budget.reserve(self._stop):
            return None
        entered = self._limiter.enter()
        if entered is None:
            self.budget.settle(None)
            return None
        # What the budget and the limiter are told where the attempt ends by an exception: a call
        # that may have been made counts as made.
        outcome: Answer | _TryAgain = Answer("error", "")
        try:
            outcome = self._attempt(self.body(request), request)
        finally:
            if isinstance(outcome, Answer):
                self._limiter.leave(entered, pushed_back=False)
                self.budget.settle(outcome)
            else:
                self._limiter.leave(entered, pushed_back=outcome.pushed_back)
                self.budget.settle(None)
        return outcome

    def _attempt(self, body: Mapping[str, Any], request: Request) -> Answer | _TryAgain:
        outcome = post_chat(self._own_client(), body)
        if outcome.exhausted_for is not None:
            self._limiter.pause(min(outcome.exhausted_for, _LONGEST_PAUSE))
        if isinstance(outcome, FailedCall):
            return self._failed(outcome, body, request)
        return self._answered(outcome, request)

    def _answered(self, outcome: Completion, request: Request) -> Answer:
        answer = self.read(outcome.body, request)
        request_id = self.redaction.name(outcome.request_id) or answer.request_id
        return replace(answer, request_id=request_id)

    def _own_client(self) -> Any:
        """Return this thread's client: a pool that all threads share looks through its connections
        at each call.
        """
        if not hasattr(self._threads, "client"):
            http = http_client(self.endpoint.base_url, self.endpoint.timeout, self._certificates)
            self._threads.client = self.client.with_options(http_client=http)
        return self._threads.client

    def _wait(self, again: _TryAgain, times: int) -> None:
        """Wait before a further attempt of a request, its ``times``-th of this kind."""
        if again.wait is not None and again.wait > LONGEST_WAIT:
            raise UserError(
                f"the judge at {self.endpoint.base_url} asks to wait {again.wait:,.0f} seconds; "
                "run the same command again then"
            )
        seconds = pause_before(times, again.wait, self.backoff)
        if again.pushed_back:
            # The endpoint has too much to do, whoever asks: all threads wait, not this one alone.
            self._limiter.pause(seconds)
        else:
            self._limiter.wait(seconds)

    # ------------------------------------------------------------------ reading

    def read(self, completion: Any, request: Request) -> Answer:
        """Read a chat completion, whatever a server may have sent for one.

        Votes are read out of the whole answer; what is kept of it is shortened and redacted
        afterwards.
        """
        failure = failure_in(completion)
        if failure is not None:
            words = self.redact(failure.message, request)
            return Answer("error", words, model=self.endpoint.model)
        choice = completion["choices"][0]
        message = choice["message"]
        finish = choice.get("finish_reason")
        refusal = refusal_text(message)
        content = answer_text(message)
        orders: dict[str, tuple[str, ...]] = {}
        if refusal:
            status = "refusal"
        elif finish == "content_filter":
            status = "content_filter"
        else:
            # Parsed before anything is taken out of it: a reply's text may stand inside of the
            # JSON, and "[...]" in its place, or a cut at so many characters, would break the vote.
            orders = parse_orders(content, request, cut=finish == "length")
            status = "valid" if orders else "parse_error"
        # What is no text at all is shown as it came.
        spoken = refusal or content or _shown(message.get("content"))
        usage = _usage(completion.get("usage"))
        return Answer(
            status=status,
            raw=self.redact(spoken, request),
            orders=orders,
            model=self.redaction.name(completion.get("model")) or self.endpoint.model,
            usage=usage,
            cost=None if usage is None else self.family.cost(usage),
            request_id=self.redaction.name(completion.get("id")),
        )

    def redact(self, text: str, request: Request) -> str:
        """Return what an endpoint said without the key and without the request's own texts."""
        replies = [response.response_text for response in request.responses]
        return self.redaction.words(text, [request.persona_text, request.question_text, *replies])

    def _failed(
        self,
        failed: FailedCall,
        body: Mapping[str, Any],
        request: Request,
    ) -> Answer | _TryAgain:
        """Decide what a failed call means for its request, or for all of them."""
        wait = failed.wait
        # Redacted before it is looked at, so that no sentence below can repeat a text of a person.
        message = self.redact(failed.failure.message, request)
        failure = failed.failure._replace(message=message)
        if self._limit.renamed_after(failure, body):
            return _TryAgain(failure.shown)
        meaning = failure.meaning(wait=wait is not None)
        if meaning in HOPELESS:
            raise UserError(self.hopeless(meaning, failure)) from None
        if meaning == "filter":
            return Answer("content_filter", failure.shown, model=self.endpoint.model)
        if meaning == "busy":
            return _TryAgain(failure.shown, pushed_back=True, wait=wait)
        if meaning == "passing":
            return _TryAgain(failure.shown, wait=wait, slow=failed.slow)
        # A redirection, or what is forbidden, is said of the address and not of the request.
        status = "rejected" if meaning == "request" else "error"
        return Answer(status, failure.shown, model=self.endpoint.model)

    def hopeless(self, meaning: Meaning, failure: Failure) -> str:
        """Return the sentence that ends a run by what holds for every request."""
        model = self.endpoint.model
        code = self.redaction.name(failure.code) or f"HTTP {failure.status}"
        param = self.redaction.name(failure.param)
        named = f"{code} ({param})" if param else code
        # Words about a key may repeat a part of it.
        words = f": '{failure.message[:300]}'" if failure.message and meaning != "key" else ""
        reasons = {
            "key": f"refused the key in {self.endpoint.api_key_env}; set a valid one",
            "model": f"has no model {model} at this URL; see --base-url and --judge-model",
            "account": (
                f"gives no more credit, {named}{words}; pay, and the same command goes on; nothing"
                " is lost"
            ),
            "schema": (
                f"does not take the form of the answer, {named}{words}; give --structured"
                " json_object"
            ),
            "setting": (
                f"said {named} for the model {model}{words}; change the settings or the account",
            ),
        }
        return f"the judge at {self.endpoint.base_url} {reasons[meaning]}"


@dataclass(frozen=True)
class _TryAgain:
    """An attempt that failed in a way that may pass.

    Attributes:
        words: what the endpoint or the network said.
        pushed_back: the endpoint has too much to do, and said so.
        wait: the seconds that it asked for; None where it named none.
        slow: the attempt took all its time.
    """

    words: str
    pushed_back: bool = False
    wait: float | None = None
    slow: bool = False


def _shown(value: Any) -> str:
    if value is None or value == "":
        return ""
    return json.dumps(value, ensure_ascii=False)


def _certificates() -> Any:
    """Read the authorities that are trusted, once for all threads: it takes longer than many a
    call.
    """
    import httpx2

    return httpx2.create_ssl_context()


def _usage(value: Any) -> Usage | None:
    """Return the tokens that a server says it counted; None where it does not say it clearly."""
    if not isinstance(value, dict):
        return None
    details = value.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    counts = [value.get("prompt_tokens"), cached or 0, value.get("completion_tokens")]
    # A server may send anything: what no call can have used is not counted.
    if not all(type(count) is int and 0 <= count < _MOST_TOKENS for count in counts):
        return None
    usage = Usage(*counts)
    return usage if usage.cached <= usage.prompt else None
