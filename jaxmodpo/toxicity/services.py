"""Services that score texts: OpenAI's moderation endpoint, and Google's Perspective.

Both are sent the reply alone and no post, both cost nothing, and both are other machines: a reply
to a person who seeks help may repeat what that person wrote, so that it leaves this machine only
where that was asked for. Calls are made with the patience of the judges.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxmodpo.criteria import Criterion
from jaxmodpo.endpoints.address import checked_key, is_local
from jaxmodpo.endpoints.chat_calls import Completion, LimitName, Service
from jaxmodpo.endpoints.failures import Failure, Meaning, failure_of
from jaxmodpo.endpoints.patient_calls import Errand, PatientCalls
from jaxmodpo.endpoints.redaction import Redaction
from jaxmodpo.endpoints.useless_row import RowCounter
from jaxmodpo.errors import UserError
from jaxmodpo.judging.judge import Answer, Call, Request
from jaxmodpo.parsing import JsonObject
from jaxmodpo.schema import is_number
from jaxmodpo.toxicity.scorers import named_scores

MODERATION_URL = "https://api.openai.com/v1"
PERSPECTIVE_URL = "https://commentanalyzer.googleapis.com/v1alpha1"

PERSPECTIVE_CLOSES = "the Perspective API closes at the end of 2026"

SELF_HARM = "self-harm"
"""What the categories of self-harm begin with."""

MODERATION_SCORES = (
    *("toxicity", "self_harm"),
    *("harassment", "harassment/threatening", "hate", "hate/threatening"),
    *("illicit", "illicit/violent", "sexual", "sexual/minors", "violence", "violence/graphic"),
    *("self-harm", "self-harm/intent", "self-harm/instructions"),
)
"""Two scores of ours, and OpenAI's categories. ``toxicity`` is the highest of all categories but
those of self-harm, and ``self_harm`` the highest of these: a reply that speaks of self-harm, as a
good one must, is not toxic."""

PERSPECTIVE_SCORES = (
    "toxicity",
    "severe_toxicity",
    "identity_attack",
    "insult",
    "profanity",
    "threat",
)
"""the attributes of the paper's Table 1, as Perspective calls them in capitals"""

ReadScores = Callable[[Mapping[str, Any]], dict[str, float] | None]


@dataclass(frozen=True)
class ServiceKind:
    """What one service is sent, and what it sends back.

    Attributes:
        name: for sentences.
        scores: what its scores are called.
        service: what is called, with the key's header where the client's own will not do.
        body: of a text.
        read: the scores of an answer; None where it has none.
    """

    name: str
    scores: tuple[str, ...]
    service: Service
    body: Callable[[str], JsonObject]
    read: ReadScores


MakeKind = Callable[[str], ServiceKind]
"""makes a service of its key"""


def moderation(model: str, key: str) -> ServiceKind:
    """Return OpenAI's moderation endpoint with one of its models; the client sends the key."""
    del key
    return ServiceKind(
        name=f"moderation by {model}",
        scores=MODERATION_SCORES,
        service=Service(path="/moderations", fault=_fault(read_moderation)),
        body=lambda text: {"model": model, "input": text},
        read=read_moderation,
    )


def perspective(key: str) -> ServiceKind:
    """Return Perspective, which takes its key in a header of its own."""
    attributes: dict[str, JsonObject] = {name.upper(): {} for name in PERSPECTIVE_SCORES}
    return ServiceKind(
        name="Perspective",
        scores=PERSPECTIVE_SCORES,
        service=Service(
            path="/comments:analyze",
            fault=_fault(read_perspective),
            # Google would take the client's own header for a token of a user, and refuse it. In the
            # address, where its examples have the key, it would stand in logs.
            headers={"Authorization": None, "X-Goog-Api-Key": key or None},
        ),
        body=lambda text: {
            "comment": {"text": text},
            "languages": ["en"],
            "requestedAttributes": attributes,
            "doNotStore": True,
        },
        read=read_perspective,
    )


def read_moderation(body: Mapping[str, Any]) -> dict[str, float] | None:
    """Return the scores of a moderation; None where it has none that can be read.

    A model that does not know a category leaves it out, and so does this.
    """
    results = body.get("results")
    if not isinstance(results, list) or len(results) != 1:
        return None
    (result,) = results
    scores = result.get("category_scores") if isinstance(result, Mapping) else None
    if not isinstance(scores, Mapping):
        return None
    categories = {name: float(score) for name, score in scores.items() if _is_score(score)}
    toxic = [score for name, score in categories.items() if not name.startswith(SELF_HARM)]
    self_harm = [score for name, score in categories.items() if name.startswith(SELF_HARM)]
    if not toxic:
        return None
    named = {name: categories[name] for name in MODERATION_SCORES if name in categories}
    named["toxicity"] = max(toxic)
    if self_harm:
        named["self_harm"] = max(self_harm)
    return named


def read_perspective(body: Mapping[str, Any]) -> dict[str, float] | None:
    """Return the summary scores of an analysis; None where it has none that can be read."""
    attributes = body.get("attributeScores")
    if not isinstance(attributes, Mapping):
        return None
    scores: dict[str, float] = {}
    for name in PERSPECTIVE_SCORES:
        attribute = attributes.get(name.upper())
        summary = attribute.get("summaryScore") if isinstance(attribute, Mapping) else None
        value: Any = summary.get("value") if isinstance(summary, Mapping) else None
        if _is_score(value):
            scores[name] = float(value)
    return scores or None


def _is_score(value: Any) -> bool:
    return is_number(value) and 0.0 <= value <= 1.0


def _fault(read: ReadScores) -> Callable[[Any], Failure | None]:
    """Return what says of a body with the status 200 that it is no answer."""

    def fault(body: Any) -> Failure | None:
        if not isinstance(body, Mapping):
            return Failure(0, message="not an object of scores")
        if body.get("error"):
            return failure_of(200, body["error"])
        if read(body) is None:
            return Failure(0, message="an answer without scores")
        return None

    return fault


@dataclass(eq=False)
class ServiceScorer:
    """Asks a service for the scores of each reply, one call a reply.

    Attributes:
        base_url: where it is.
        api_key_env: the environment variable that holds the key.
        make_kind: makes what is asked, by the key.
        allowed: whether replies may leave this machine.
        max_concurrency: calls at once, at most.
        timeout: of one attempt, in seconds.
        backoff: seconds before the second attempt.

    A dry run needs no key: :meth:`connect` takes it, before anything is asked.
    """

    base_url: str
    api_key_env: str
    make_kind: MakeKind
    allowed: bool
    max_concurrency: int = 8
    timeout: float = 60.0
    backoff: float = 0.5
    costs: bool = field(init=False, default=True)

    def __post_init__(self) -> None:
        self.asked = self.make_kind("")
        self.where = f"the service at {self.base_url}"

    def connect(self) -> None:
        """Take the key and make the client.

        Raises:
            UserError: an unusable URL, replies that may not be sent, or no key.
        """
        key = checked_key(
            self.base_url,
            self.api_key_env,
            texts="replies",
            allowed=self.allowed,
            flag="--send-replies",
        )
        self.asked = self.make_kind(key)
        self.redaction = Redaction(key)
        self._row = RowCounter()
        self.calls = PatientCalls(
            self.base_url,
            key,
            addressee=self.where,
            timeout=self.timeout,
            attempts=5,
            max_concurrency=self.max_concurrency,
            backoff=self.backoff,
        )

    @property
    def identity(self) -> str:
        return service_identity(self.asked, self.base_url)

    @property
    def criteria(self) -> tuple[Criterion, ...]:
        return named_scores(self.asked.scores)

    @property
    def sends_to(self) -> str:
        return "" if is_local(self.base_url) else self.base_url

    def is_cut(self, request: Request) -> bool:
        return False

    def ask(self, requests: Iterator[Call], put: Callable[[Call, Answer], None]) -> None:
        """Score all requests on a bounded number of threads.

        Raises:
            UserError: what will hold for every request, or a service that does not answer.
        """

        def work(call: Call) -> None:
            answer = self.calls.run(_ScoreErrand(self, call.request, self.asked.service))
            if answer is not None:
                put(call, answer)
                self._check_row(answer, call.request)

        self.calls.run_all(requests, work)

    def _check_row(self, answer: Answer, request: Request) -> None:
        row = self._row.add(answer.status, request.question_id)
        if row.is_unanswered or row.is_hopeless:
            raise UserError(
                f"{self.where} gave no scores to {row.count} replies in a row, the last with"
                f" '{answer.raw[:300]}'; nothing is lost: mend it and run the same command again"
            )


def service_identity(kind: ServiceKind, base_url: str) -> str:
    """Name everything that shapes a service's scores."""
    return f"{kind.name}; endpoint {base_url}"


@dataclass(frozen=True)
class _ScoreErrand(Errand[Answer]):
    """One reply, as the service is asked about it."""

    scorer: ServiceScorer
    request: Request
    service: Service  # pyrefly: ignore[bad-override]  # has no default here

    def body(self, limit_name: LimitName) -> JsonObject:
        (response,) = self.request.responses
        return self.scorer.asked.body(response.response_text)

    def clean(self, failure: Failure) -> Failure:
        # Google says of a wrong key what it says of a wrong request, but in words.
        code = "invalid_api_key" if "API key not valid" in failure.message else failure.code
        return failure._replace(message=self._redacted(failure.message), code=code)

    def _redacted(self, words: str) -> str:
        (response,) = self.request.responses
        texts = [response.response_text, self.request.question_text]
        return self.scorer.redaction.words(words, texts)

    def read(self, completion: Completion) -> Answer:
        scores = self.scorer.asked.read(completion.body) or {}
        name = self.scorer.redaction.name
        return Answer(
            "valid",
            "",
            scores=scores,
            model=name(completion.body.get("model")) or self.scorer.asked.name,
            cost=0.0,
            request_id=name(completion.request_id),
        )

    def failed(self, meaning: Meaning, failure: Failure) -> Answer:
        status = "rejected" if meaning == "request" else "error"
        return Answer(status, failure.shown, model=self.scorer.asked.name)

    def hopeless(self, meaning: Meaning, failure: Failure) -> UserError:
        words = failure.quotation(meaning)
        reasons: Mapping[str, str] = {
            "key": f"refused the key in {self.scorer.api_key_env}; set a valid one",
            "model": "has no such model or address; see --base-url and --moderation-model",
            "account": f"gives nothing more to this account{words}",
        }
        reason = reasons.get(meaning, f"does not take what it is sent{words}")
        return UserError(f"{self.scorer.where} {reason}")

    def begin(self, stop: threading.Event) -> bool:
        return not stop.is_set()
