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

from jaxmodpo import endpoints
from jaxmodpo.chat_calls import FailedCall, TokenLimit, post_chat
from jaxmodpo.endpoints import SLOW_ATTEMPTS, http_client, make_client, pause_before
from jaxmodpo.errors import UserError
from jaxmodpo.failures import HOPELESS, Failure, Meaning, failure_in
from jaxmodpo.judging.answers import answer_text
from jaxmodpo.judging.budget import Budget
from jaxmodpo.judging.families import Families, Family
from jaxmodpo.judging.judge import Answer, Call, Request, Usage
from jaxmodpo.judging.pool import Limiter, drain
from jaxmodpo.judging.prompts import Prompts, answer_schema, parse_orders
from jaxmodpo.judging.redaction import Redaction
from jaxmodpo.judging.useless_row import UselessRow
from jaxmodpo.messages import refusal_text

LONGEST_WAIT = 3600.0
"""Seconds beyond which a run does not wait for an endpoint: it ends, to be continued later."""

PATIENCE = 100
"""So often one request waits for an endpoint that pushes back."""

# Of one call; no model reads or says as many.
_MOST_TOKENS = 2**40


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where and how to ask.

    Attributes:
        base_url: up to and with ``/v1``.
        model: asked for by this name; there is no default.
        api_key_env: the environment variable that holds the key; a server on this machine needs
            none.
        temperature: None sends none, which reasoning models require.
        max_answer_tokens: of one answer; None sends no limit.
        structured: how the form of the answer is demanded.
        send_personas: allow persona profiles to go to another machine.
        timeout: of one attempt, in seconds.
        attempts: before a request counts as failed; waiting for a rate limit is no attempt.
        max_concurrency: calls at once, at most.
        prompts: a file of templates.
        model_table: a table of models' families.
    """

    base_url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    temperature: float | None = None
    max_answer_tokens: int | None = None
    structured: str = "json_schema"
    send_personas: bool = False
    timeout: float = 120.0
    attempts: int = 5
    max_concurrency: int = 32
    prompts: str = "prompts"
    model_table: str = "models"


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
        endpoint = self.endpoint = fitting_endpoint(self.endpoint)
        self._key = checked_key(endpoint)
        self.prompts = Prompts.load(endpoint.prompts)
        self.family = checked_family(endpoint)
        self._stop = threading.Event()
        self._limiter = Limiter(endpoint.max_concurrency, self._stop)
        self.redaction = Redaction(self._key)
        self.row = UselessRow(endpoint.base_url)
        self._limit = TokenLimit(endpoint.base_url, self.family.limit)
        # Attempts are counted here, so that the client makes none of its own.
        self.client = make_client(
            endpoint.base_url, self._key, timeout=endpoint.timeout, max_retries=0
        )
        self._threads, self._certificates = threading.local(), _certificates()

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

    def ask(self, requests: Iterator[Call], put: Callable[[Call, Answer], None]) -> None:
        """Answer all requests on a bounded number of threads.

        Raises:
            UserError: what will hold for every request: wrong key, no such model, an unsupported
                setting, no credit or budget left, or an endpoint that does not answer at all.
        """

        def work(call: Call) -> None:
            answer = self.answer(call.request)
            if answer is not None:
                put(call, answer)
                self.row.add(answer, call.request)

        self._stop.clear()
        drain(requests, work, workers=self.endpoint.max_concurrency, stop=self._stop)

    def answer(self, request: Request) -> Answer | None:
        """Ask once, with further attempts where that may help; None where the run is to stop.

        Raises:
            UserError: as :meth:`ask`.
        """
        failed = pushed_back = slow = 0
        while True:
            if not self.budget.reserve(self._stop):
                return None
            entered = self._limiter.enter()
            if entered is None:
                self.budget.settle(None)
                return None
            # What the budget and the limiter are told where the attempt ends by an exception.
            outcome = Answer("error", "")
            try:
                outcome = self._attempt(self.body(request), request)
            finally:
                self._limiter.leave(entered, isinstance(outcome, _TryAgain) and outcome.pushed_back)
                self.budget.settle(outcome if isinstance(outcome, Answer) else None)
            if isinstance(outcome, Answer):
                return outcome
            pushed_back += outcome.pushed_back
            # A server that only asks to wait has not failed, and is asked more patiently.
            failed += not outcome.pushed_back
            slow += outcome.slow
            if failed >= self.endpoint.attempts or pushed_back >= PATIENCE or slow >= SLOW_ATTEMPTS:
                return Answer("error", outcome.words, model=self.endpoint.model)
            self._wait(outcome, pushed_back if outcome.pushed_back else failed)

    def _attempt(self, body: Mapping[str, Any], request: Request) -> Answer | _TryAgain:
        outcome = post_chat(self._own_client(), body)
        if outcome.exhausted_for is not None:
            self._limiter.pause(min(outcome.exhausted_for, 60.0))
        if isinstance(outcome, FailedCall):
            return self._failed(outcome, body, request)
        answer = self.read(outcome.body, request)
        return replace(
            answer, request_id=self.redaction.name(outcome.request_id) or answer.request_id
        )

    def _own_client(self) -> Any:
        """Return this thread's client: a pool that all threads share looks through its connections
        at each call.
        """
        if not hasattr(self._threads, "client"):
            http = http_client(self.endpoint.base_url, self.endpoint.timeout, self._certificates)
            self._threads.client = self.client.with_options(http_client=http)
        return self._threads.client

    def read(self, completion: Any, request: Request) -> Answer:
        """Read a chat completion, whatever a server may have sent for one.

        Votes are read out of the whole answer; what is kept of it is shortened and redacted
        afterwards.
        """
        failure = failure_in(completion)
        if failure is not None:
            return Answer(
                "error", self.redaction.words(failure.message, request), model=self.endpoint.model
            )
        choice = completion["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        refusal, content = refusal_text(message), answer_text(message)
        usage = _usage(completion.get("usage"))
        cost = None if usage is None else self.family.cost(usage)
        orders: dict[str, tuple[str, ...]] = {}
        if refusal:
            status = "refusal"
        elif finish == "content_filter":
            status = "content_filter"
        else:
            orders = parse_orders(content, request, cut=finish == "length")
            status = "valid" if orders else "parse_error"
        # What is no text at all is shown as it came.
        raw = self.redaction.words(refusal or content or _shown(message.get("content")), request)
        model = self.redaction.name(completion.get("model")) or self.endpoint.model
        return Answer(
            status, raw, orders, model, usage, cost, self.redaction.name(completion.get("id"))
        )

    def _failed(
        self, failed: FailedCall, body: Mapping[str, Any], request: Request
    ) -> Answer | _TryAgain:
        wait = failed.wait
        failure = failed.failure._replace(
            message=self.redaction.words(failed.failure.message, request)
        )
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
        return Answer(
            "rejected" if meaning == "request" else "error",
            failure.shown,
            model=self.endpoint.model,
        )

    def hopeless(self, meaning: Meaning, failure: Failure) -> str:
        """Return the sentence that ends a run by what holds for every request."""
        code, param = self.redaction.name(failure.code), self.redaction.name(failure.param)
        named = f"{code or f'HTTP {failure.status}'}{f' ({param})' if param else ''}"
        model = self.endpoint.model
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
                f"said {named} for the model {model}{words}; change the settings or the account"
            ),
        }
        return f"the judge at {self.endpoint.base_url} {reasons[meaning]}"

    def _wait(self, again: _TryAgain, times: int) -> None:
        if again.wait is not None and again.wait > LONGEST_WAIT:
            raise UserError(
                f"the judge at {self.endpoint.base_url} asks to wait {again.wait:,.0f} seconds; "
                "run the same command again then"
            )
        seconds = pause_before(times, again.wait, self.backoff)
        if again.pushed_back:
            self._limiter.pause(seconds)
        else:
            self._limiter.wait(seconds)


def _shown(value: Any) -> str:
    return "" if value is None or value == "" else json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True)
class _TryAgain:
    """An attempt that failed in a way that may pass.

    ``wait`` is what the endpoint asked for, in seconds; ``slow`` says that the attempt took all its
    time.
    """

    words: str
    pushed_back: bool = False
    wait: float | None = None
    slow: bool = False


def checked_key(endpoint: Endpoint) -> str:
    """Return the key from the environment, or refuse settings that cannot work."""
    if not endpoint.model:
        raise UserError("--judge endpoint needs --judge-model; there is no default model")
    return endpoints.checked_key(
        endpoint.base_url,
        endpoint.api_key_env,
        texts="persona profiles",
        allowed=endpoint.send_personas,
        flag="--send-personas",
    )


def checked_family(endpoint: Endpoint) -> Family:
    """Return the family of the endpoint's model, or refuse what it does not take."""
    family = Families.load(endpoint.model_table).of(endpoint.model)
    if family.withdrawn and "api.openai.com" in endpoint.base_url:
        raise UserError(
            f"the model {endpoint.model} was withdrawn in {family.withdrawn}; name another by"
            " --judge-model"
        )
    if endpoint.temperature and not family.temperature:
        raise UserError(f"the model {endpoint.model} takes no temperature; leave --temperature out")
    return family


def fitting_endpoint(endpoint: Endpoint) -> Endpoint:
    """Return the settings as they are sent: a temperature of 0, which files of settings have, where
    it is taken.
    """
    if (
        endpoint.temperature == 0
        and not Families.load(endpoint.model_table).of(endpoint.model).temperature
    ):
        return replace(endpoint, temperature=None)
    return endpoint


def endpoint_identity(endpoint: Endpoint, prompts: Prompts) -> str:
    """Name everything that shapes an endpoint's answers."""
    settings = {
        "endpoint": endpoint.base_url,
        "model": endpoint.model,
        "temperature": endpoint.temperature,
        "prompts": prompts.version,
        "structured": endpoint.structured,
        "max_answer_tokens": endpoint.max_answer_tokens,
    }
    return "; ".join(f"{name} {value}" for name, value in settings.items())


def _certificates() -> Any:
    """Read the authorities that are trusted, once for all threads: it takes longer than many a
    call.
    """
    import httpx2

    return httpx2.create_ssl_context()


def _usage(value: Any) -> Usage | None:
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
