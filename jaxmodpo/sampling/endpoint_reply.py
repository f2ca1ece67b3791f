"""A reply out of a chat completion: its text, why it is over, and what it took.

Endpoints agree on the API and not on its words: each field here says which servers' words it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jaxmodpo.endpoints.messages import message_text, refusal_text, without_thoughts
from jaxmodpo.endpoints.usage import Usage, counted_usage
from jaxmodpo.records import FinishReason


@dataclass(frozen=True)
class Reply:
    """What an endpoint replied.

    Attributes:
        text: without thoughts; may be empty.
        finish_reason: why it is over.
        kind: why it has no text; empty where it has one.
        model: that answered, which may be another than was asked.
        usage: tokens; None where nobody counted.
    """

    text: str
    finish_reason: FinishReason
    kind: str = ""
    model: str = ""
    usage: Usage | None = None

    @property
    def status(self) -> str:
        """What it is in the row of useless answers: ``valid``, or the kind of a reply without
        text.
        """
        return self.kind or "valid"

    def as_row(self) -> dict[str, Any]:
        """Return what a journal's row says of it."""
        row: dict[str, Any] = {
            "response_text": self.text,
            "finish_reason": self.finish_reason,
            "model": self.model,
            "kind": self.kind,
        }
        if self.usage is not None:
            row["tokens"] = self.usage.completion
            row["prompt_tokens"] = self.usage.prompt
            row["cached_tokens"] = self.usage.cached
        return row


@dataclass(frozen=True)
class Unanswered:
    """A call that brought no reply.

    Attributes:
        words: what the endpoint or the network said.
        status: ``error``, or ``rejected`` where the endpoint does not take this request.
    """

    words: str
    status: str


def read_reply(
    completion: Mapping[str, Any], asked_model: str, clean: Callable[[str], str]
) -> Reply | Unanswered:
    """Return the reply that a chat completion holds.

    Args:
        completion: with a choice that has a message.
        asked_model: stands where the endpoint does not name the model that answered.
        clean: takes out of a text what must not be kept.
    """
    choice = completion["choices"][0]
    # vLLM and SGLang say so of what they gave up: a part of a reply is none.
    if choice.get("finish_reason") in ("abort", "error"):
        return Unanswered("the server gave the reply up", "error")
    message = choice["message"]
    content = message_text(message.get("content"))
    text = clean(without_thoughts(content) or "").strip()
    reason = finish_reason(choice)
    return Reply(
        text=text,
        finish_reason=reason,
        kind="" if text else _kind_of_empty(message, content, reason),
        model=clean(str(completion.get("model") or asked_model))[:200],
        usage=counted_usage(completion.get("usage")),
    )


def finish_reason(choice: Mapping[str, Any]) -> FinishReason:
    """Return why a reply is over: ``length`` and ``content_filter`` as the API has them, and
    ``stop`` as ``end``, unless the server says that it was a stop string.

    Servers have many words for a whole reply (``stop``, ``eos_token``, none at all) and few for one
    cut at its limit. OpenAI does not tell an end token from a stop string.
    """
    finish = choice.get("finish_reason")
    if finish in ("length", "max_tokens"):
        return "length"
    if finish == "content_filter":
        return "filter"
    # A text in vLLM's and SGLang's own fields is the stop string; a number there is an end token.
    matched = choice.get("stop_reason")
    if matched is None:
        matched = choice.get("matched_stop")
    return "stop" if finish == "stop_sequence" or isinstance(matched, str) else "end"


def _kind_of_empty(message: dict[str, Any], content: str, reason: FinishReason) -> str:
    """Return why a reply has no text."""
    if refusal_text(message):
        return "refusal"
    if reason == "filter":
        return "content_filter"
    if content.strip() or reason == "length":
        return "thoughts only"
    return "empty"
