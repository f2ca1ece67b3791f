"""Where texts go: whether an address leaves this machine, the key that it needs, and the client
that calls it.

The texts are profiles of patients, and posts of people who seek help. Judges and the sampler ask
here before anything is sent.
"""

from __future__ import annotations

import ipaddress
import logging
import os
from typing import Any
from urllib.parse import urlsplit

from jaxmodpo.errors import UserError

logger = logging.getLogger(__name__)


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
        logger.warning("%s and the key go to %s unencrypted (http)", texts, url.hostname)
    return key


def make_client(
    base_url: str, key: str, *, timeout: float, max_retries: int, certificates: Any = True
) -> Any:
    """Make an endpoint's client of the ``openai`` package.

    Args:
        base_url: up to and with ``/v1``.
        key: may be empty.
        timeout: of one attempt, from its beginning to the answer's last byte, in seconds.
        max_retries: of a call, by the client itself.
        certificates: of :func:`http_client`.
    """
    from openai import OpenAI

    return OpenAI(
        base_url=base_url,
        api_key=key or "none",
        timeout=timeout,
        max_retries=max_retries,
        http_client=http_client(base_url, timeout, certificates),
    )


def http_client(base_url: str, seconds: float, certificates: Any = True) -> Any:
    """Make a connection pool whose answers end within ``seconds``; ``certificates`` is what
    ``verify`` takes.
    """
    from jaxmodpo.endpoints.bounded import BoundedClient

    # A redirect, or of a server on this machine a proxy from the environment, would take texts
    # elsewhere.
    return BoundedClient(
        seconds=seconds,
        verify=certificates,
        trust_env=not is_local(base_url),
        follow_redirects=False,
    )
