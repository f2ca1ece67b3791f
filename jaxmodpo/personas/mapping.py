"""How another survey's columns and answers become ours: the YAML files of ``--mapping``.

A mapping names a column for each of our fields and, where its answers are other than ours, what
they mean. It is checked in whole when it is read, before a survey is opened; docs/personas.md shows
one.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from jaxmodpo.config import builtin, load_yaml
from jaxmodpo.errors import UserError, nearest
from jaxmodpo.personas.participant import (
    ATTITUDES,
    COLUMNS,
    IDENTIFIER,
    IMPORTANCES,
    LISTS,
    TEXTS,
    parse_rating,
)

CANONICAL = "canonical"
KEYS = ("fields", "files", "scales", "missing", "separator", "skip_rows", "keep", "drop")
# What may stand under a field, by the kind of field.
_ID_KEYS = ("column", "number")
_TEXT_KEYS = ("column", "constant", "values", "groups")
_AGE_KEYS = (*_TEXT_KEYS, "bands")
_LIST_KEYS = ("column", "ticks", "values", "separator")
_RATING_KEYS = ("column", "values", "scale")
ID_PREFIX = "id_prefix"
# Without these there is nothing to balance, or to hide.
_NEEDED = (IDENTIFIER, "population", "age", "gender", "ethnicity")

YES = frozenset(
    {"1", "1.0", "y", "yes", "t", "true", "on", "x", "✓", "✔", "☑", "selected", "checked", "ticked"}
)
"""known spellings of a yes, as :func:`plain` gives them"""

NO = frozenset(
    {"0", "0.0", "n", "no", "f", "false", "off", "not selected", "not checked", "not ticked"}
)
"""known spellings of a no"""

REVOKED, EXPIRED = "consent_revoked", "data_expired"
"""what Prolific writes in place of the data of those who withdrew, and of data that are too old"""

NO_ANSWER = frozenset(
    {
        *(
            "na",
            "n/a",
            "#n/a",
            "<na>",
            "nan",
            "nat",
            "null",
            "#null!",
            "undefined",
            EXPIRED,
            REVOKED,
        ),
        *("-9", "-99", "-999", "-9.0", "-99.0", "-999.0", ".", "-", "–", "—", "missing"),
        *(
            "no answer",
            "not answered",
            "unanswered",
            "seen but unanswered",
            "no response",
            "skipped",
        ),
        *(
            "prefer not to say",
            "prefer not to answer",
            "prefer not to disclose",
            "rather not say",
            "decline to answer",
        ),
        *(
            "i prefer not to say",
            "i prefer not to answer",
            "i'd rather not say",
            "i would rather not say",
        ),
    }
)
"""answers that are none in any survey, unless a mapping's ``values`` say what they mean"""


@dataclass(frozen=True)
class Source:
    """Where one field comes from.

    Attributes:
        column: the survey's column.
        ticks: of a list: one column per entry, and the entry it stands for.
        constant: of a text: the same answer for everybody.
        number: of the id: rows are counted, since the survey has no ids.
        values: what answers mean, by :func:`plain` answer; None counts as not answered.
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
        return tuple(self.ticks) or ((self.column,) if self.column is not None else ())


@dataclass(frozen=True)
class SurveyMapping:
    """A mapping file.

    Attributes:
        name: what to call it in messages.
        sources: by our field; a field that the survey does not ask about, or that files give, is
            absent.
        files: constants by pattern of file name.
        missing: :func:`plain` answers that count as none.
        skip_rows: rows below the header that are no answers.
        keep: by column, the answers of which a participant's row has one: their wording, by
            :func:`plain` answer.
        drop: by column, those that no participant's row has.
    """

    name: str
    sources: Mapping[str, Source]
    files: Mapping[str, Mapping[str, str]]
    missing: frozenset[str]
    skip_rows: int
    keep: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    drop: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def constants(self, path: Path) -> dict[str, str]:
        """Return what the mapping says of a file's every row."""
        found: dict[str, str] = {}
        for pattern, constants in self.files.items():
            if fnmatch.fnmatchcase(path.name.lower(), pattern.lower()):
                found |= constants
        return found

    def unasked(self, constants: Iterable[str]) -> frozenset[str]:
        """Return the fields that neither a column nor a file's constants give."""
        return frozenset(COLUMNS) - self.sources.keys() - set(constants)


def plain(text: str) -> str:
    """Return a column's name or an answer without what spreadsheets change: case, spaces, curly
    apostrophes.
    """
    return " ".join(text.replace("’", "'").split()).casefold()


def find_mapping(name: str) -> Path:
    """Resolve ``--mapping``: a file, or a name of ours in ``configs/personas/``."""
    try:
        return builtin("personas", name)
    except UserError as error:
        raise UserError(f"--mapping: {error}") from error


def load_mapping(name: str | Path = CANONICAL) -> SurveyMapping:
    """Read and check a mapping.

    Raises:
        UserError: an unknown key (the message names the nearest known one), a field without a
            source, or a value that our layout does not have.
    """
    path = find_mapping(str(name))
    content = load_yaml(path)
    _refuse_unknown(content, KEYS, str(path))
    files = {
        str(pattern): _texts(
            _mapping(constants, f"{path}: files, {pattern}"), f"{path}: files, {pattern}"
        )
        for pattern, constants in _mapping(content.get("files") or {}, f"{path}: files").items()
    }
    for pattern, constants in files.items():
        _refuse_unknown(constants, (*TEXTS, ID_PREFIX), f"{path}: files, {pattern}")
    skip_rows = content.get("skip_rows", 0)
    if not isinstance(skip_rows, int) or isinstance(skip_rows, bool) or skip_rows < 0:
        raise UserError(f"{path}: skip_rows must be a whole number of rows, not {skip_rows}")
    missing = content.get("missing") or []
    if not isinstance(missing, list):
        raise UserError(f"{path}: missing must be a list of answers")
    return SurveyMapping(
        name=str(path),
        sources=_sources(content, files, path),
        files=files,
        missing=frozenset({"", *(plain(_text(answer, f"{path}: missing")) for answer in missing)}),
        skip_rows=skip_rows,
        keep=_row_rule(content, "keep", path),
        drop=_row_rule(content, "drop", path),
    )


def _row_rule(content: Mapping[str, Any], rule: str, path: Path) -> dict[str, dict[str, str]]:
    """Read ``keep`` or ``drop``: a bare yes or no stands for all its spellings, and nothing for an
    empty cell.
    """
    columns: dict[str, dict[str, str]] = {}
    for column, said in _mapping(content.get(rule) or {}, f"{path}: {rule}").items():
        where = f"{path}: {rule}, {column}"
        answers: dict[str, str] = {}
        name = _text(column, f"{path}: {rule}")
        _refuse_doubled(name, columns, f"{path}: {rule}")
        for answer in said if isinstance(said, list) else [said]:
            if isinstance(answer, bool):
                answers |= dict.fromkeys(YES if answer else NO, "yes" if answer else "no")
            else:
                word = "" if answer is None else _text(answer, where)
                answers[plain(word)] = word
        if not answers:
            raise UserError(f"{where}: name at least one answer")
        columns[name] = answers
    return columns


def _sources(
    content: Mapping[str, Any], files: Mapping[str, Mapping[str, str]], path: Path
) -> dict[str, Source]:
    fields = _mapping(content.get("fields"), f"{path}: fields")
    _refuse_unknown(fields, COLUMNS, f"{path}: fields")
    by_file = {name for constants in files.values() for name in constants}
    if unsaid := [name for name in COLUMNS if name not in fields and name not in by_file]:
        raise UserError(
            f"{path}: fields says nothing of {', '.join(unsaid)}; give each its column, or null"
            " where the survey does not ask"
        )
    sources = {
        name: _source(name, said, content, path)
        for name, said in fields.items()
        if said is not None
    }
    if absent := [name for name in _NEEDED if name not in sources and name not in by_file]:
        raise UserError(
            f"{path}: fields, {absent[0]} cannot be null: personas are balanced by it or told apart"
            " by it"
        )
    if not any(name in sources for name in IMPORTANCES):
        raise UserError(
            f"{path}: fields: a survey needs at least one importance rating, such as"
            f" {IMPORTANCES[0]}"
        )
    return sources


def _source(name: str, said: Any, content: Mapping[str, Any], path: Path) -> Source:
    """Read what a mapping says of one field: the name of a column, or a mapping of more."""
    where = f"{path}: fields, {name}"
    if not isinstance(said, Mapping):
        said = {"column": _text(said, where)}
    allowed = keys_of(name)
    _refuse_unknown(said, allowed, where)
    origins = [key for key in ("column", "ticks", "constant", "number") if key in said]
    if len(origins) != 1:
        choices = " or ".join(
            key for key in ("column", "ticks", "constant", "number") if key in allowed
        )
        raise UserError(f"{where} must have exactly one of {choices}")
    if "ticks" in said and not _mapping(said["ticks"], f"{where}, ticks"):
        raise UserError(
            f"{where}: ticks must name at least one column, and the entry that it stands for"
        )
    separator = said.get("separator", content.get("separator", ";"))
    if not (isinstance(separator, str) and separator):
        raise UserError(f"{where}: separator must be a text, such as ';'")
    return Source(
        column=_text(said["column"], where) if "column" in said else None,
        ticks=_ticks(_mapping(said.get("ticks", {}), f"{where}, ticks"), f"{where}, ticks"),
        constant=_text(said["constant"], where) if "constant" in said else None,
        number=bool(said.get("number", False)),
        values=_values(name, said, content.get("scales") or {}, path),
        # An entry loses the spaces around it; a line break may part entries all the same.
        separator=separator if separator.isspace() else separator.strip(),
        bands=_bands(said.get("bands", []), where),
        groups=_texts(_mapping(said.get("groups", {}), f"{where}, groups"), f"{where}, groups"),
    )


def keys_of(name: str) -> tuple[str, ...]:
    """Return the keys that may stand under a field."""
    if name == IDENTIFIER:
        return _ID_KEYS
    if name == "age":
        return _AGE_KEYS
    if name in TEXTS:
        return _TEXT_KEYS
    return _LIST_KEYS if name in LISTS else _RATING_KEYS


def _ticks(said: Mapping[Any, Any], where: str) -> dict[str, str]:
    """Return the entry that each column's box stands for."""
    ticks: dict[str, str] = {}
    for column, entry in said.items():
        _refuse_doubled(_text(column, where), ticks, where)
        ticks[_text(column, where)] = _text(entry, where)
    return ticks


def _values(name: str, said: Mapping[str, Any], scales: Any, path: Path) -> dict[str, str | None]:
    """Return what answers mean, from ``values`` and from the scale that ``scale`` names."""
    where = f"{path}: fields, {name}"
    scales = _mapping(scales, f"{path}: scales")
    if "scale" in said and _text(said["scale"], f"{where}, scale") not in scales:
        raise UserError(
            f"{where}: no scale '{said['scale']}' under"
            f" scales{nearest(str(said['scale']), map(str, scales))}"
        )
    values: dict[str, str | None] = {}
    if "scale" in said:
        place = f"{path}: scales, {said['scale']}"
        values |= _meanings(_mapping(scales[said["scale"]], place), place)
    values |= _meanings(_mapping(said.get("values", {}), f"{where}, values"), f"{where}, values")
    if name in (*ATTITUDES, *IMPORTANCES):
        for meaning in values.values():
            if meaning is not None:
                parse_rating(meaning, name, where)
    return values


def _meanings(said: Mapping[Any, Any], where: str) -> dict[str, str | None]:
    """Return what each answer means; two spellings of one answer may not mean different things."""
    meanings: dict[str, str | None] = {}
    for answer, meaning in said.items():
        word, text = _text(answer, where), None if meaning is None else _text(meaning, where)
        if meanings.setdefault(plain(word), text) != text:
            _refuse_doubled(word, [plain(word)], where)
    return meanings


def _refuse_doubled(name: str, before: Iterable[str], where: str) -> None:
    """Refuse a name that stands there already in other capitals or spaces, since one of the two
    would be lost.
    """
    if plain(name) in map(plain, before):
        raise UserError(
            f"{where}: '{name}' stands there twice, in other capitals or spaces; leave one out"
        )


def _bands(said: Any, where: str) -> tuple[int, ...]:
    whole = isinstance(said, list) and all(
        isinstance(age, int) and not isinstance(age, bool) for age in said
    )
    if not whole or any(low >= high for low, high in pairwise(said)):
        raise UserError(
            f"{where}: bands must be rising ages, each the lowest of its band, as in [18, 25, 35]"
        )
    return tuple(said)


def band(age: int, bands: tuple[int, ...]) -> str | None:
    """Return an age's band, as in "25-34" or "55+"; None below the first."""
    at = sum(low <= age for low in bands)
    if at == 0:
        return None
    return f"{bands[-1]}+" if at == len(bands) else f"{bands[at - 1]}-{bands[at] - 1}"


def group_of(answer: str, groups: Mapping[str, str]) -> str:
    """Return the group of the first word that begins a word of the answer, else "Other"."""
    for word, group in groups.items():
        if re.search(rf"(?<!\w){re.escape(plain(word))}", plain(answer)):
            return group
    return "Other"


def _refuse_unknown(said: Mapping[Any, Any], known: Iterable[str], where: str) -> None:
    known = tuple(known)
    for key in said:
        if key not in known:
            raise UserError(f"{where}: unknown key '{key}'{nearest(str(key), known)}")


def _mapping(value: Any, where: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{where} must be a mapping, not {_said(value)}")
    return value


def _texts(value: Mapping[Any, Any], where: str) -> dict[str, str]:
    return {_text(key, where): _text(meaning, where) for key, meaning in value.items()}


def _text(value: Any, where: str) -> str:
    """Return a YAML scalar as text; YAML reads a bare yes, no, on or off as true or false."""
    if isinstance(value, bool):
        raise UserError(
            f"{where}: a bare yes, no, true or false is no text to YAML; put it in quotes"
        )
    if not isinstance(value, str | int | float):
        raise UserError(f"{where}: expected a text, not {_said(value)}")
    return str(value)


def _said(value: Any) -> str:
    return "nothing" if value is None else repr(value)
