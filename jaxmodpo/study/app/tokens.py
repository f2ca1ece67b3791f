"""Secrets that raters carry: links, sessions, and what shows that a form is of this site."""

from __future__ import annotations

import hashlib
import hmac
import secrets

_LINK_BYTES = 16


def new_token() -> str:
    """Return 128 random bits as 22 characters that may stand in a URL."""
    return secrets.token_urlsafe(_LINK_BYTES)


def token_hash(token: str) -> str:
    """Return what is stored of a token. It has 128 random bits, so that no salt is needed."""
    return hashlib.sha256(token.encode()).hexdigest()


def form_token(session: str) -> str:
    """Return what a form carries so that other sites cannot send it; it does not lead back to the
    session.
    """
    return hmac.new(session.encode(), b"form", hashlib.sha256).hexdigest()


def is_same(one: str, other: str) -> bool:
    """Compare two secrets in a time that tells nothing of where they differ."""
    return hmac.compare_digest(one.encode(), other.encode())
