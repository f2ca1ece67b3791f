"""A checked read of a JSON mapping into typed fields.

A settings file of somebody else's (``config.json``, ``adapter_config.json``) may hold anything where a number is
expected, and fields that no reader knows. :class:`Fields` hands out one field at a time, of the type and in the range
that its reader asks for, and at the end refuses whatever was neither read nor known to be harmless. Every refusal
names the file and the field.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from typing import Any

from jaxmodpo.errors import UserError

LARGEST = 2**31 - 1
"""the largest whole number that a shape may have: array indices are 32-bit"""

_LONGEST_SHOWN = 80


def is_integer(value: Any) -> bool:
    """Return whether a JSON value is a whole number; Python counts ``true`` as one, JSON does not."""
    return isinstance(value, int) and not isinstance(value, bool)


class Fields:
    """The fields of one mapping, each read once.

    Args:
        settings: what the file holds.
        source: the file, for errors.
    """

    def __init__(self, settings: Mapping[str, Any], source: str):
        self.source = source
        self._left = dict(settings)

    def take(self, name: str, default: Any = None) -> Any:
        """Return a field of any type; ``default`` where it is absent or null."""
        value = self._left.pop(name, None)
        return default if value is None else value

    def integer(self, name: str, default: int | None = None, *, least: int = 1, most: int = LARGEST) -> int:
        """Return a whole number from ``least`` to ``most``; without a default the field is needed."""
        value = self.take(name, default)
        if value is None:
            raise UserError(f"{self.source}: the field '{name}' is missing or not a whole number")
        if not is_integer(value) or not least <= value <= most:
            raise self.wrong(name, value, f"a whole number from {least} to {most}")
        return value

    def number(self, name: str, default: float | None = None, *, above: float | None = None) -> float:
        """Return a finite number, greater than ``above`` where that is given."""
        value = self.take(name, default)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or (above is not None and value <= above):
            raise self.wrong(name, value, "a number" if above is None else f"a number above {above}")
        return float(value)

    def rate(self, name: str, default: float) -> float:
        """Return a rate of dropout, in [0, 1)."""
        value = self.number(name, default)
        if not 0 <= value < 1:
            raise self.wrong(name, value, "a number from 0 to below 1")
        return value

    def boolean(self, name: str, default: bool) -> bool:
        """Return true or false."""
        value = self.take(name, default)
        if not isinstance(value, bool):
            raise self.wrong(name, value, "true or false")
        return value

    def only(self, name: str, *supported: Any) -> None:
        """Refuse a field that is there and holds none of ``supported``; null is as good as absent."""
        value = self.take(name, supported[0])
        # Compared with their types, since Python's True equals 1.
        if not any(type(value) is type(one) and value == one for one in supported):
            raise UserError(f"{self.source}: {name} {_shown(value)} is not supported")

    def refuse_rest(self, harmless: Collection[str]) -> None:
        """Refuse the first field that was not read, is not harmless, and holds more than nothing."""
        for name in sorted(self._left):
            if name not in harmless and not _is_nothing(self._left[name]):
                raise UserError(
                    f"{self.source}: the field '{name}' is not supported (it holds {_shown(self._left[name])})"
                )

    def wrong(self, name: str, value: Any, needed: str) -> UserError:
        """Return the error of a field that holds something else than it must."""
        return UserError(f"{self.source}: {name} must be {needed}, not {_shown(value)}")


def _is_nothing(value: Any) -> bool:
    """Return whether a value says as much as an absent field; 0 says more, though it equals ``False`` in Python."""
    return value is None or value is False or (isinstance(value, str | list | dict) and not value)


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"
