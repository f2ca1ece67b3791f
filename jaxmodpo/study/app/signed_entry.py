"""Entries that Prolific signs: its "secured external URL".

Prolific then adds a token to a study's address, ``prolific_token``, a JSON Web Token (RFC 7519)
signed with RS256. Its claim ``prolific`` repeats the address's parameters, so that nobody can make
up a participant::

    entries = SignedEntries(KeyFile(PROLIFIC_KEYS), "study.example.org")
    arrival = entries.arrival(token)

Sources: Prolific's API reference, "Retrieve JSON Web Key Set", for keys, ``exp``, ``aud`` and
``prolific``; for the issuer and ``sub`` programs of others that check them.
"""

from __future__ import annotations

import logging
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt

from jaxmodpo.errors import UserError
from jaxmodpo.parsing import JsonObject
from jaxmodpo.study.app.raters import Arrival

logger = logging.getLogger(__name__)

ISSUER = "https://www.prolific.com"

_REQUIRED = ["exp", "iss", "aud", "sub"]

# Seconds by which two clocks may differ.
_LEEWAY = 60

# Keys are read again after a day, as Prolific advises; for a key that is not among them after a
# minute, so that strangers' tokens do not make us ask all the time.
_LONGEST = 24 * 3600
_SHORTEST = 60

_MOST_BYTES = 1 << 20
_TIMEOUT = 10


class KeysAway(Exception):
    """The keys cannot be read just now."""


class NotSigned(Exception):
    """A token that says nothing of who comes: forged, of another site, or run out.

    Attributes:
        has_run_out: it was right once.
    """

    def __init__(self, *, has_run_out: bool = False) -> None:
        super().__init__()
        self.has_run_out = has_run_out


@dataclass
class KeyFile:
    """Prolific's public keys: a JSON Web Key Set (RFC 7517) in a file or at an https address.

    Attributes:
        source: where they are.
        monotonic: a clock, in seconds.
    """

    source: str
    monotonic: Callable[[], float] = time.monotonic
    _keys: Mapping[str, Any] = field(default_factory=dict)
    _read_at: float = float("-inf")
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def key(self, key_id: str) -> Any | None:
        """Return a key; None where there is none of this id.

        Raises:
            KeysAway: they cannot be read, and never could.
        """
        with self._lock:
            age = self.monotonic() - self._read_at
            is_old = age > (_LONGEST if key_id in self._keys else _SHORTEST)
            if is_old:
                self._read_again()
            if not self._keys:
                raise KeysAway
            return self._keys.get(key_id)

    def check(self) -> None:
        """Read the keys. An address that does not answer now is asked again when somebody comes.

        Raises:
            UserError: the file cannot be read, or holds no keys.
        """
        try:
            self._keys = _keys_of(_content(self.source))
        except (OSError, ValueError, jwt.PyJWTError) as error:
            if _is_address(self.source) and isinstance(error, OSError):
                logger.warning("study serve: %s does not answer: %s", self.source, error)
                return
            reason = error.strerror if isinstance(error, OSError) else error
            raise UserError(
                f"--prolific-keys {self.source} is not a set of public keys: {reason}"
            ) from None
        self._read_at = self.monotonic()

    def _read_again(self) -> None:
        # A failure counts as reading too: whoever waits behind a server that is away waits once.
        self._read_at = self.monotonic()
        try:
            self._keys = _keys_of(_content(self.source))
        except (OSError, ValueError, jwt.PyJWTError):
            logger.warning("study serve: the keys at %s cannot be read", self.source)


def _is_address(source: str) -> bool:
    return source.startswith("https://")


def _content(source: str) -> bytes:
    """Return a file, or what is at an https address.

    Raises:
        OSError: it cannot be read.
        ValueError: it is too large to be keys.
    """
    if _is_address(source):
        with urllib.request.urlopen(source, timeout=_TIMEOUT) as answer:
            content = answer.read(_MOST_BYTES + 1)
    else:
        with Path(source).open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError("it is too large")
    return content


def _keys_of(content: bytes) -> JsonObject:
    """Return the keys of a set by id.

    Raises:
        ValueError: it is none, or no key of it has an id.
        jwt.PyJWTError: likewise.
    """
    keys = jwt.PyJWKSet.from_json(content.decode()).keys
    by_id = {key.key_id: key for key in keys if key.key_id}
    if not by_id:
        raise ValueError("it holds no key with an id")
    return by_id


class SignedEntries:
    """Reads tokens of Prolific.

    Args:
        keys: Prolific's.
        host: the name under which raters reach the study: a token for another one is refused.
    """

    def __init__(self, keys: KeyFile, host: str) -> None:
        self._keys = keys
        self._host = host

    def arrival(self, token: str) -> Arrival:
        """Return who comes.

        Raises:
            NotSigned: Prolific did not sign this, or not for this study, or too long ago.
            KeysAway: that cannot be known just now.
        """
        claims = self._claims(token)
        told = claims.get("prolific")
        if not self._is_for_us(claims["aud"]) or not isinstance(told, dict):
            raise NotSigned
        arrival = Arrival(
            pid=str(told.get("PROLIFIC_PID", "")),
            study=str(told.get("STUDY_ID", "")),
            session=str(told.get("SESSION_ID", "")),
        )
        if claims["sub"] != arrival.session:
            raise NotSigned
        return arrival

    def _claims(self, token: str) -> JsonObject:
        """Return what a token says that Prolific signed and that has not run out."""
        try:
            key_id = jwt.get_unverified_header(token).get("kid")
            key = self._keys.key(key_id) if isinstance(key_id, str) else None
            if key is None:
                raise NotSigned
            return jwt.decode(
                token,
                key,
                algorithms=["RS256"],
                issuer=ISSUER,
                leeway=_LEEWAY,
                # Prolific says that it is a domain, and others find whole addresses there.
                options={"require": _REQUIRED, "verify_aud": False},
            )
        except jwt.ExpiredSignatureError:
            raise NotSigned(has_run_out=True) from None
        except jwt.PyJWTError:
            raise NotSigned from None

    def _is_for_us(self, audience: Any) -> bool:
        """Return whether one of a token's audiences is our host, by itself or in an address."""
        audiences = audience if isinstance(audience, list) else [audience]
        return any(_host(str(each)) == self._host for each in audiences)


def _host(audience: str) -> str:
    try:
        return urlsplit(audience if "//" in audience else f"//{audience}").hostname or ""
    except ValueError:
        return ""
