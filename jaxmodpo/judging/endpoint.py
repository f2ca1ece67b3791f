"""A judge behind an OpenAI-compatible chat endpoint: OpenAI, vLLM, Ollama and the like.

It turns a request into one call with a JSON schema, and whatever comes back into an answer with a
named status. Its other duties are those of a client that handles private data, a key and money:
persona profiles leave this machine only where that was asked for, the key is never written
anywhere, and an endpoint that pushes back is given the time that it asks for.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from jaxmodpo import endpoints
from jaxmodpo.endpoints import HOPELESS_CODES, exhausted_for, http_client, make_client, retry_after
from jaxmodpo.errors import UserError
from jaxmodpo.judging.budget import Budget
from jaxmodpo.judging.families import Families, Family
from jaxmodpo.judging.judge import Answer, Asked, Request, Usage
from jaxmodpo.judging.pool import Limiter, drain
from jaxmodpo.judging.prompts import Prompts, answer_schema, parse_orders

# A repeated text below so many characters tells nobody anything; answers as asked for are too short to repeat any.
_SHORTEST, _SHORT_ANSWER, _LONGEST_SAID = 12, 60, 2000

LONGEST_WAIT = 3600.0
"""Seconds beyond which a run does not wait for an endpoint: it ends, to be continued later."""

PATIENCE = 100
"""So often one request waits for an endpoint that pushes back."""

FAILURES_IN_A_ROW = 20
"""So many requests without an answer, one after the other, end a run: the endpoint is not there."""

# Of one call; no model reads or says as many.
_MOST_TOKENS = 2**40


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where and how to ask.

    Attributes:
        base_url: up to and with ``/v1``.
        model: asked for by this name; there is no default.
        api_key_env: the environment variable that holds the key; a server on this machine needs none.
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
    (the endpoint does not take this request), ``error`` (HTTP or network, after all attempts). ``raw``
    is what was said, less the request's own texts; ``model`` is the model that answered.

    Attributes:
        endpoint: where and how to ask.
        budget: what may be spent.
        backoff: seconds before the second attempt; doubled for each further one.

    Raises:
        UserError: no model, an unusable URL, no key, personas that may not be sent, or a setting
            that the model's family does not take.
    """

    endpoint: Endpoint
    budget: Budget = field(default_factory=Budget)
    backoff: float = 0.5
    costs: bool = field(init=False, default=True)

    def __post_init__(self) -> None:
        endpoint = self.endpoint
        self._key = checked_key(endpoint)
        self.prompts = Prompts.load(endpoint.prompts)
        self.family = checked_family(endpoint)
        self._stop = threading.Event()
        self._limiter = Limiter(endpoint.max_concurrency, self._stop)
        self._failures, self._failures_lock = 0, threading.Lock()
        # Attempts are counted here, so that the client makes none of its own.
        self.client = make_client(endpoint.base_url, self._key, timeout=endpoint.timeout, max_retries=0)
        self._threads, self._certificates = threading.local(), _certificates()

    @property
    def identity(self) -> str:
        return endpoint_identity(self.endpoint, self.prompts)

    def body(self, request: Request) -> dict[str, Any]:
        """Return the JSON body of one call."""
        body: dict[str, Any] = {"model": self.endpoint.model, "messages": self.prompts.messages(request)}
        if self.endpoint.structured == "json_schema":
            schema = {"name": request.kind, "strict": True, "schema": answer_schema(request)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        else:
            body["response_format"] = {"type": "json_object"}
        if self.endpoint.temperature is not None:
            body["temperature"] = self.endpoint.temperature
        if self.endpoint.max_answer_tokens is not None:
            body[self.family.limit] = self.endpoint.max_answer_tokens
        return body

    def ask(self, requests: Iterator[Asked], put: Callable[[Asked, Answer], None]) -> None:
        """Answer all requests on a bounded number of threads.

        Raises:
            UserError: what will hold for every request: wrong key, no such model, an unsupported
                setting, no credit or budget left, or an endpoint that does not answer at all.
        """

        def work(asked: Asked) -> None:
            answer = self.answer(asked.request)
            if answer is not None:
                put(asked, answer)
                self._count_failures(answer)

        self._stop.clear()
        drain(requests, work, workers=self.endpoint.max_concurrency, stop=self._stop)

    def answer(self, request: Request) -> Answer | None:
        """Ask once, with further attempts where that may help; None where the run is to stop.

        Raises:
            UserError: as :meth:`ask`.
        """
        body = self.body(request)
        failed, pushed_back = 0, 0
        while True:
            if not self.budget.reserve(self._stop):
                return None
            entered = self._limiter.enter()
            if entered is None:
                self.budget.settle(None)
                return None
            outcome = Answer("error", "")
            try:
                outcome = self._attempt(body, request)
            finally:
                self._limiter.leave(entered, isinstance(outcome, _TryAgain) and outcome.pushed_back)
                self.budget.settle(outcome if isinstance(outcome, Answer) else None)
            if isinstance(outcome, Answer):
                return outcome
            pushed_back += outcome.pushed_back
            failed += not outcome.pushed_back
            if failed >= self.endpoint.attempts or pushed_back >= PATIENCE:
                return Answer("error", outcome.said, model=self.endpoint.model)
            self._wait(outcome, pushed_back if outcome.pushed_back else failed)

    def _attempt(self, body: Mapping[str, Any], request: Request) -> Answer | _TryAgain:
        import openai

        try:
            response = self._own_client().post("/chat/completions", body=body, cast_to=_response_class())
        except openai.APIStatusError as error:
            return self._status_error(error, request)
        except (openai.APIError, ValueError) as error:
            return _TryAgain(self.said(f"{type(error).__name__}: {error}", request))
        pause = exhausted_for(response.headers)
        if pause is not None:
            self._limiter.pause(min(pause, 60.0))
        try:
            completion = json.loads(response.content)
        except (ValueError, RecursionError):
            return _TryAgain(self.said(f"not JSON: {response.text}", request))
        answer = self.read(completion, request)
        return replace(answer, request_id=response.headers.get("x-request-id", "") or answer.request_id)

    def _own_client(self) -> Any:
        """Return this thread's client: a pool that all threads share looks through its connections at each call."""
        if not hasattr(self._threads, "client"):
            http = http_client(self.endpoint.base_url, self._certificates)
            self._threads.client = self.client.with_options(http_client=http)
        return self._threads.client

    def read(self, completion: Any, request: Request) -> Answer:
        """Read a chat completion, whatever a server may have sent for one."""
        try:
            choice, model = completion["choices"][0], str(completion.get("model") or self.endpoint.model)
            message, finish = choice["message"], choice.get("finish_reason")
            content, refusal = message.get("content"), message.get("refusal")
        except (AttributeError, IndexError, KeyError, TypeError):
            said = self.said(f"not a chat completion: {json.dumps(completion, ensure_ascii=False)}", request)
            return Answer("error", said, model=self.endpoint.model)
        usage = _usage(completion.get("usage"))
        cost = None if usage is None else self.family.cost(usage)
        orders: dict[str, tuple[str, ...]] = {}
        raw = self.said(str(refusal or content or ""), request)
        if refusal:
            status = "refusal"
        elif finish == "content_filter":
            status = "content_filter"
        else:
            orders = parse_orders(raw, request)
            status = "valid" if orders else "parse_error"
        return Answer(status, raw, orders, model, usage, cost, str(completion.get("id") or ""))

    def _status_error(self, error: Any, request: Request) -> Answer | _TryAgain:
        code, status = error.code, error.status_code
        if status in (401, 404) or code in HOPELESS_CODES:
            reason = {
                401: f"refused the key in {self.endpoint.api_key_env}; set a valid one",
                404: f"has no model {self.endpoint.model} at this URL; see --base-url and --judge-model",
            }.get(status)
            if reason is None:
                named = f" ({error.param})" if error.param else ""
                reason = f"said {code}{named} for the model {self.endpoint.model}; change the settings or the account"
            # The server's own words may repeat a part of the key.
            raise UserError(f"the judge at {self.endpoint.base_url} {reason}") from None
        said = self.said(f"HTTP {status}: {error.message}", request)
        if code in ("content_filter", "content_policy_violation"):
            return Answer("content_filter", said, model=self.endpoint.model)
        wait = retry_after(error.response.headers)
        if status in (429, 503, 529) and (status == 429 or wait is not None):
            return _TryAgain(said, pushed_back=True, wait=wait)
        if status in (408, 409, 425) or status >= 500:
            return _TryAgain(said, wait=wait)
        # A redirection, or what is forbidden, is said of the address or the account and not of the request.
        rejected = 400 <= status < 500 and status != 403
        return Answer("rejected" if rejected else "error", said, model=self.endpoint.model)

    def _wait(self, again: _TryAgain, times: int) -> None:
        # Spread, so that calls that failed together do not come back together.
        seconds = min(60.0, self.backoff * 2 ** (times - 1)) * random.uniform(0.5, 1.0)
        if again.wait is not None:
            if again.wait > LONGEST_WAIT:
                raise UserError(
                    f"the judge at {self.endpoint.base_url} asks to wait {again.wait:,.0f} seconds; "
                    "run the same command again then"
                )
            seconds = again.wait + random.uniform(0.0, 0.1 * min(again.wait, 10.0))
        if again.pushed_back:
            self._limiter.pause(seconds)
        else:
            self._limiter.wait(seconds)

    def _count_failures(self, answer: Answer) -> None:
        with self._failures_lock:
            self._failures = self._failures + 1 if answer.status == "error" else 0
            if self._failures >= FAILURES_IN_A_ROW:
                raise UserError(
                    f"the judge at {self.endpoint.base_url} failed {self._failures} requests in a row, the last with "
                    f"'{answer.raw[:100]}'; nothing is lost: mend it and run the same command again"
                )

    def said(self, text: str, request: Request) -> str:
        """Return what an endpoint said without the key and without the request's own texts, which some repeat.

        Profiles and posts belong in no ledger. A sentence of a profile or post is left out as well as
        the whole.
        """
        text = text.replace(self._key, "[key]") if self._key else text
        if len(text) > _SHORT_ANSWER:
            shown = (response.response_text for response in request.responses)
            for own in _own_texts(request.persona_text, request.question_text, *shown):
                text = text.replace(own, "[...]")
        return text[:_LONGEST_SAID]


@dataclass(frozen=True)
class _TryAgain:
    """An attempt that failed in a way that may pass; ``wait`` is what the endpoint asked for, in seconds."""

    said: str
    pushed_back: bool = False
    wait: float | None = None


def _own_texts(*texts: str) -> list[str]:
    """Return texts and their lines as a message may repeat them, plain or in JSON; longest first, none very short."""
    parts = {part.strip() for text in texts for part in (text, *text.splitlines())}
    in_json = {json.dumps(part, ensure_ascii=ascii)[1:-1] for part in parts for ascii in (True, False)}
    return sorted((form for form in parts | in_json if len(form) >= _SHORTEST), key=len, reverse=True)


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
            f"the model {endpoint.model} was withdrawn in {family.withdrawn}; name another by --judge-model"
        )
    if endpoint.temperature is not None and not family.temperature:
        raise UserError(f"the model {endpoint.model} takes no temperature; leave --temperature out")
    return family


def endpoint_identity(endpoint: Endpoint, prompts: Prompts) -> str:
    """Name everything that shapes an endpoint's answers."""
    parts = {
        "endpoint": endpoint.base_url,
        "model": endpoint.model,
        "temperature": endpoint.temperature,
        "prompts": prompts.version,
        "structured": endpoint.structured,
        "max_answer_tokens": endpoint.max_answer_tokens,
    }
    return "; ".join(f"{name} {value}" for name, value in parts.items())


def _certificates() -> Any:
    """Read the authorities that are trusted, once for all threads: it takes longer than many a call."""
    import httpx2

    return httpx2.create_ssl_context()


def _response_class() -> Any:
    """Return the HTTP library's response: the client then parses and checks nothing, which is half of a call's time."""
    import httpx2

    return httpx2.Response


def _usage(value: Any) -> Usage | None:
    if not isinstance(value, dict):
        return None
    details = value.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    counts = [value.get("prompt_tokens"), cached or 0, value.get("completion_tokens")]
    # A server may send anything: what no call can have used is not counted.
    found = [n for n in counts if type(n) is int and 0 <= n < _MOST_TOKENS]
    return Usage(*found) if len(found) == 3 and found[1] <= found[0] else None
