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
    return _INVISIBLE.sub(_code_of, text)


def _code_of(match: re.Match[str]) -> str:
    """Return a character's number as Unicode writes it, in brackets."""
    number = ord(match[0])
    return f"⟨U+{number:04X}⟩"


def shortened(text: str, longest: int) -> str:
    """Return a text with its middle left out where it is longer than ``longest`` characters: names
    that begin alike often end differently.
    """
    if len(text) <= longest:
        return text
    # The ellipsis between the two ends is a character too.
    end_length = longest // 3
    beginning_length = longest - end_length - 1
    return f"{text[:beginning_length]}…{text[-end_length:]}"


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


def percent_range(interval: Sequence[float], between: str = "–", digits: int = 1) -> str:
    """Write the ends of an interval of shares in per cent, as in ``21.9–28.1``."""
    low, high = interval
    return f"{100 * low:.{digits}f}{between}{100 * high:.{digits}f}"


def percent_cell(share: float, interval: Sequence[float] | None, absent: str = "") -> Cell:
    """Return a share in per cent with its interval beside it, or why there is none."""
    if interval is None:
        return Cell(percent(share), absent)
    return Cell(percent(share), percent_range(interval))


def interval_in_words(interval: Sequence[float] | None) -> str:
    """Return an interval in per cent, as in ``95% interval 21.9 to 28.1``."""
    if interval is None:
        return "no interval"
    return f"95% interval {percent_range(interval, ' to ')}"


def count(number: int, noun: str) -> str:
    """Return a number with its noun, as in ``1 question`` and ``1,200 questions``."""
    ending = "" if number == 1 else "s"
    return f"{number:,} {noun}{ending}"


def listed(names: Sequence[str]) -> str:
    """Join names into a phrase, as in ``a, b and c``."""
    if len(names) < 2:
        return "".join(names)
    *others, last = names
    return f"{', '.join(others)} and {last}"


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
            inner_name = f"{name}{separator}{key}" if name else str(key)
            rows += flat(inner, inner_name, separator)
        return rows
    if isinstance(value, list | tuple):
        text = ", ".join(map(str, value))
    elif isinstance(value, float):
        text = f"{value:.6g}"
    else:
        text = str(value)
    return [(name, text)]


def counts_in_words(counts: Mapping[str, Any]) -> str:
    """Return nested counts as a phrase without keys: ``pairs 77; cut, prompts 4``."""
    phrases: list[str] = []
    for name, text in flat(counts, separator=", "):
        phrases.append(f"{spoken(name)} {text}".strip())
    return "; ".join(phrases)
