"""Rows of survey files as participants, through a mapping of columns and answers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxmodpo.errors import UserError, nearest
from jaxmodpo.files import read_table
from jaxmodpo.personas.mapping import (
    EXPIRED,
    ID_PREFIX,
    NO,
    NO_ANSWER,
    YES,
    Source,
    SurveyMapping,
    band,
    group_of,
    load_mapping,
    plain,
)
from jaxmodpo.personas.participant import (
    ATTITUDES,
    IDENTIFIER,
    IMPORTANCES,
    LISTS,
    TEXTS,
    Participant,
    parse_rating,
    shown,
)
from jaxmodpo.personas.rows import LeftOut, participants_rows

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
        for number, participant in _read(path, read_table(path, []), mapping, left_out):
            if participant.participant_id in participants:
                raise UserError(
                    f"{path}, row {number}: the participant_id has been given before; ids must be"
                    " unique"
                )
            participants[participant.participant_id] = participant
    return list(participants.values())


def participants_of(rows: Sequence[Mapping[str, str]]) -> list[Participant]:
    """Return rows of the canonical layout, which no file need hold, as participants."""
    return [
        participant for _, participant in _read(Path("survey.csv"), rows, load_mapping(), LeftOut())
    ]


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
        left_out.expired += sum(plain(row[column]) == EXPIRED for column in reader.actual.values())
        yield number, reader.participant(row, number)


@dataclass(frozen=True)
class _Reader:
    """One file's way from a row to a participant; ``actual`` is each column as this file spells
    it.
    """

    path: Path
    mapping: SurveyMapping
    constants: Mapping[str, str]
    actual: Mapping[str, str]

    @classmethod
    def of(cls, path: Path, columns: Sequence[str], mapping: SurveyMapping) -> _Reader:
        constants = mapping.constants(path)
        spelled = {plain(column): column for column in columns} | {
            column: column for column in columns
        }
        wanted = {
            c: name
            for name, s in mapping.sources.items()
            if name not in constants
            for c in s.columns
        }
        actual = {c: spelled[c] if c in spelled else spelled.get(plain(c), "") for c in wanted}
        if lacking := [column for column, found in actual.items() if not found]:
            raise UserError(
                _lacks(path, columns, {column: wanted[column] for column in lacking}, mapping)
            )
        for name in ("population", "age", "gender", "ethnicity"):
            if name in mapping.unasked(constants):
                raise UserError(
                    f"{path}: nothing gives the {name}: {mapping.name} has no column for it, and"
                    f" none of its file patterns ({', '.join(mapping.files)}) fits this file"
                )
        return cls(path, mapping, constants, actual)

    def participant(self, row: Mapping[str, str], number: int) -> Participant:
        where = f"{self.path}, row {number}"
        return Participant(
            participant_id=self._identifier(row, number),
            texts={name: self._text(row, name, where) for name in TEXTS},
            lists={name: self._list(row, name, where) for name in LISTS},
            ratings={name: self._rating(row, name, where) for name in (*ATTITUDES, *IMPORTANCES)},
            groups=self._groups(row),
            unasked=self.mapping.unasked(self.constants),
        )

    def _identifier(self, row: Mapping[str, str], number: int) -> str:
        source = self.mapping.sources[IDENTIFIER]
        if source.number:
            return f"{self.constants.get(ID_PREFIX, f'{self.path.stem}-')}{number:04d}"
        answer = self._answer(row, source)
        if not answer:
            raise UserError(f"{self.path}, row {number}: the participant_id is empty")
        return self.constants.get(ID_PREFIX, "") + answer

    def _answer(self, row: Mapping[str, str], source: Source) -> str:
        """Return a cell on one line, so that no answer can add a line to a profile; empty where not
        answered.
        """
        if source.column is None:
            return source.constant or ""
        text = " ".join(row[self.actual[source.column]].split())
        said = plain(text)
        return (
            ""
            if said in self.mapping.missing or (said in NO_ANSWER and said not in source.values)
            else text
        )

    def _text(self, row: Mapping[str, str], name: str, where: str) -> str:
        if name in self.constants:
            return self.constants[name]
        source = self.mapping.sources.get(name)
        answer = self._answer(row, source) if source else ""
        if not (source and answer):
            return ""
        meaning = source.values.get(plain(answer), answer) or ""
        if not (source.bands and meaning):
            return meaning
        in_band = (
            band(int(float(meaning)), source.bands)
            if re.fullmatch(r"\d{1,3}(\.0*)?", meaning)
            else None
        )
        if in_band is None:
            raise UserError(
                f"{where}: {name} must be a whole number of years from {source.bands[0]}, not"
                f" {shown(answer)}"
            )
        return in_band

    def _list(self, row: Mapping[str, str], name: str, where: str) -> tuple[str, ...]:
        source = self.mapping.sources.get(name)
        if source is None:
            return ()
        if source.ticks:
            found = [
                entry
                for column, entry in source.ticks.items()
                if self._ticked(row, column, entry, source, where)
            ]
        else:
            found = (
                entries(row[self.actual[source.column]], source)
                if source.column and self._answer(row, source)
                else []
            )
        meanings = (
            source.values.get(plain(entry), entry)
            for entry in found
            if plain(entry) not in NO_ANSWER - source.values.keys()
        )
        return tuple(meaning for meaning in meanings if meaning)

    def _ticked(
        self, row: Mapping[str, str], column: str, entry: str, source: Source, where: str
    ) -> bool:
        """Return whether a box is ticked: a known yes or the entry's own text; what is not known is
        no yes.
        """
        cell = row[self.actual[column]]
        if plain(cell) in self.mapping.missing:
            return False
        if plain(cell) in _UNTICKED:
            if plain(cell) != plain(entry):
                return False
            # "None" of an entry None: its text, or what a program writes into an empty cell.
            if plain(entry) not in source.values:
                raise UserError(
                    f"{where}: the box '{_short(column)}' holds {shown(cell)}, which is its entry's"
                    " text and also a way to write that a box was not ticked; list it under"
                    " missing where it means that, and under the field's values where it means the"
                    " entry"
                )
            return True
        if plain(cell) in YES | {plain(entry), plain(column)}:
            return True
        raise UserError(
            f"{where}: the box '{_short(column)}' holds {shown(cell)}, which is neither a yes nor a"
            f" no nor '{entry}'; list it under missing where it means that the box was not ticked"
        )

    def _rating(self, row: Mapping[str, str], name: str, where: str) -> float | None:
        source = self.mapping.sources.get(name)
        answer = self._answer(row, source) if source else ""
        if not (source and answer):
            return None
        if plain(answer) in source.values:
            meaning = source.values[plain(answer)]
            return None if meaning is None else float(meaning)
        if source.values and not re.fullmatch(r"[\d.]+", answer):
            hint = nearest(plain(answer), source.values)
            raise UserError(
                f"{where}: {name}: {shown(answer)} is not among the answers of"
                f" {self.mapping.name}{hint}"
            )
        return parse_rating(answer, name, where)

    def _groups(self, row: Mapping[str, str]) -> dict[str, str]:
        grouped = {
            n: s for n, s in self.mapping.sources.items() if s.groups and n not in self.constants
        }
        answers = {name: self._text(row, name, str(self.path)) for name in grouped}
        return {
            name: group_of(answer, grouped[name].groups)
            for name, answer in answers.items()
            if answer
        }


def entries(text: str, source: Source) -> list[str]:
    """Split a list at its separator.

    A separator inside parentheses, as in "help (e.g., hotlines)", does not part, nor does one in an
    answer that ``values`` names whole.
    """
    separator = re.escape(source.separator)
    whole = sorted((v for v in source.values if source.separator in v), key=len, reverse=True)
    known = "".join(rf"{re.escape(v)}(?=\s*(?:{separator}|$))|" for v in whole)
    pattern = re.compile(
        rf"\s*({known}(?:\([^()]*\)|(?!{separator}).)+)|{separator}", re.IGNORECASE | re.DOTALL
    )
    return [
        entry
        for match in pattern.finditer(text)
        if (entry := " ".join((match.group(1) or "").split()))
    ]


def _lacks(
    path: Path, columns: Sequence[str], lacking: Mapping[str, str], mapping: SurveyMapping
) -> str:
    names = [
        column if column == name else f"{_short(column)} ({name})"
        for column, name in lacking.items()
    ]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    close = (
        nearest(next(iter(lacking)), columns)
        if len(lacking) == 1
        else (
            "; its columns are"
            f" {', '.join(map(_short, columns[:12]))}{' …' if len(columns) > 12 else ''}"
        )
    )
    return (
        f"{path} lacks the column {', '.join(names[:5])}{more} of the mapping"
        f" {Path(mapping.name).stem}{close}; give a mapping of this survey's columns with --mapping"
    )


def _short(column: str) -> str:
    """Cut a column that is a whole question."""
    return column if len(column) <= 40 else f"{column[:39]}…"
