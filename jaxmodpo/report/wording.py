"""How a report says numbers and names: per cents, p values, intervals, and texts of strangers."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jaxmodpo.report.blocks import Cell
from jaxmodpo.results.versioned import plain

NO_INTERVAL = "one question: no interval"

# Control characters, halves of surrogate pairs, and what turns the direction of the text around it.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069"
    "\ud800-\udfff\ufffe\uffff]"
)
_BROKEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def visible(text: str) -> str:
    """Write characters that cannot be seen, or that would turn the text around them, as codes.

    Example: ``visible("a\\u202eb")`` is ``"a⟨U+202E⟩b"``.
    """
    return _INVISIBLE.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text)


def shortened(text: str, longest: int) -> str:
    """Return a text with its middle left out where it is longer than ``longest`` characters: names
    that begin alike often end differently.
    """
    if len(text) <= longest:
        return text
    end = longest // 3
    return f"{text[: longest - end - 1]}…{text[-end:]}"


def readable(text: str) -> str:
    """Return a person's or a model's text as a page can hold it, with its marks of direction: they
    belong to languages that are written from right to left.
    """
    return _BROKEN.sub("\ufffd", text)


def percent(share: float) -> str:
    """Write a share of 0 to 1 as a number of per cent with one digit."""
    return f"{100 * share:.1f}"


def p_value(value: float) -> str:
    """Write a p value with three digits, and no smaller one than they can say."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def p_equals(value: float) -> str:
    """Write a p value with its sign, as in ``p = 0.031``."""
    return f"p {p_value(value)}" if value < 0.001 else f"p = {p_value(value)}"


def percent_cell(share: float, interval: Sequence[float] | None, absent: str = "") -> Cell:
    """Return a share in per cent with its interval beside it, or why there is none."""
    if interval is None:
        return Cell(percent(share), absent)
    return Cell(percent(share), f"{percent(interval[0])}–{percent(interval[1])}")


def interval_in_words(interval: Sequence[float] | None) -> str:
    """Return an interval in per cent, as in ``95% interval 21.9 to 28.1``."""
    if interval is None:
        return "no interval"
    return f"95% interval {percent(interval[0])} to {percent(interval[1])}"


def count(number: int, noun: str) -> str:
    """Return a number with its noun, as in ``1 question`` and ``1,200 questions``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: Sequence[str]) -> str:
    """Join names into a phrase, as in ``a, b and c``."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def title(name: str) -> str:
    """Return a name of ours, such as a criterion's, as a heading: ``Active listening``."""
    spaced = name.replace("_", " ")
    return spaced[:1].upper() + spaced[1:]


def spoken(name: str) -> str:
    """Return a name of ours inside a sentence: ``active listening``."""
    return name.replace("_", " ")


def flat(value: Any, name: str = "", separator: str = ".") -> list[tuple[str, str]]:
    """Flatten nested settings or counts into joined names and their values as text.

    Example: ``flat({"failed": {"refusal": 9}})`` is ``[("failed.refusal", "9")]``.
    """
    if dataclasses.is_dataclass(value):
        value = plain(value)
    if isinstance(value, Mapping):
        rows: list[tuple[str, str]] = []
        for key, inner in value.items():
            rows += flat(inner, f"{name}{separator}{key}" if name else str(key), separator)
        return rows
    if isinstance(value, list | tuple):
        return [(name, ", ".join(map(str, value)))]
    return [(name, f"{value:.6g}" if isinstance(value, float) else str(value))]


def counts_in_words(counts: Mapping[str, Any]) -> str:
    """Return nested counts as a phrase without keys: ``pairs 77; cut, prompts 4``."""
    phrases: list[str] = []
    for name, text in flat(counts, separator=", "):
        phrases.append(f"{spoken(name)} {text}".strip())
    return "; ".join(phrases)
