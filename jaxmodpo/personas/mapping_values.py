"""Values of a mapping file, checked one by one.

YAML reads a bare ``no`` as false and ``1`` as a number, and a spreadsheet changes capitals and
spaces; what a mapping says is therefore never taken as it stands. Each function names the place in
the file when it refuses something.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jaxmodpo.errors import UserError, nearest
from jaxmodpo.personas.answers import plain


def as_mapping(value: Any, location: str) -> Mapping[Any, Any]:
    """Return a value that must be a mapping."""
    if not isinstance(value, Mapping):
        raise UserError(f"{location} must be a mapping, not {_in_words(value)}")
    return value


def as_text(value: Any, location: str) -> str:
    """Return a YAML scalar as text; YAML reads a bare yes, no, on or off as true or false."""
    # isinstance(True, int) holds, so the switch is refused before numbers are accepted.
    if isinstance(value, bool):
        raise UserError(
            f"{location}: a bare yes, no, true or false is no text to YAML; put it in quotes"
        )
    if not isinstance(value, str | int | float):
        raise UserError(f"{location}: expected a text, not {_in_words(value)}")
    return str(value)


def as_texts(value: Mapping[Any, Any], location: str) -> dict[str, str]:
    """Return a mapping of texts to texts."""
    return {as_text(key, location): as_text(meaning, location) for key, meaning in value.items()}


def refuse_unknown_keys(
    content: Mapping[Any, Any], allowed_keys: Iterable[str], location: str
) -> None:
    """Refuse a key that nothing reads, since it is most likely a misspelled one."""
    allowed_keys = tuple(allowed_keys)
    for key in content:
        if key not in allowed_keys:
            raise UserError(f"{location}: unknown key '{key}'{nearest(str(key), allowed_keys)}")


def refuse_doubled(name: str, earlier_names: Iterable[str], location: str) -> None:
    """Refuse a name that stands there already in other capitals or spaces, since one of the two
    would be lost.
    """
    if plain(name) in map(plain, earlier_names):
        raise UserError(
            f"{location}: '{name}' stands there twice, in other capitals or spaces; leave one out"
        )


def _in_words(value: Any) -> str:
    return "nothing" if value is None else repr(value)
