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
        address = urlsplit(url)
        has_port = address.port is None or address.port > 0
    except ValueError:
        raise UserError(f"--public-url {url:.100} is no address") from None
    is_bare = address.path in ("", "/") and not (
        address.query or address.fragment or address.username
    )
    if (
        address.scheme not in ("http", "https")
        or not address.hostname
        or not is_bare
        or not has_port
    ):
        raise UserError(
            f"--public-url {url:.100} must be like https://study.example.org, without a path"
        )
    return url.rstrip("/")
