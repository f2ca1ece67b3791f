"""Rows of survey files as participants, through a mapping of columns and answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxmodpo.errors import UserError, nearest
from jaxmodpo.files import read_table
from jaxmodpo.personas.answers import EXPIRED, NO, NO_ANSWER, YES, band, group_of, plain
from jaxmodpo.personas.mapping import ID_PREFIX, SurveyMapping, load_mapping
from jaxmodpo.personas.mapping_fields import FieldSource
from jaxmodpo.personas.participant import (
    ATTITUDES,
    IDENTIFIER,
    IMPORTANCES,
    LISTS,
    TEXTS,
    Participant,
    parse_rating,
    quoted,
)
from jaxmodpo.personas.rows import LeftOut, participants_rows, shortened

# The fields that selection and split balance, and without which nobody can be told apart.
_NEEDED = ("population", "age", "gender", "ethnicity")
# What stands in the column of a box that was not ticked, besides nothing.
_UNTICKED = NO | {
    *("-", "–", "—", ".", "#n/a", "n/a", "na", "nan", "nil", "none", "null", "missing"),
    *("unselected", "unchecked", "unticked", "-1", "-9", "-99", "-999", "-99.0", "-999.0"),
}


def read_surveys(
    paths: Sequence[Path], mapping: SurveyMapping | None = None, left_out: LeftOut | None = None
) -> list[Participant]:
    """Read survey files.

    Args:
        paths: CSV files.
        mapping: of their columns; without one, the columns are the canonical ones.
        left_out: counts rows that are no participants', and answers that are too old.

    Raises:
        UserError: a missing column, an answer that is none, a row of which nobody can say that it
            is a participant's, or a participant twice; it names file, row and field, never the
            participant.
    """
    mapping = mapping or load_mapping()
    left_out = LeftOut() if left_out is None else left_out
    participants: dict[str, Participant] = {}
    for path in paths:
        rows = read_table(path, [])
        for number, participant in _read(path, rows, mapping, left_out):
            if participant.participant_id in participants:
                raise UserError(
                    f"{path}, row {number}: the participant_id has been given before; ids must be"
                    " unique"
                )
            participants[participant.participant_id] = participant
    return list(participants.values())


def participants_of(rows: Sequence[Mapping[str, str]]) -> list[Participant]:
    """Return rows of the canonical layout, which no file need hold, as participants."""
    numbered = _read(Path("survey.csv"), rows, load_mapping(), LeftOut())
    return [participant for _, participant in numbered]


def _read(
    path: Path, rows: Sequence[Mapping[str, str]], mapping: SurveyMapping, left_out: LeftOut
) -> Iterator[tuple[int, Participant]]:
    """Yield one file's participants, each with the number of its row."""
    reader = _Reader.of(path, list(rows[0]), mapping)
    if len(rows) <= mapping.skip_rows:
        raise UserError(
            f"{path} has no rows below the {mapping.skip_rows} that {mapping.name} skips"
        )
    for number, row in participants_rows(path, rows, mapping, left_out):
        for column in reader.actual.values():
            left_out.expired += plain(row[column]) == EXPIRED
        yield number, reader.participant(row, number)


@dataclass(frozen=True)
class _Reader:
    """Turns the rows of one file into participants.

    Attributes:
        path: the file.
        mapping: of its columns.
        constants: what the mapping says of every row of this file.
        actual: each column that the mapping names, as this file spells it.
    """

    path: Path
    mapping: SurveyMapping
    constants: Mapping[str, str]
    actual: Mapping[str, str]

    @classmethod
    def of(cls, path: Path, columns: Sequence[str], mapping: SurveyMapping) -> _Reader:
        """Find the mapping's columns in a file, before any row of it is read."""
        constants = mapping.constants(path)
        field_of: dict[str, str] = {}
        for name, source in mapping.sources.items():
            # What is the same for the whole file needs no column in it.
            if name not in constants:
                field_of |= dict.fromkeys(source.columns, name)
        actual = _actual_columns(field_of, columns)
        lacking = {column: name for column, name in field_of.items() if column not in actual}
        if lacking:
            raise UserError(_lacks(path, columns, lacking, mapping))
        unasked = mapping.unasked(constants)
        for name in _NEEDED:
            if name in unasked:
                patterns = ", ".join(mapping.files)
                raise UserError(
                    f"{path}: nothing gives the {name}: {mapping.name} has no column for it, and"
                    f" none of its file patterns ({patterns}) fits this file"
                )
        return cls(path, mapping, constants, actual)

    def participant(self, row: Mapping[str, str], number: int) -> Participant:
        """Read one row, whose number below the header stands in messages."""
        location = f"{self.path}, row {number}"
        rating_names = (*ATTITUDES, *IMPORTANCES)
        return Participant(
            participant_id=self._identifier(row, number),
            texts={name: self._text(row, name, location) for name in TEXTS},
            lists={name: self._list(row, name, location) for name in LISTS},
            ratings={name: self._rating(row, name, location) for name in rating_names},
            groups=self._groups(row),
            unasked=self.mapping.unasked(self.constants),
        )

    def _identifier(self, row: Mapping[str, str], number: int) -> str:
        source = self.mapping.sources[IDENTIFIER]
        if source.number:
            prefix = self.constants.get(ID_PREFIX, f"{self.path.stem}-")
            return f"{prefix}{number:04d}"
        answer = self._answer(row, source)
        if not answer:
            raise UserError(f"{self.path}, row {number}: the participant_id is empty")
        return self.constants.get(ID_PREFIX, "") + answer

    def _answer(self, row: Mapping[str, str], source: FieldSource) -> str:
        """Return a cell on one line, so that no answer can add a line to a profile; empty where not
        answered.
        """
        if source.column is None:
            return source.constant or ""
        text = " ".join(row[self.actual[source.column]].split())
        answer = plain(text)
        if answer in self.mapping.missing:
            return ""
        # "N/A" is no answer in general, but a mapping may give it a meaning, such as "none".
        if answer in NO_ANSWER and answer not in source.values:
            return ""
        return text

    def _text(self, row: Mapping[str, str], name: str, location: str) -> str:
        if name in self.constants:
            return self.constants[name]
        source = self.mapping.sources.get(name)
        answer = self._answer(row, source) if source else ""
        if not (source and answer):
            return ""
        meaning = source.values.get(plain(answer), answer) or ""
        if not (source.bands and meaning):
            return meaning
        # Exact ages become bands at once: they would tell people apart, and no profile needs them.
        age_band: str | None = None
        if re.fullmatch(r"\d{1,3}(\.0*)?", meaning):
            age = int(float(meaning))
            age_band = band(age, source.bands)
        if age_band is None:
            raise UserError(
                f"{location}: {name} must be a whole number of years from {source.bands[0]}, not"
                f" {quoted(answer)}"
            )
        return age_band

    def _list(self, row: Mapping[str, str], name: str, location: str) -> tuple[str, ...]:
        source = self.mapping.sources.get(name)
        if source is None:
            return ()
        listed = self._listed(row, source, location)
        # An entry like "prefer not to say" among others is none, unless the mapping explains it.
        no_entries = NO_ANSWER - source.values.keys()
        meanings: list[str] = []
        for entry in listed:
            if plain(entry) in no_entries:
                continue
            meaning = source.values.get(plain(entry), entry)
            if meaning:
                meanings.append(meaning)
        return tuple(meanings)

    def _listed(self, row: Mapping[str, str], source: FieldSource, location: str) -> list[str]:
        """Return a list's entries as the survey has them, of one column or of one for each."""
        if source.ticks:
            ticked: list[str] = []
            for column, entry in source.ticks.items():
                if self._ticked(row, column, entry, source, location):
                    ticked.append(entry)
            return ticked
        if source.column and self._answer(row, source):
            return entries(row[self.actual[source.column]], source)
        return []

    def _ticked(
        self, row: Mapping[str, str], column: str, entry: str, source: FieldSource, location: str
    ) -> bool:
        """Return whether a box is ticked: a known yes or the entry's own text.

        Whatever is neither a known yes nor a known no is refused. To guess either would put words
        into somebody's profile, or take them out.
        """
        cell = row[self.actual[column]]
        plain_cell = plain(cell)
        plain_entry = plain(entry)
        if plain_cell in self.mapping.missing:
            return False
        if plain_cell in _UNTICKED:
            if plain_cell != plain_entry:
                return False
            # "None" of an entry None: its text, or what a program writes into an empty cell.
            if plain_entry not in source.values:
                raise UserError(
                    f"{location}: the box '{shortened(column)}' holds {quoted(cell)}, which is its"
                    " entry's text and also a way to write that a box was not ticked; list it"
                    " under missing where it means that, and under the field's values where it"
                    " means the entry"
                )
            return True
        # Programs write a yes, the entry's text or the column's own name into a box that is ticked.
        if plain_cell in YES or plain_cell in (plain_entry, plain(column)):
            return True
        raise UserError(
            f"{location}: the box '{shortened(column)}' holds {quoted(cell)}, which is neither a"
            f" yes nor a no nor '{entry}'; list it under missing where it means that the box was"
            " not ticked"
        )

    def _rating(self, row: Mapping[str, str], name: str, location: str) -> float | None:
        source = self.mapping.sources.get(name)
        answer = self._answer(row, source) if source else ""
        if not (source and answer):
            return None
        plain_answer = plain(answer)
        if plain_answer in source.values:
            meaning = source.values[plain_answer]
            return None if meaning is None else float(meaning)
        # Words that the scale lacks are most likely misspelled; a number is read as a rating.
        if source.values and not re.fullmatch(r"[\d.]+", answer):
            hint = nearest(plain_answer, source.values)
            raise UserError(
                f"{location}: {name}: {quoted(answer)} is not among the answers of"
                f" {self.mapping.name}{hint}"
            )
        return parse_rating(answer, name, location)

    def _groups(self, row: Mapping[str, str]) -> dict[str, str]:
        """Return the wider groups that count for balance, of the fields whose mapping has them."""
        groups: dict[str, str] = {}
        for name, source in self.mapping.sources.items():
            if not source.groups or name in self.constants:
                continue
            answer = self._text(row, name, str(self.path))
            if answer:
                groups[name] = group_of(answer, source.groups)
        return groups


def _actual_columns(named: Iterable[str], columns: Sequence[str]) -> dict[str, str]:
    """Return how a file spells each column that a mapping names, where it has the column.

    The exact spelling comes first: a file may have two columns that differ in capitals alone.
    """
    by_plain_name = {plain(column): column for column in columns}
    actual: dict[str, str] = {}
    for column in named:
        spelled = column if column in columns else by_plain_name.get(plain(column))
        if spelled:
            actual[column] = spelled
    return actual


def entries(text: str, source: FieldSource) -> list[str]:
    """Split a list at its separator.

    A separator inside parentheses, as in "help (e.g., hotlines)", does not part, nor does one in an
    answer that ``values`` names whole.
    """
    separator = re.escape(source.separator)
    # Longest first: a regular expression takes the first alternative that fits, and one answer may
    # begin with another.
    with_separator = [answer for answer in source.values if source.separator in answer]
    with_separator.sort(key=len, reverse=True)
    # An entry is a whole answer, or a run of parentheses and of characters that begin no separator.
    alternatives: list[str] = []
    for answer in with_separator:
        alternatives.append(rf"{re.escape(answer)}(?=\s*(?:{separator}|$))")
    alternatives.append(rf"(?:\([^()]*\)|(?!{separator}).)+")
    entry_pattern = "|".join(alternatives)
    pattern = re.compile(rf"\s*({entry_pattern})|{separator}", re.IGNORECASE | re.DOTALL)
    split: list[str] = []
    for match in pattern.finditer(text):
        entry = " ".join((match.group(1) or "").split())
        if entry:
            split.append(entry)
    return split


def _lacks(
    path: Path, columns: Sequence[str], lacking: Mapping[str, str], mapping: SurveyMapping
) -> str:
    """Say which columns a file lacks: of one the nearest column, of several all that there are."""
    names: list[str] = []
    for column, name in lacking.items():
        names.append(column if column == name else f"{shortened(column)} ({name})")
    listed_names = ", ".join(names[:5])
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    if len(lacking) == 1:
        (lacking_column,) = lacking
        hint = nearest(lacking_column, columns)
    else:
        listed_columns = ", ".join(map(shortened, columns[:12]))
        ellipsis = " …" if len(columns) > 12 else ""
        hint = f"; its columns are {listed_columns}{ellipsis}"
    return (
        f"{path} lacks the column {listed_names}{more} of the mapping {Path(mapping.name).stem}"
        f"{hint}; give a mapping of this survey's columns with --mapping"
    )
