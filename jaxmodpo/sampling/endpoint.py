"""Replies from a model behind an OpenAI-compatible endpoint: the other engine of ``responses``.

It serves comparisons with models that cannot be loaded here, such as the paper's GPT-4o. The
question is put as in the instruct prompt, without a system message. Posts are people's words: they
go to another machine only where that was asked for. A reply is on disk before it counts, so that
none is paid for twice::

    endpoint = Endpoint(base_url="http://localhost:8000/v1", model="qwen", ...)
    rows = ask(endpoint, slots, Journal(folder / "sampled.jsonl"))
"""

from __future__ import annotations

import collections
import concurrent.futures
import itertools
import logging
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jaxmodpo.data.text import INSTRUCTION
from jaxmodpo.endpoints.address import checked_key, is_local, make_client
from jaxmodpo.endpoints.chat_calls import FailedCall, TokenLimit, post_chat
from jaxmodpo.endpoints.failures import (
    HOPELESS,
    Failure,
    Meaning,
)
from jaxmodpo.endpoints.messages import (
    message_text,
    readable,
    refusal_text,
    without_key,
    without_thoughts,
)
from jaxmodpo.endpoints.useless_row import USELESS_IN_A_ROW, USELESS_QUESTIONS
from jaxmodpo.endpoints.waits import pause_before
from jaxmodpo.errors import UserError
from jaxmodpo.files import Journal
from jaxmodpo.progress import Progress
from jaxmodpo.records import Question
from jaxmodpo.sampling.journal import ReplySlot, row, sampled

logger = logging.getLogger(__name__)

SLOW_ATTEMPTS = 2

ATTEMPTS = 6
"""Of one reply."""

BACKOFF = 0.5
"""Seconds before the second attempt, doubled for each further one."""

LONGEST_WAIT = 60.0
"""Most seconds before an attempt."""

TIMEOUT = 300.0
"""Seconds for one attempt, from its beginning to the answer's last byte."""


class Endpoint(NamedTuple):
    """Where to ask, and how.

    Attributes:
        base_url: up to and with ``/v1``.
        model: by the endpoint's name.
        api_key_env: the environment variable that holds the key; a server on this machine needs
            none.
        send_questions: allow posts to go to another machine.
        temperature: None sends none, since some models take none.
        top_p: 1 sends none.
        max_tokens: of a reply.
        max_concurrency: calls at once.
    """

    base_url: str
    model: str
    api_key_env: str
    send_questions: bool
    temperature: float | None
    top_p: float
    max_tokens: int
    max_concurrency: int


def check_endpoint(endpoint: Endpoint) -> None:
    """Refuse settings with which nobody can be asked.

    Raises:
        UserError: no model, or an unusable URL.
    """
    if not endpoint.model:
        raise UserError("--engine endpoint needs --endpoint-model; there is no default model")
    is_local(endpoint.base_url)


def endpoint_key(endpoint: Endpoint) -> str:
    """Return the key.

    Raises:
        UserError: as :func:`check_endpoint`; no key, or posts that may not be sent.
    """
    check_endpoint(endpoint)
    return checked_key(
        endpoint.base_url,
        endpoint.api_key_env,
        texts="people's posts",
        allowed=endpoint.send_questions,
        flag="--send-questions",
    )


def ask(
    endpoint: Endpoint, slots: Sequence[ReplySlot], journal: Journal, settings: str = ""
) -> list[dict[str, Any]]:
    """Ask for what the journal does not hold yet.

    Args:
        endpoint: where.
        slots: of every reply that the run is to have.
        journal: gains a row per reply: what it belongs to, ``response_text``, ``ended``, the
            answering ``model``.
        settings: digest of the run's settings.

    Returns:
        A row for each slot.

    Raises:
        UserError: the endpoint said what holds for every call, or gave no text many times in a row;
            or some calls failed, which the next run asks again.
    """
    key = endpoint_key(endpoint)
    client = make_client(endpoint.base_url, key, timeout=TIMEOUT, max_retries=0)
    answered = sampled(journal, settings)
    missing = [slot for slot in slots if slot.key not in answered]
    calls = [(slot.question, row(slot.question, slot.number, settings)) for slot in missing]
    with Progress("asking", len(slots), "replies", len(answered), leave=False) as bar:
        failures = _ask_all(_Caller(client, endpoint, key), calls, journal, bar)
    if failures:
        raise UserError(
            f"{len(failures)} of {len(slots)} calls to {endpoint.base_url} failed, the last one"
            f" with: {failures[-1][:300]}; the same command asks for those alone"
        )
    answered = sampled(journal, settings)
    return [answered[slot.key] for slot in slots]


def _ask_all(
    caller: _Caller,
    calls: Iterable[tuple[Question, dict[str, Any]]],
    journal: Journal,
    bar: Progress,
) -> list[str]:
    """Make calls side by side and keep each answer as it comes; return what those that failed were
    told.

    Args:
        caller: makes a call.
        calls: the question and the begun row of each.
        journal: gains the rows that were answered.
        bar: moves on with each call.

    Raises:
        UserError: the endpoint said what holds for every call, or gave no text many times in a row.
    """
    failures: list[str] = []
    useless: list[str] = []
    queue = iter(calls)
    running: dict[concurrent.futures.Future[dict[str, Any]], str] = {}
    concurrency = caller.endpoint.max_concurrency
    with concurrent.futures.ThreadPoolExecutor(concurrency) as pool:
        try:
            while True:
                # Never more waiting than are asked: a hopeless answer ends the run with few calls
                # still under way.
                for question, begun in itertools.islice(queue, concurrency - len(running)):
                    running[pool.submit(caller.one, begun, question.question_text)] = (
                        question.question_id
                    )
                if not running:
                    return failures
                answered, _ = concurrent.futures.wait(
                    running, return_when=concurrent.futures.FIRST_COMPLETED
                )
                for future in answered:
                    # Taken off the running ones only once it is kept, or a failure here would lose
                    # it.
                    answer = future.result()
                    _keep(answer, journal, failures)
                    question_id = running.pop(future)
                    bar.update()
                    if answer.get("response_text"):
                        useless.clear()
                    else:
                        useless.append(question_id)
                _refuse_useless(caller.endpoint, useless, failures)
        finally:
            caller.stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            # What was under way when another call ended the run is paid for all the same.
            for future in running:
                if not future.cancelled() and future.exception() is None:
                    _keep(future.result(), journal, failures)


def _refuse_useless(endpoint: Endpoint, useless: Sequence[str], failures: Sequence[str]) -> None:
    """End a run whose calls bring nothing, before all of them are paid.

    Args:
        endpoint: that was asked.
        useless: the question of each call since the last one that brought a text.
        failures: what was said of those that failed.
    """
    if len(useless) < USELESS_IN_A_ROW or len(set(useless)) < USELESS_QUESTIONS:
        return
    last_failure = f", the last failure with: {failures[-1][:300]}" if failures else ""
    raise UserError(
        f"{len(useless)} calls in a row to {endpoint.base_url} brought no text{last_failure}; a larger"
        " --max-new-tokens leaves thinking models room to answer. What was answered is kept, and"
        " the same command goes on"
    )


def _keep(answer: dict[str, Any], journal: Journal, failures: list[str]) -> None:
    if "error" in answer:
        failures.append(answer["error"])
    else:
        journal.append(answer)


@dataclass(eq=False)
class _Caller:
    """Asks for single replies, with further attempts where these may help.

    Attributes:
        client: makes no attempts of its own.
        endpoint: where and how.
        key: is cut out of everything that the endpoint says.
        stop: set when the run ends, so that nobody waits for another attempt.
    """

    client: Any
    endpoint: Endpoint
    key: str
    stop: threading.Event = field(default_factory=threading.Event)
    limit: TokenLimit = field(init=False)

    def __post_init__(self) -> None:
        self.limit = TokenLimit(self.endpoint.base_url)

    def one(self, begun: dict[str, Any], question: str) -> dict[str, Any]:
        """Return the row of one reply, or what went wrong as ``error``.

        Raises:
            UserError: what holds for every call.
        """
        attempts = 0
        slow_attempts = 0
        error = ""
        while attempts < ATTEMPTS and not self.stop.is_set():
            body = self._body(question)
            outcome = post_chat(self.client, body)
            if not isinstance(outcome, FailedCall):
                return self._row(begun, outcome.body)
            failure = self._clean(outcome.failure)
            error = failure.shown
            # Asking again under the name that the endpoint wants is no further attempt.
            if self.limit.renamed_after(failure, body):
                continue
            meaning = failure.meaning(wait=outcome.wait is not None)
            if meaning in HOPELESS:
                raise UserError(self._hopeless(meaning, failure)) from None
            if meaning not in ("busy", "passing"):
                break
            attempts += 1
            slow_attempts += outcome.slow
            if slow_attempts >= SLOW_ATTEMPTS:
                break
            if attempts < ATTEMPTS:
                self.stop.wait(min(LONGEST_WAIT, pause_before(attempts, outcome.wait, BACKOFF)))
        return {"error": error}

    def _body(self, question: str) -> dict[str, Any]:
        """Return the JSON of the call that asks for a reply to a question."""
        endpoint = self.endpoint
        body: dict[str, Any] = {
            "model": endpoint.model,
            "messages": [{"role": "user", "content": INSTRUCTION.format(question=question)}],
            self.limit.name: endpoint.max_tokens,
        }
        if endpoint.temperature is not None:
            body["temperature"] = endpoint.temperature
        if endpoint.top_p < 1:
            body["top_p"] = endpoint.top_p
        return body

    def _row(self, begun: dict[str, Any], completion: dict[str, Any]) -> dict[str, Any]:
        """Return the row of an answer; ``kind`` says why a reply has no text."""
        choice = completion["choices"][0]
        message = choice["message"]
        finish = choice.get("finish_reason")
        content = message_text(message.get("content"))
        text = self._text(without_thoughts(content) or "").strip()
        kind = "" if text else "empty"
        if not text and refusal_text(message):
            kind = "refusal"
        elif not text and finish == "content_filter":
            kind = "content_filter"
        elif not text and (content.strip() or finish == "length"):
            kind = "thoughts only"
        model = self._text(str(completion.get("model") or self.endpoint.model))[:200]
        # Servers have many words for a whole reply (stop, eos_token, none at all) and few for one
        # cut at its limit.
        ended = finish not in ("length", "max_tokens")
        return begun | {"response_text": text, "ended": ended, "model": model, "kind": kind}

    def _text(self, text: str) -> str:
        return without_key(readable(text), self.key)

    def _clean(self, failure: Failure) -> Failure:
        words = {
            name: self._text(getattr(failure, name))
            for name in ("code", "kind", "param", "message")
        }
        return failure._replace(**words)

    def _hopeless(self, meaning: Meaning, failure: Failure) -> str:
        named = failure.code or f"HTTP {failure.status}"
        # Words about a key may repeat a part of it.
        words = f": '{failure.message[:300]}'" if failure.message and meaning != "key" else ""
        reasons = {
            "key": f"refused the key in {self.endpoint.api_key_env}",
            "model": f"has no model {self.endpoint.model}",
            "account": f"gives no more credit, {named}{words}; pay, and the same command goes on",
        }
        answer = f"said {named} for the model {self.endpoint.model}{words}"
        return f"{self.endpoint.base_url} {reasons.get(meaning, answer)}"


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
