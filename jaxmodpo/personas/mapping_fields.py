"""What a mapping says of one field: the column it comes from, and what the answers there mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from jaxmodpo.errors import UserError, nearest
from jaxmodpo.personas.answers import plain
from jaxmodpo.personas.mapping_values import (
    as_mapping,
    as_text,
    as_texts,
    refuse_doubled,
    refuse_unknown_keys,
)
from jaxmodpo.personas.participant import (
    ATTITUDES,
    IDENTIFIER,
    IMPORTANCES,
    LISTS,
    TEXTS,
    parse_rating,
)

# What may stand under a field, by the kind of field.
_ID_KEYS = ("column", "number")
_TEXT_KEYS = ("column", "constant", "values", "groups")
_AGE_KEYS = (*_TEXT_KEYS, "bands")
_LIST_KEYS = ("column", "ticks", "values", "separator")
_RATING_KEYS = ("column", "values", "scale")
# Where an answer can come from; a field has exactly one of these.
_ORIGINS = ("column", "ticks", "constant", "number")


@dataclass(frozen=True)
class FieldSource:
    """Where one field comes from.

    Attributes:
        column: the survey's column.
        ticks: of a list: one column per entry, and the entry it stands for.
        constant: of a text: the same answer for everybody.
        number: of the id: rows are counted, since the survey has no ids.
        values: what answers mean, by :func:`jaxmodpo.personas.answers.plain` answer; None counts
            as not answered.
        separator: between a list's entries.
        bands: of an age in years: the lowest age of each band.
        groups: of a text: the group of an answer that contains a word, the first that fits.
    """

    column: str | None = None
    ticks: Mapping[str, str] = field(default_factory=dict)
    constant: str | None = None
    number: bool = False
    values: Mapping[str, str | None] = field(default_factory=dict)
    separator: str = ";"
    bands: tuple[int, ...] = ()
    groups: Mapping[str, str] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """The survey's columns that it reads."""
        if self.ticks:
            return tuple(self.ticks)
        return () if self.column is None else (self.column,)


def keys_of(name: str) -> tuple[str, ...]:
    """Return the keys that may stand under a field."""
    if name == IDENTIFIER:
        return _ID_KEYS
    if name == "age":
        return _AGE_KEYS
    if name in TEXTS:
        return _TEXT_KEYS
    if name in LISTS:
        return _LIST_KEYS
    return _RATING_KEYS


def read_source(name: str, entry: Any, content: Mapping[str, Any], path: Path) -> FieldSource:
    """Read one field's entry: the name of a column, or a mapping of more.

    Args:
        name: our field.
        entry: what stands under it.
        content: the whole file, whose separator and scales an entry may use.
        path: the file, for messages.

    Raises:
        UserError: naming the file and the field.
    """
    location = f"{path}: fields, {name}"
    if not isinstance(entry, Mapping):
        entry = {"column": as_text(entry, location)}
    _check_keys(entry, keys_of(name), location)
    ticks_location = f"{location}, ticks"
    ticks = as_mapping(entry.get("ticks", {}), ticks_location)
    scales = content.get("scales") or {}
    groups_location = f"{location}, groups"
    groups = as_mapping(entry.get("groups", {}), groups_location)
    return FieldSource(
        column=_optional_text(entry, "column", location),
        ticks=_read_ticks(ticks, ticks_location),
        constant=_optional_text(entry, "constant", location),
        number=bool(entry.get("number", False)),
        values=_read_values(name, entry, scales, path),
        separator=_read_separator(entry, content, location),
        bands=_read_bands(entry.get("bands", []), location),
        groups=as_texts(groups, groups_location),
    )


def _optional_text(entry: Mapping[str, Any], key: str, location: str) -> str | None:
    return as_text(entry[key], location) if key in entry else None


def _check_keys(entry: Mapping[str, Any], allowed_keys: tuple[str, ...], location: str) -> None:
    """Refuse unknown keys, and a field with no origin or with two."""
    refuse_unknown_keys(entry, allowed_keys, location)
    origins = [key for key in _ORIGINS if key in entry]
    if len(origins) != 1:
        choices = " or ".join(key for key in _ORIGINS if key in allowed_keys)
        raise UserError(f"{location} must have exactly one of {choices}")
    if "ticks" in entry and not as_mapping(entry["ticks"], f"{location}, ticks"):
        raise UserError(
            f"{location}: ticks must name at least one column, and the entry that it stands for"
        )


def _read_separator(entry: Mapping[str, Any], content: Mapping[str, Any], location: str) -> str:
    separator = entry.get("separator", content.get("separator", ";"))
    if not (isinstance(separator, str) and separator):
        raise UserError(f"{location}: separator must be a text, such as ';'")
    # Entries lose the spaces around them, so ", " and "," mean the same; but a separator that is
    # nothing but space, such as a line break, must stay what it is.
    return separator if separator.isspace() else separator.strip()


def _read_ticks(ticks: Mapping[Any, Any], location: str) -> dict[str, str]:
    """Return the entry that each column's box stands for."""
    entries: dict[str, str] = {}
    for column, entry in ticks.items():
        column_name = as_text(column, location)
        refuse_doubled(column_name, entries, location)
        entries[column_name] = as_text(entry, location)
    return entries


def _read_values(
    name: str, entry: Mapping[str, Any], scales: Any, path: Path
) -> dict[str, str | None]:
    """Return what answers mean, from ``values`` and from the scale that ``scale`` names.

    A scale is written once and used by many ratings; ``values`` stand above it, so that a single
    field can differ.
    """
    location = f"{path}: fields, {name}"
    scales = as_mapping(scales, f"{path}: scales")
    values: dict[str, str | None] = {}
    if "scale" in entry:
        scale = as_text(entry["scale"], f"{location}, scale")
        if scale not in scales:
            hint = nearest(scale, map(str, scales))
            raise UserError(f"{location}: no scale '{scale}' under scales{hint}")
        scale_location = f"{path}: scales, {scale}"
        answers_of_scale = as_mapping(scales[scale], scale_location)
        values |= _read_meanings(answers_of_scale, scale_location)
    values_location = f"{location}, values"
    own_answers = as_mapping(entry.get("values", {}), values_location)
    values |= _read_meanings(own_answers, values_location)
    # A rating that no answer may have would otherwise be noticed only by the first who gave it.
    if name in (*ATTITUDES, *IMPORTANCES):
        for meaning in values.values():
            if meaning is not None:
                parse_rating(meaning, name, location)
    return values


def _read_meanings(values: Mapping[Any, Any], location: str) -> dict[str, str | None]:
    """Return what each answer means; two spellings of one answer may not mean different things."""
    meanings: dict[str, str | None] = {}
    for answer, value in values.items():
        word = as_text(answer, location)
        meaning = None if value is None else as_text(value, location)
        if meanings.setdefault(plain(word), meaning) != meaning:
            refuse_doubled(word, [plain(word)], location)
    return meanings


def _read_bands(bands: Any, location: str) -> tuple[int, ...]:
    if not _are_rising_ages(bands):
        raise UserError(
            f"{location}: bands must be rising ages, each the lowest of its band, as in [18, 25,"
            " 35]"
        )
    return tuple(bands)


def _are_rising_ages(bands: Any) -> bool:
    if not isinstance(bands, list):
        return False
    for age in bands:
        if not isinstance(age, int) or isinstance(age, bool):
            return False
    return all(lower < higher for lower, higher in pairwise(bands))
