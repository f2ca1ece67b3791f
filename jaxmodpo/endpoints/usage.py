"""The tokens of a call, as an endpoint counted them: what it is paid by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Of one call; no model reads or says as many.
_MOST_TOKENS = 2**40


@dataclass(frozen=True)
class Usage:
    """Tokens of one call, as the endpoint counted them; ``cached`` are part of ``prompt``."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0


def counted_usage(value: Any) -> Usage | None:
    """Return the tokens that a completion's ``usage`` says; None where it does not say it clearly.

    A server may send anything: what no call can have used is not counted.
    """
    if not isinstance(value, dict):
        return None
    details = value.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    counts: list[Any] = [value.get("prompt_tokens"), cached or 0, value.get("completion_tokens")]
    if not all(type(count) is int and 0 <= count < _MOST_TOKENS for count in counts):
        return None
    usage = Usage(*counts)
    return usage if usage.cached <= usage.prompt else None
