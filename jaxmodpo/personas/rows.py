"""Which rows of a survey's export are participants': ``keep`` and ``drop`` of a mapping, and what
they may not miss.

An export holds more than the answers of those who agreed: previews by the survey's makers, spam,
people who left half-way or never consented, and who withdrew. What is not known to be a participant
is none: a row that the well-known columns of survey services call something else is left out by the
mapping, or kept by it; where the mapping says nothing, the survey is refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jaxmodpo.errors import UserError, nearest
from jaxmodpo.parsing import JsonObject
from jaxmodpo.personas.answers import REVOKED, plain
from jaxmodpo.personas.consent import Doubt, doubts
from jaxmodpo.personas.mapping import SurveyMapping

Answers = Mapping[str, Mapping[str, str]]
"""by column as the file spells it: the wording of each answer, by plain answer"""

_HYPHEN = re.compile(r"(?<=[a-z])[-_](?=[a-z])")
_SHOWN_VALUES = 6
_SHOWN_LENGTH = 24


@dataclass
class LeftOut:
    """What of surveys became no participant, or no answer.

    Attributes:
        rows: how many rows there were below those that ``skip_rows`` skips.
        by_rule: how many of them were left out, by the rule that did.
        expired: answers that read DATA_EXPIRED, and count as not given.
    """

    rows: int = 0
    by_rule: Counter[str] = field(default_factory=Counter)
    expired: int = 0

    def summary(self) -> JsonObject:
        """Return what manifest and report hold."""
        return {
            "rows": self.rows,
            "left_out": self.by_rule.total(),
            "by_rule": dict(self.by_rule),
            "expired_answers": self.expired,
        }

    def words(self) -> str:
        """Say it in a sentence, or nothing where every row was taken whole."""
        sentences: list[str] = []
        if self.by_rule:
            sentences.append(
                f"{self.by_rule.total()} of {self.rows} survey rows were left out:"
                f" {_counts(self.by_rule)}"
            )
        if self.expired:
            sentences.append(f"{self.expired} answers read DATA_EXPIRED and count as not given")
        return "; ".join(sentences)


def participants_rows(
    path: Path, rows: Sequence[Mapping[str, str]], mapping: SurveyMapping, left_out: LeftOut
) -> list[tuple[int, Mapping[str, str]]]:
    """Return a file's rows of participants, each with its number.

    Args:
        path: the file.
        rows: all of it.
        mapping: says which rows to keep, drop and skip.
        left_out: counts the others.

    Raises:
        UserError: a column that ``keep`` or ``drop`` names is not there, a row is no participant's
            by a well-known column of which the mapping says nothing, or no row is left.
    """
    columns = list(rows[0])
    labels = rows[: mapping.skip_rows]
    answer_rows = rows[mapping.skip_rows :]
    keep = _by_actual_column(path, columns, "keep", mapping.keep, mapping)
    drop = _by_actual_column(path, columns, "drop", mapping.drop, mapping)
    by_rule = _zero_counts(keep, drop)
    participants: list[tuple[int, Mapping[str, str]]] = []
    # Rows are numbered as a person counts them below the header, skipped ones included.
    for number, row in enumerate(answer_rows, mapping.skip_rows + 1):
        rule = _first_rule(row, keep, drop)
        if rule is None:
            participants.append((number, row))
        else:
            by_rule[rule] += 1
    _refuse_headers(path, participants)
    # Only rows that passed keep and drop are doubted: what a mapping leaves out needs no defense.
    _refuse_doubtful(path, participants, doubts(columns, labels, answer_rows, keep))
    if not participants:
        raise UserError(
            f"{path}: all of its {len(answer_rows)} rows were left out: {_counts(by_rule)}; look at"
            " the mapping's keep and drop, or leave the file out"
        )
    left_out.rows += len(answer_rows)
    left_out.by_rule.update(by_rule)
    return participants


def _by_actual_column(
    path: Path, columns: Sequence[str], rule: str, answers: Answers, mapping: SurveyMapping
) -> dict[str, Mapping[str, str]]:
    """Return a rule's answers by the columns' names as the file spells them."""
    by_column: dict[str, Mapping[str, str]] = {}
    for column, of_column in answers.items():
        by_column[_actual(path, column, columns, rule, mapping)] = of_column
    return by_column


def _actual(
    path: Path, column: str, columns: Sequence[str], rule: str, mapping: SurveyMapping
) -> str:
    """Return a column that a rule names as the file spells it."""
    for spelled in columns:
        if plain(spelled) == plain(column):
            return spelled
    raise UserError(
        f"{path} lacks the column '{shortened(column)}' that {rule} names in the mapping"
        f" {Path(mapping.name).stem}{nearest(column, map(shortened, columns))}"
    )


def _zero_counts(keep: Answers, drop: Answers) -> Counter[str]:
    """Return every rule with a count of zero.

    A rule that left nothing out stands in the report too: a zero often shows a misspelled answer.
    """
    by_rule: Counter[str] = Counter()
    for column, answers in drop.items():
        for word in answers.values():
            by_rule[_dropped(column, word)] = 0
    for column in keep:
        by_rule[_not_kept(column)] = 0
    return by_rule


def _first_rule(row: Mapping[str, str], keep: Answers, drop: Answers) -> str | None:
    """Return the first rule that leaves a row out, or None.

    ``drop`` comes before ``keep``, so that a report counts a row under the more telling of the two.
    """
    for column, answers in drop.items():
        word = answers.get(plain(row[column]))
        if word is not None:
            return _dropped(column, word)
    for column, answers in keep.items():
        if plain(row[column]) not in answers:
            return _not_kept(column)
    # Prolific overwrites the answers of those who withdrew; no mapping has to mention them.
    if any(plain(cell) == REVOKED for cell in row.values()):
        return REVOKED.upper()
    return None


def _dropped(column: str, word: str) -> str:
    return f"drop {shortened(column)}: {word or 'empty'}"


def _not_kept(column: str) -> str:
    """Name the rule, without what stood there instead, which may be somebody's words."""
    return f"not what keep says of {shortened(column)}"


def _refuse_headers(path: Path, rows: Iterable[tuple[int, Mapping[str, str]]]) -> None:
    """Refuse rows that are a second or third header, as Qualtrics writes them."""
    for number, row in rows:
        cells = [plain(cell).replace(" ", "") for cell in row.values()]
        if any(cell.startswith('{"importid":') for cell in cells):
            raise UserError(
                f"{path}, row {number}: Qualtrics names its columns in this row, which is nobody's"
                f" answers; give the mapping skip_rows: {number}"
            )


def _refuse_doubtful(
    path: Path,
    rows: Iterable[tuple[int, Mapping[str, str]]],
    doubt_by_column: Mapping[str, Doubt],
) -> None:
    """Refuse rows that are not known to be participants'.

    All doubtful answers are named at once, in a rule that can be pasted into the mapping: a survey
    has several kinds of them, and whoever mends one at a time runs the command as many times.
    """
    times: Counter[tuple[str, str]] = Counter()
    first_number = 0
    for number, row in rows:
        for column, is_doubtful in doubt_by_column.items():
            # "Partially-completed" and "partially_completed" are one status.
            answer_words = _HYPHEN.sub(" ", plain(row[column]))
            if is_doubtful(answer_words):
                answer = " ".join(row[column].split())
                times[column, answer] += 1
                first_number = first_number or number
    if not times:
        return
    occurrences: list[str] = []
    answers_by_column: dict[str, list[str]] = {}
    for (column, answer), count in list(times.items())[:_SHOWN_VALUES]:
        column_name = shortened(column)
        answer_text = repr(_cut(answer))
        occurrences.append(f"{column_name} is {answer_text} in {count}")
        answers_by_column.setdefault(column_name, []).append(answer_text)
    rules: list[str] = []
    for column_name, answer_texts in answers_by_column.items():
        rules.append(f"{column_name}: [{', '.join(answer_texts)}]")
    rule_text = "{" + ", ".join(rules) + "}"
    raise UserError(
        f"{path}, from row {first_number}: {', '.join(occurrences)}"
        " of its rows, which are not known to be of people who finished and consented; give the"
        f" mapping drop: {rule_text} to leave them out, or name under keep, by column, every"
        " answer that counts"
    )


def _counts(by_rule: Mapping[str, int]) -> str:
    return ", ".join(f"{rule} ({count})" for rule, count in by_rule.items())


def _cut(answer: str) -> str:
    """Cut an answer that is so long that it may be somebody's own words."""
    return answer if len(answer) <= _SHOWN_LENGTH else f"{answer[:_SHOWN_LENGTH]}…"


def shortened(column: str) -> str:
    """Cut a column's name that is a whole question."""
    return column if len(column) <= 40 else f"{column[:39]}…"
