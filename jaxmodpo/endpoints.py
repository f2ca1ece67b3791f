"""What every client of an OpenAI-compatible endpoint has to know, whatever it asks for.

Judges ask for votes and the sampler for replies; both must know whether an address leaves this
machine, what an endpoint means when it pushes back, and which errors no further attempt can mend.
"""

from __future__ import annotations

import email.utils
import ipaddress
import logging
import math
import os
import random
import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from jaxmodpo.errors import UserError

log = logging.getLogger(__name__)

_LONGEST_BACKOFF = 60.0
_SECONDS_OF_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

SLOW_ATTEMPTS = 2
"""attempts of one call that may take all the time that an attempt has: a server that drips is not
waited for longer"""


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


def is_local(base_url: str) -> bool:
    """Return whether an endpoint is on this machine; refuse a URL that holds a secret or is
    none.
    """
    try:
        url = urlsplit(base_url)
        host = url.hostname or ""
    except ValueError:
        raise UserError(f"--base-url {base_url} is not a URL") from None
    if url.username or url.password or url.query:
        raise UserError(
            "--base-url must hold neither a user name nor a query, since it is written down; see"
            " --api-key-env"
        )
    if url.scheme not in ("http", "https") or not host:
        raise UserError(
            f"--base-url {base_url} must begin with http:// or https:// and name a host"
        )
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def checked_key(base_url: str, api_key_env: str, *, texts: str, allowed: bool, flag: str) -> str:
    """Return the key from the environment; empty where a server on this machine needs none.

    Args:
        base_url: where texts would be sent.
        api_key_env: the variable.
        texts: what they are, for the sentence.
        allowed: whether they may leave this machine.
        flag: what allows it.

    Raises:
        UserError: an unusable URL, texts that may not be sent, or no key.
    """
    local = is_local(base_url)
    url = urlsplit(base_url)
    # The most private data of this project goes through here: profiles of patients, and posts of
    # people who seek help. They leave the machine where somebody said so, and never by a default.
    if not (local or allowed):
        raise UserError(
            f"{texts} would be sent to {url.hostname}; give {flag} if that is allowed, or use a"
            " server on this machine"
        )
    # Keys that are read from files end with a line end.
    key = os.environ.get(api_key_env, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError(
            f"the key in {api_key_env} holds a character that no key has, such as a quotation mark"
            " or a line end"
        )
    if not (key or local):
        raise UserError(
            f"the environment variable {api_key_env} holds no key for {base_url}; set it"
        )
    if not local and url.scheme == "http":
        log.warning("%s and the key go to %s unencrypted (http)", texts, url.hostname)
    return key


def make_client(base_url: str, key: str, *, timeout: float, max_retries: int) -> Any:
    """Make an endpoint's client of the ``openai`` package.

    Args:
        base_url: up to and with ``/v1``.
        key: may be empty.
        timeout: of one attempt, from its beginning to the answer's last byte, in seconds.
        max_retries: of a call, by the client itself.
    """
    from openai import OpenAI

    return OpenAI(
        base_url=base_url,
        api_key=key or "none",
        timeout=timeout,
        max_retries=max_retries,
        http_client=http_client(base_url, timeout),
    )


def http_client(base_url: str, seconds: float, certificates: Any = True) -> Any:
    """Make a connection pool whose answers end within ``seconds``; ``certificates`` is what
    ``verify`` takes.
    """
    from jaxmodpo.bounded import BoundedClient

    # A redirect, or of a server on this machine a proxy from the environment, would take texts
    # elsewhere.
    return BoundedClient(
        seconds=seconds,
        verify=certificates,
        trust_env=not is_local(base_url),
        follow_redirects=False,
    )
