"""How another survey's columns and answers become ours: the YAML files of ``--mapping``.

A mapping names a column for each of our fields and, where its answers are other than ours, what
they mean. It is checked in whole when it is read, before a survey is opened; docs/personas.md shows
one.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxmodpo.config import builtin, load_yaml
from jaxmodpo.errors import UserError
from jaxmodpo.personas.answers import NO, YES, plain
from jaxmodpo.personas.mapping_fields import FieldSource, read_source
from jaxmodpo.personas.mapping_values import (
    as_mapping,
    as_text,
    as_texts,
    refuse_doubled,
    refuse_unknown_keys,
)
from jaxmodpo.personas.participant import COLUMNS, IDENTIFIER, IMPORTANCES, TEXTS

CANONICAL = "canonical"
KEYS = ("fields", "files", "scales", "missing", "separator", "skip_rows", "keep", "drop")
ID_PREFIX = "id_prefix"
# Without these there is nothing to balance, or to hide.
_NEEDED = (IDENTIFIER, "population", "age", "gender", "ethnicity")


@dataclass(frozen=True)
class SurveyMapping:
    """A mapping file.

    Attributes:
        name: what to call it in messages.
        sources: by our field; a field that the survey does not ask about, or that files give, is
            absent.
        files: constants by pattern of file name.
        missing: :func:`jaxmodpo.personas.answers.plain` answers that count as none.
        skip_rows: rows below the header that are no answers.
        keep: by column, the answers of which a participant's row has one: their wording, by plain
            answer.
        drop: by column, those that no participant's row has.
    """

    name: str
    sources: Mapping[str, FieldSource]
    files: Mapping[str, Mapping[str, str]]
    missing: frozenset[str]
    skip_rows: int
    keep: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    drop: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def constants(self, path: Path) -> dict[str, str]:
        """Return what the mapping says of a file's every row."""
        of_file: dict[str, str] = {}
        for pattern, constants in self.files.items():
            # Patterns may overlap, as in "*.csv" and "ucla*": the later one says more.
            if fnmatch.fnmatchcase(path.name.lower(), pattern.lower()):
                of_file |= constants
        return of_file

    def unasked(self, constants: Iterable[str]) -> frozenset[str]:
        """Return the fields that neither a column nor a file's constants give."""
        return frozenset(COLUMNS) - self.sources.keys() - set(constants)


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
    refuse_unknown_keys(content, KEYS, str(path))
    files = _read_files(content, path)
    skip_rows = content.get("skip_rows", 0)
    if not isinstance(skip_rows, int) or isinstance(skip_rows, bool) or skip_rows < 0:
        raise UserError(f"{path}: skip_rows must be a whole number of rows, not {skip_rows}")
    missing = content.get("missing") or []
    if not isinstance(missing, list):
        raise UserError(f"{path}: missing must be a list of answers")
    # An empty cell is missing in every survey.
    missing_answers = {""}
    for answer in missing:
        missing_answers.add(plain(as_text(answer, f"{path}: missing")))
    return SurveyMapping(
        name=str(path),
        sources=_read_sources(content, files, path),
        files=files,
        missing=frozenset(missing_answers),
        skip_rows=skip_rows,
        keep=_read_row_rule(content, "keep", path),
        drop=_read_row_rule(content, "drop", path),
    )


def _read_files(content: Mapping[str, Any], path: Path) -> dict[str, dict[str, str]]:
    """Return the constants of every row of a file, by pattern of the file's name."""
    files: dict[str, dict[str, str]] = {}
    section = as_mapping(content.get("files") or {}, f"{path}: files")
    for pattern, constants in section.items():
        location = f"{path}: files, {pattern}"
        files[str(pattern)] = as_texts(as_mapping(constants, location), location)
    for pattern, constants in files.items():
        refuse_unknown_keys(constants, (*TEXTS, ID_PREFIX), f"{path}: files, {pattern}")
    return files


def _read_row_rule(content: Mapping[str, Any], rule: str, path: Path) -> dict[str, dict[str, str]]:
    """Read ``keep`` or ``drop``: a bare yes or no stands for all its spellings, and nothing for an
    empty cell.
    """
    columns: dict[str, dict[str, str]] = {}
    section = as_mapping(content.get(rule) or {}, f"{path}: {rule}")
    for column, listed in section.items():
        location = f"{path}: {rule}, {column}"
        name = as_text(column, f"{path}: {rule}")
        refuse_doubled(name, columns, f"{path}: {rule}")
        answers: dict[str, str] = {}
        for answer in listed if isinstance(listed, list) else [listed]:
            if isinstance(answer, bool):
                spellings = YES if answer else NO
                answers |= dict.fromkeys(spellings, "yes" if answer else "no")
            else:
                word = "" if answer is None else as_text(answer, location)
                answers[plain(word)] = word
        # An empty list would keep nobody, or drop nobody, without a word about it.
        if not answers:
            raise UserError(f"{location}: name at least one answer")
        columns[name] = answers
    return columns


def _read_sources(
    content: Mapping[str, Any], files: Mapping[str, Mapping[str, str]], path: Path
) -> dict[str, FieldSource]:
    """Read ``fields``.

    Every field must be mentioned, be it with null: a forgotten one would silently count as a
    question that the survey does not ask, and lower nobody's quality.
    """
    fields = as_mapping(content.get("fields"), f"{path}: fields")
    refuse_unknown_keys(fields, COLUMNS, f"{path}: fields")
    of_files: set[str] = set()
    for constants in files.values():
        of_files |= constants.keys()
    unmentioned = [name for name in COLUMNS if name not in fields and name not in of_files]
    if unmentioned:
        raise UserError(
            f"{path}: fields says nothing of {', '.join(unmentioned)}; give each its column, or"
            " null where the survey does not ask"
        )
    sources: dict[str, FieldSource] = {}
    for name, entry in fields.items():
        if entry is not None:
            sources[name] = read_source(name, entry, content, path)
    absent = [name for name in _NEEDED if name not in sources and name not in of_files]
    if absent:
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
