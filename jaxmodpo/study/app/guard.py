"""What stands before every page: headers that browsers keep to, limits of size and of rate."""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

MOST_BYTES = 64 * 1024
"""of a request's body: answers and a reason, with room to spare"""

SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src"
        " 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), interest-cohort=()",
    "X-Robots-Tag": "noindex, nofollow",
}

# Most keys that are remembered; beyond it those not used for the longest time are forgotten.
_MOST_KEYS = 20_000


@dataclass
class RateLimit:
    """A bucket of tokens for each key: each request takes one, and they come back with time.

    Keys are hashed with a secret of this process and held in memory alone, so that no address is
    stored.
    """

    burst: float
    per_second: float
    _buckets: dict[bytes, tuple[float, float]] = field(default_factory=dict)
    _secret: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def has_any(self, key: str) -> bool:
        """Return whether a token is left."""
        return self._tokens(self._hashed(key), time.monotonic()) >= 1

    def allows(self, key: str) -> bool:
        """Take a token; False where none is left."""
        hashed = self._hashed(key)
        now = time.monotonic()
        with self._lock:
            tokens = self._tokens(hashed, now)
            is_allowed = tokens >= 1
            # Each use puts a key at the end, so the first was not used for the longest time.
            self._buckets.pop(hashed, None)
            if len(self._buckets) >= _MOST_KEYS:
                del self._buckets[next(iter(self._buckets))]
            self._buckets[hashed] = (tokens - 1 if is_allowed else tokens, now)
        return is_allowed

    def _hashed(self, key: str) -> bytes:
        return hashlib.blake2b(key.encode(), key=self._secret, digest_size=16).digest()

    def _tokens(self, hashed: bytes, now: float) -> float:
        tokens, then = self._buckets.get(hashed, (self.burst, now))
        return min(self.burst, tokens + (now - then) * self.per_second)


class Guard:
    """Wraps an application.

    Args:
        application: what answers.
        cookie: the name of the session's cookie.
        is_secure: the application stands behind TLS.
    """

    def __init__(self, application: ASGIApp, *, cookie: str, is_secure: bool) -> None:
        self._application = application
        self._cookie = cookie
        self._headers = dict(SECURITY_HEADERS)
        if is_secure:
            self._headers["Strict-Transport-Security"] = "max-age=31536000"
        self._by_session = RateLimit(burst=100, per_second=10)
        # Many raters may sit behind one address.
        self._by_address = RateLimit(burst=4000, per_second=400)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        guarded_send = self._with_headers(send)
        headers = Headers(scope=scope)
        if not self._is_allowed(scope, headers):
            refusal = PlainTextResponse(
                "Too many requests at once. Wait a few seconds and try again; nothing is lost.",
                429,
                headers={"Retry-After": "5"},
            )
            await refusal(scope, receive, guarded_send)
            return
        body = await _body(headers, receive)
        if body is None:
            refusal = PlainTextResponse("The request is too large.", 413)
            await refusal(scope, receive, guarded_send)
            return
        try:
            await self._application(scope, _replayed(body, receive), guarded_send)
        except Exception:
            # What went wrong is for the server's log, without anything of the request.
            logger.exception("a page could not be made")
            sentence = "Something went wrong here. Everything stored before is kept."
            await PlainTextResponse(sentence, 500)(scope, receive, guarded_send)

    def _is_allowed(self, scope: Scope, headers: Headers) -> bool:
        address = scope["client"][0] if scope.get("client") else ""
        if not self._by_address.allows(address):
            return False
        for pair in headers.get("cookie", "").split(";"):
            name, _, value = pair.strip().partition("=")
            if name == self._cookie:
                return self._by_session.allows(value)
        return True

    def _with_headers(self, send: Send) -> Send:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers[name] = value
                if "cache-control" not in headers:
                    headers["Cache-Control"] = "no-store"
            await send(message)

        return guarded


async def _body(headers: Headers, receive: Receive) -> bytes | None:
    """Return a request's whole body; None where it is too large, without reading more of it."""
    announced = headers.get("content-length", "0")
    if not announced.isascii() or not announced.isdigit() or int(announced) > MOST_BYTES:
        return None
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return body
        body += message.get("body", b"")
        if len(body) > MOST_BYTES:
            return None
        if not message.get("more_body", False):
            return body


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a channel that gives the body that was read, and then what comes after it."""
    waiting = [body]

    async def replay() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return replay
