"""Replies from a model behind an OpenAI-compatible endpoint: the other engine of ``responses``.

It serves comparisons with models that cannot be loaded here, such as the paper's GPT-4o, and our
own adapters behind a server such as vLLM. There is no system message. Posts are people's words:
they go to another machine only where that was asked for. A reply is on disk before it counts, so
that none is paid for twice. Judges are asked in the same way, by
:mod:`jaxmodpo.endpoints.patient_calls`::

    endpoint = Endpoint(base_url="http://localhost:8000/v1", model="qwen")
    rows = ask(endpoint, planned_replies, Journal(folder / "sampled.jsonl"))
"""

from __future__ import annotations

import collections
import hashlib
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxmodpo.endpoints.chat_calls import Completion, LimitName
from jaxmodpo.endpoints.failures import Failure, Meaning
from jaxmodpo.endpoints.families import Family
from jaxmodpo.endpoints.patient_calls import Errand, PatientCalls
from jaxmodpo.endpoints.redaction import Redaction
from jaxmodpo.endpoints.usage import Usage
from jaxmodpo.endpoints.useless_row import RowCounter
from jaxmodpo.errors import UserError
from jaxmodpo.journals import Journal
from jaxmodpo.progress import Progress
from jaxmodpo.sampling.endpoint_reply import Reply, Unanswered, read_reply
from jaxmodpo.sampling.endpoint_settings import Endpoint, endpoint_key
from jaxmodpo.sampling.journal import PlannedReply, refuse_empty_questions, row, sampled

logger = logging.getLogger(__name__)

ATTEMPTS = 6
"""Of one reply; waiting for a rate limit is no attempt."""

BACKOFF = 0.5
"""Seconds before the second attempt, doubled for each further one."""

TIMEOUT = 300.0
"""Seconds for one attempt, from its beginning to the answer's last byte."""


def ask(
    endpoint: Endpoint,
    planned_replies: Sequence[PlannedReply],
    journal: Journal,
    settings: str = "",
) -> list[dict[str, Any]]:
    """Ask for what the journal does not hold yet.

    Args:
        endpoint: where.
        planned_replies: of every reply that the run is to have.
        journal: gains a row per reply: what it belongs to, ``response_text``, ``finish_reason``,
            tokens, and the ``model`` that answered.
        settings: digest of the run's settings.

    Returns:
        A row for each planned reply, in their order.

    Raises:
        UserError: the endpoint said what holds for every call, or gave no text many times in a row;
            or some calls failed, which the next run asks again.
    """
    key = endpoint_key(endpoint)
    answered = sampled(journal, settings)
    missing = [reply for reply in planned_replies if reply.key not in answered]
    refuse_empty_questions(missing)
    calls = PatientCalls(
        endpoint.base_url,
        key,
        addressee=f"the endpoint at {endpoint.base_url}",
        timeout=TIMEOUT,
        attempts=ATTEMPTS,
        max_concurrency=endpoint.max_concurrency,
        limit_name=endpoint.family.limit,
        backoff=BACKOFF,
    )
    redaction = Redaction(key)
    with Progress("asking", len(planned_replies), "replies", len(answered), leave=False) as bar:
        collected = _Collected(endpoint, journal, settings, bar)

        def work(planned_reply: PlannedReply) -> None:
            outcome = calls.run(_ReplyErrand(endpoint, planned_reply, redaction))
            if outcome is not None:
                collected.add(planned_reply, outcome)

        calls.run_all(iter(missing), work)
    if collected.failures:
        failed = len(collected.failures)
        last_failure = collected.failures[-1]
        raise UserError(
            f"{failed} of {len(planned_replies)} calls to {endpoint.base_url} failed, the last one"
            f" {last_failure}; the same command asks for those alone"
        )
    answered = sampled(journal, settings)
    return [answered[planned_reply.key] for planned_reply in planned_replies]


@dataclass(eq=False)
class _Collected:
    """What came of the calls so far; :meth:`add` may be called from any thread.

    Attributes:
        endpoint: that is asked.
        journal: gains the rows that were answered.
        settings: digest of the run's settings.
        bar: moves on with each call.
        failures: of which question each failed call was, and what it was told.
    """

    endpoint: Endpoint
    journal: Journal
    settings: str
    bar: Progress
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._counter = RowCounter()
        self._lock = threading.Lock()

    def add(self, planned_reply: PlannedReply, outcome: Reply | Unanswered) -> None:
        """Keep what came of one call.

        Raises:
            UserError: it is one too many that brought no text.
        """
        # On disk before anything else: what follows may end the run, and the reply is paid for.
        # The journal is one file, so that threads write to it in turn; a disk syncs hundreds of
        # rows a second, and an endpoint replies more slowly.
        with self._lock:
            if isinstance(outcome, Reply):
                self.journal.append(row(planned_reply, self.settings) | outcome.as_row())
            else:
                question_id = planned_reply.question.question_id
                self.failures.append(f"(question {question_id}) with: {outcome.words[:300]}")
            self.bar.update()
        self._refuse_useless(planned_reply, outcome)

    def _refuse_useless(self, planned_reply: PlannedReply, outcome: Reply | Unanswered) -> None:
        """End a run whose calls bring nothing, before all of them are paid."""
        base_url = self.endpoint.base_url
        useless = self._counter.add(outcome.status, planned_reply.question.question_id)
        if useless.is_unanswered:
            raise UserError(
                f"{useless.errors} calls in a row to {base_url} failed, the last one"
                f" {self.failures[-1]}; nothing is lost: mend it and run the same command again"
            )
        if useless.is_hopeless:
            failure = ""
            if self.failures:
                failure = f", the last failure {self.failures[-1]}"
            raise UserError(
                f"{useless.count} calls in a row to {base_url} brought no text{failure}; a larger"
                " --max-new-tokens leaves thinking models room to answer. What was answered is"
                " kept, and the same command goes on"
            )


@dataclass(frozen=True)
class _ReplyErrand(Errand[Reply | Unanswered]):
    """One reply to ask for.

    Attributes:
        endpoint: where and how.
        planned_reply: which reply.
        redaction: takes the key out of everything that the endpoint says.
    """

    endpoint: Endpoint
    planned_reply: PlannedReply
    redaction: Redaction

    def body(self, limit_name: LimitName) -> dict[str, Any]:
        endpoint = self.endpoint
        question = self.planned_reply.question
        prompt = endpoint.prompt(question.question_text)
        body: dict[str, Any] = {
            "model": endpoint.model,
            "messages": [{"role": "user", "content": prompt}],
            limit_name: endpoint.max_tokens,
        }
        if endpoint.temperature is not None:
            body["temperature"] = endpoint.temperature
        if endpoint.top_p < 1:
            body["top_p"] = endpoint.top_p
        if endpoint.stop:
            body["stop"] = list(endpoint.stop)
        if endpoint.family.seed:
            body["seed"] = reply_seed(endpoint.seed, self.planned_reply)
        return body

    def clean(self, failure: Failure) -> Failure:
        # Endpoints quote the post in their errors, and errors are shown and logged.
        post = [self.planned_reply.question.question_text]
        return failure._replace(
            code=self.redaction.name(failure.code),
            kind=self.redaction.name(failure.kind),
            param=self.redaction.name(failure.param),
            message=self.redaction.words(failure.message, post),
        )

    def read(self, completion: Completion) -> Reply | Unanswered:
        return read_reply(completion.body, self.endpoint.model, self.redaction.text)

    def failed(self, meaning: Meaning, failure: Failure) -> Reply | Unanswered:
        # A filtered question is answered as far as it ever will be. Asked again it would be
        # filtered again, and the run would never end.
        if meaning == "filter":
            return Reply("", "filter", "content_filter", self.endpoint.model)
        return Unanswered(failure.shown, "rejected" if meaning == "request" else "error")

    def hopeless(self, meaning: Meaning, failure: Failure) -> UserError:
        code = failure.code or f"HTTP {failure.status}"
        named = f"{code} ({failure.param})" if failure.param else code
        words = failure.quotation(meaning)
        reasons: dict[Meaning, str] = {
            "key": f"refused the key in {self.endpoint.api_key_env}",
            "model": f"has no model {self.endpoint.model}",
            "account": f"gives no more credit, {named}{words}; pay, and the same command goes on",
        }
        answer = f"said {named} for the model {self.endpoint.model}{words}"
        return UserError(f"{self.endpoint.base_url} {reasons.get(meaning, answer)}")


def reply_seed(seed: int, planned_reply: PlannedReply) -> int:
    """Return the seed of one reply, 0 to 2³¹ − 1: it depends on nothing but the run's seed, the
    question and the number.
    """
    # With one seed for all, the five replies to a question would be the same reply five times.
    name = f"{seed}\x1f{planned_reply.question.question_id}\x1f{planned_reply.number}"
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:4], "little") >> 1


def refuse_empty(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Count the replies without text by kind and warn of them.

    Raises:
        UserError: half of the replies or more have no text.
    """
    kinds = collections.Counter(
        row.get("kind") or "empty" for row in rows if not row["response_text"]
    )
    if not kinds:
        return {}
    listed = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    if 2 * kinds.total() >= len(rows):
        raise UserError(
            f"{kinds.total()} of {len(rows)} replies have no text ({listed}), so that nothing was"
            " written; a larger --max-new-tokens leaves thinking models room to answer. Delete"
            " sampled.jsonl in the output folder and run again to ask anew"
        )
    logger.warning("%d of %d replies have no text (%s)", kinds.total(), len(rows), listed)
    return dict(kinds)


def total_spending(rows: Sequence[Mapping[str, Any]], family: Family) -> dict[str, Any]:
    """Return what replies took, as far as the endpoint counted: tokens, and dollars where the
    table has a price.
    """
    total = Usage()
    counted_replies = 0
    for reply in rows:
        usage = usage_of(reply)
        if usage is None:
            continue
        counted_replies += 1
        total = Usage(
            prompt=total.prompt + usage.prompt,
            cached=total.cached + usage.cached,
            completion=total.completion + usage.completion,
        )
    return {
        "calls": len(rows),
        "counted_calls": counted_replies,
        "prompt_tokens": total.prompt,
        "cached_tokens": total.cached,
        "completion_tokens": total.completion,
        "dollars": family.cost(total),
    }


def usage_of(reply: Mapping[str, Any]) -> Usage | None:
    """Return the tokens that a journal's row says; None where nobody counted."""
    if reply.get("prompt_tokens") is None or reply.get("tokens") is None:
        return None
    return Usage(reply["prompt_tokens"], reply.get("cached_tokens") or 0, reply["tokens"])
