"""How long an endpoint wants to be left alone, by its headers, and how long to wait before a
further attempt.
"""

from __future__ import annotations

import email.utils
import math
import random
import re
import time
from collections.abc import Mapping

_LONGEST_BACKOFF = 60.0
_SECONDS_OF_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that an endpoint asks to wait: ``retry-after-ms``, or ``retry-after``
    (seconds or a date).

    A date counts from the server's own ``Date``, whose clock may be another. A time that is no
    wait, 0 or past, says nothing, so that the caller's own back-off holds.
    """
    value = headers.get("retry-after", "")
    seconds = _number(value)
    # OpenAI sends both, and the seconds are rounded.
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        seconds = milliseconds / 1000
    if seconds is None:
        try:
            until = email.utils.parsedate_to_datetime(value).timestamp()
        except (TypeError, ValueError, OverflowError):
            return None
        seconds = until - _now(headers)
    return seconds if seconds > 0 else None


def _now(headers: Mapping[str, str]) -> float:
    """Return the time by the server's clock, or by this machine's where the server does not say."""
    try:
        return email.utils.parsedate_to_datetime(headers.get("date", "")).timestamp()
    except (TypeError, ValueError, OverflowError):
        return time.time()


def pause_before(attempt: int, requested_wait: float | None, backoff: float) -> float:
    """Return the seconds before a further attempt, the ``attempt``-th: spread, so that calls do not
    come back together.

    Doubled for each attempt, up to a minute. What the endpoint asks for is waited for, and never
    less than a share of the back-off: an endpoint that asks for a millisecond each time is not
    asked a thousand times a second.
    """
    # Thirty calls that failed together would all come back in the same moment, and fail together
    # again: each waits for a time of its own between half and the whole of the back-off.
    spread = random.uniform(0.5, 1.0)
    if requested_wait is None:
        # The exponent is limited, since a hundredth doubling is no number of seconds any more.
        doubled = backoff * 2 ** min(attempt - 1, 30)
        return min(_LONGEST_BACKOFF, doubled) * spread
    # What the endpoint asks for is a promise that it will answer then. It is trusted, so that the
    # back-off is only a floor, and grows three times at most.
    floor = backoff * 2 ** min(attempt - 1, 3) * spread
    # Never earlier than asked; later by up to a tenth, and by a second at most.
    delay = random.uniform(0.0, 0.1 * min(requested_wait, 10.0))
    return max(floor, requested_wait + delay)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def exhausted_for(headers: Mapping[str, str]) -> float | None:
    """Return for how many seconds the endpoint has no more requests or tokens to give; None while
    it has.

    Reads ``x-ratelimit-remaining-*`` and ``x-ratelimit-reset-*`` (such as ``1m2.5s`` or ``20ms``).
    """
    waits: list[float] = []
    for resource in ("requests", "tokens"):
        if headers.get(f"x-ratelimit-remaining-{resource}", "").strip() != "0":
            continue
        wait = _duration(headers.get(f"x-ratelimit-reset-{resource}", ""))
        if wait is not None:
            waits.append(wait)
    # A call needs both, and so waits for the later.
    return max(waits, default=None)


def _duration(text: str) -> float | None:
    """Return the seconds of a duration such as ``1m2.5s``; None where it is none."""
    amounts = re.findall(r"([0-9.]+)(ms|s|m|h|d)", text)
    recognized = "".join(number + unit for number, unit in amounts)
    if not amounts or recognized != text.strip():
        return None
    try:
        return sum(float(number) * _SECONDS_OF_UNIT[unit] for number, unit in amounts)
    except ValueError:
        return None
