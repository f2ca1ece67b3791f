"""A judge behind an OpenAI-compatible chat endpoint: OpenAI, vLLM, Ollama and the like.

It turns a request into one call with a JSON schema, and whatever comes back into an answer with a
named status. Its other duties are those of a client that handles private data, a key and money:
persona profiles leave this machine only where that was asked for, the key is never written
anywhere, and an endpoint that pushes back is given the time that it asks for. How calls are made,
and made again, is :mod:`jaxmodpo.endpoints.patient_calls`, which the sampler shares.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from jaxmodpo.endpoints.chat_calls import Completion, LimitName
from jaxmodpo.endpoints.failures import Failure, Meaning, failure_in
from jaxmodpo.endpoints.messages import refusal_text
from jaxmodpo.endpoints.patient_calls import Errand, PatientCalls
from jaxmodpo.endpoints.redaction import Redaction
from jaxmodpo.endpoints.usage import counted_usage
from jaxmodpo.errors import UserError
from jaxmodpo.judging.answer_forms import answer_schema, parse_orders, parse_scores
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
from jaxmodpo.judging.prompts import Prompts
from jaxmodpo.judging.useless_row import UselessRow
from jaxmodpo.parsing import JsonObject


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
        key = checked_key(self.endpoint)
        self.prompts = Prompts.load(self.endpoint.prompts)
        self.family = checked_family(self.endpoint)
        self.redaction = Redaction(key)
        self.row = UselessRow(base_url)
        self.calls = PatientCalls(
            base_url,
            key,
            addressee=f"the judge at {base_url}",
            timeout=self.endpoint.timeout,
            attempts=self.endpoint.attempts,
            max_concurrency=self.endpoint.max_concurrency,
            limit_name=self.family.limit,
            backoff=self.backoff,
        )

    @property
    def client(self) -> Any:
        """Return the client of the ``openai`` package, which makes no attempts of its own."""
        return self.calls.client

    @property
    def identity(self) -> str:
        return endpoint_identity(self.endpoint, self.prompts)

    def body(self, request: Request, limit_name: LimitName | None = None) -> JsonObject:
        """Return the JSON body of one call; ``limit_name`` is what the model calls its limit of
        tokens, the name in use if None.
        """
        body: JsonObject = {
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
            body[limit_name or self.calls.limit.name] = self.endpoint.max_answer_tokens
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

        self.calls.run_all(requests, work)

    def answer(self, request: Request) -> Answer | None:
        """Ask once, with further attempts where that may help; None where the run is to stop.

        Raises:
            UserError: as :meth:`ask`.
        """
        return self.calls.run(_JudgeErrand(self, request))

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
        scores: dict[str, float] = {}
        if refusal:
            status = "refusal"
        elif finish == "content_filter":
            status = "content_filter"
        else:
            # Parsed before anything is taken out of it: a reply's text may stand inside of the
            # JSON, and "[...]" in its place, or a cut at so many characters, would break the vote.
            cut = finish == "length"
            if request.kind == "score":
                scores = parse_scores(content, request, cut=cut)
            else:
                orders = parse_orders(content, request, cut=cut)
            status = "valid" if orders or scores else "parse_error"
        # What is no text at all is shown as it came.
        spoken = refusal or content or _shown(message.get("content"))
        usage = counted_usage(completion.get("usage"))
        return Answer(
            status=status,
            raw=self.redact(spoken, request),
            orders=orders,
            scores=scores,
            model=self.redaction.name(completion.get("model")) or self.endpoint.model,
            usage=usage,
            cost=None if usage is None else self.family.cost(usage),
            request_id=self.redaction.name(completion.get("id")),
        )

    def redact(self, text: str, request: Request) -> str:
        """Return what an endpoint said without the key and without the request's own texts."""
        replies = [response.response_text for response in request.responses]
        return self.redaction.words(text, [request.persona_text, request.question_text, *replies])

    def hopeless(self, meaning: Meaning, failure: Failure) -> str:
        """Return the sentence that ends a run by what holds for every request."""
        model = self.endpoint.model
        code = self.redaction.name(failure.code) or f"HTTP {failure.status}"
        param = self.redaction.name(failure.param)
        named = f"{code} ({param})" if param else code
        words = failure.quotation(meaning)
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


@dataclass(frozen=True)
class _JudgeErrand(Errand[Answer]):
    """One request, as the judge asks it and reads what comes back."""

    judge: EndpointJudge
    request: Request

    def body(self, limit_name: LimitName) -> JsonObject:
        return self.judge.body(self.request, limit_name)

    def clean(self, failure: Failure) -> Failure:
        return failure._replace(message=self.judge.redact(failure.message, self.request))

    def read(self, completion: Completion) -> Answer:
        answer = self.judge.read(completion.body, self.request)
        request_id = self.judge.redaction.name(completion.request_id) or answer.request_id
        return replace(answer, request_id=request_id)

    def failed(self, meaning: Meaning, failure: Failure) -> Answer:
        model = self.judge.endpoint.model
        if meaning == "filter":
            return Answer("content_filter", failure.shown, model=model)
        # A redirection, or what is forbidden, is said of the address and not of the request.
        status = "rejected" if meaning == "request" else "error"
        return Answer(status, failure.shown, model=model)

    def hopeless(self, meaning: Meaning, failure: Failure) -> UserError:
        return UserError(self.judge.hopeless(meaning, failure))

    def begin(self, stop: threading.Event) -> bool:
        return self.judge.budget.reserve(stop)

    def end(self, result: Answer | None) -> None:
        self.judge.budget.settle(result)

    def broke_off(self) -> None:
        self.judge.budget.settle(Answer("error", ""))


def _shown(value: Any) -> str:
    if value is None or value == "":
        return ""
    return json.dumps(value, ensure_ascii=False)
