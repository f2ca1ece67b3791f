"""The address under which raters reach a study."""

from __future__ import annotations

from urllib.parse import urlsplit

from jaxmodpo.errors import UserError


def checked_url(url: str) -> str:
    """Return an address without a slash at its end.

    Raises:
        UserError: it is none, or has a path: the application stands at the root of its host.
    """
    try:
        parts = urlsplit(url)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        raise UserError(f"--public-url {url:.100} is no address") from None
    is_bare = parts.path in ("", "/") and not (parts.query or parts.fragment or parts.username)
    if parts.scheme not in ("http", "https") or not parts.hostname or not is_bare or not has_port:
        raise UserError(
            f"--public-url {url:.100} must be like https://study.example.org, without a path"
        )
    return url.rstrip("/")
