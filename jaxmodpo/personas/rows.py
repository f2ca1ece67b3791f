"""Which rows of a survey's export are participants': ``keep`` and ``drop`` of a mapping, and what
they may not miss.

An export holds more than the answers of those who agreed: previews by the survey's makers, spam,
people who left half-way or never consented, and who withdrew. What is not known to be a participant
is none: a row that the well-known columns of survey services call something else is left out by the
mapping, or kept by it; where the mapping says nothing, the survey is refused.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxmodpo.errors import UserError, nearest
from jaxmodpo.personas.mapping import NO, NO_ANSWER, REVOKED, YES, SurveyMapping, plain

_CONSENTS = YES | {
    *(
        "i consent",
        "i agree",
        "i accept",
        "consent",
        "agree",
        "accept",
        "consented",
        "agreed",
        "accepted",
        "given",
    ),
    *("yes, i consent", "yes, i agree", "yes, i accept", "yes i consent", "yes i agree"),
}
_NOT_REVOKED = NO | NO_ANSWER - {REVOKED} | {""}
_UNFINISHED = NO | {
    "",
    "incomplete",
    "partial",
    "partially completed",
    "no, incomplete",
    "unfinished",
}

# Services and their exports write a column's name with spaces, underscores or neither: all are left
# out here.
_STATUS = re.compile(r"(response|survey|submission|participant|record)?status|responsetype")
_CHANNEL = "distributionchannel"
_ENDED = re.compile(r"(is|has|was|survey|response|questionnaire)?(finished|completed?|submitted)")
_NOT_PARTICIPANTS = frozenset(
    {
        *(
            "survey test",
            "test",
            "returned",
            "rejected",
            "active",
            "reserved",
            "partial",
            "partial complete",
        ),
        *(
            "partially completed",
            "in progress",
            "deleted",
            "terminated",
            "excluded",
            "declined",
            "expired",
            "timeout",
        ),
        *(
            "cancelled",
            "canceled",
            "not completed",
            "not complete",
            "not finished",
            "over quota",
            "overquota",
        ),
    }
)
# Words that call a response no participant's wherever they stand in its status.
_NO_PARTICIPANT = re.compile(
    r"(?<![a-z])(preview|spam|timed out|screened"
    r" out|withdrawn|withdrew|revoked|disqualified|abandoned|incomplete|"
    r"unfinished|ineligible)(?![a-z])"
)
_NOT_BY_CHANNEL = frozenset({"preview", "test"})
# Status as a number, where other columns show that it is Qualtrics'.
_STATUS_CODES = frozenset({"1", "2", "8", "9", "12", "17", "40"})
_OF_QUALTRICS = frozenset({"responseid", "recordeddate", "distributionchannel", "ipaddress"})

_REVOCATION = re.compile(
    r"consent[\s_-]*(revoked|withdrawn)|(revoked|withdrawn|withdrew)([\s_-]*consent)?"
)
_CONSENT = re.compile(r"(?<![a-z])consent(ed)?(?![a-z])")
_CONSENT_QUESTION = re.compile(
    r"(?<![a-z])(i|you)(?![a-z])[^?]*(?<![a-z])"
    r"(consent(ed)?|agree to (participate|take part)(?![^?]*(future|follow|again)))(?![a-z])"
)
# A short name with one of these says when, by whom or on which form somebody consented, or how long
# it took.
_ABOUT_CONSENT = re.compile(
    r"(?<![a-z])(date|time|timestamp|version|signature|name|id|ip|email|initials|click|submit|count)(?![a-z])"
    r"|(?<![a-z])(at|on|by)$"
)
# Of these, what shows that somebody consented. Where some rows have it, a row without it is of
# somebody who did not.
_RECORD_OF_CONSENT = re.compile(
    r"(?<![a-z])(date|timestamp|signature|initials)(?![a-z])|(?<![a-z])(at|on)$"
)
_HYPHEN = re.compile(r"(?<=[a-z])[-_](?=[a-z])")
_SHORT_NAME = 30
_SHOWN_VALUES, _SHOWN_LENGTH = 6, 24


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

    def summary(self) -> dict[str, Any]:
        """Return what manifest and report hold."""
        return {
            "rows": self.rows,
            "left_out": self.by_rule.total(),
            "by_rule": dict(self.by_rule),
            "expired_answers": self.expired,
        }

    def words(self) -> str:
        """Say it in a sentence, or nothing where every row was taken whole."""
        said = []
        if self.by_rule:
            said.append(
                f"{self.by_rule.total()} of {self.rows} survey rows were left out:"
                f" {_counts(self.by_rule)}"
            )
        if self.expired:
            said.append(f"{self.expired} answers read DATA_EXPIRED and count as not given")
        return "; ".join(said)


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
    keep = {
        _actual(path, column, columns, "keep", mapping): answers
        for column, answers in mapping.keep.items()
    }
    drop = {
        _actual(path, column, columns, "drop", mapping): answers
        for column, answers in mapping.drop.items()
    }
    by_rule = Counter(
        {_dropped(column, word): 0 for column, answers in drop.items() for word in answers.values()}
    )
    by_rule.update({_not_kept(column): 0 for column in keep})
    taken = []
    for number, row in enumerate(rows[mapping.skip_rows :], mapping.skip_rows + 1):
        if rule := _rule(row, keep, drop):
            by_rule[rule] += 1
        else:
            taken.append((number, row))
    _refuse_headers(path, taken)
    _refuse_doubtful(
        path, taken, _doubts(columns, rows[: mapping.skip_rows], rows[mapping.skip_rows :], keep)
    )
    if not taken:
        of = len(rows) - mapping.skip_rows
        raise UserError(
            f"{path}: all of its {of} rows were left out: {_counts(by_rule)}; look at the mapping's"
            " keep and drop, or leave the file out"
        )
    left_out.rows += len(rows) - mapping.skip_rows
    left_out.by_rule.update(by_rule)
    return taken


def _actual(
    path: Path, column: str, columns: Sequence[str], rule: str, mapping: SurveyMapping
) -> str:
    """Return a column that a rule names as the file spells it."""
    for found in columns:
        if plain(found) == plain(column):
            return found
    raise UserError(
        f"{path} lacks the column '{_short(column)}' that {rule} names in the mapping"
        f" {Path(mapping.name).stem}{nearest(column, map(_short, columns))}"
    )


def _rule(
    row: Mapping[str, str],
    keep: Mapping[str, Mapping[str, str]],
    drop: Mapping[str, Mapping[str, str]],
) -> str | None:
    """Return the first rule that leaves a row out."""
    for column, answers in drop.items():
        if (word := answers.get(plain(row[column]))) is not None:
            return _dropped(column, word)
    for column, answers in keep.items():
        if plain(row[column]) not in answers:
            return _not_kept(column)
    return REVOKED.upper() if any(plain(cell) == REVOKED for cell in row.values()) else None


def _dropped(column: str, word: str) -> str:
    return f"drop {_short(column)}: {word or 'empty'}"


def _not_kept(column: str) -> str:
    """Name the rule, without what stood there instead, which may be somebody's words."""
    return f"not what keep says of {_short(column)}"


def _refuse_headers(path: Path, rows: Iterable[tuple[int, Mapping[str, str]]]) -> None:
    """Refuse rows that are a second or third header, as Qualtrics writes them."""
    for number, row in rows:
        if any(plain(cell).replace(" ", "").startswith('{"importid":') for cell in row.values()):
            raise UserError(
                f"{path}, row {number}: Qualtrics names its columns in this row, which is nobody's"
                f" answers; give the mapping skip_rows: {number}"
            )


def _doubts(
    columns: Sequence[str],
    labels: Sequence[Mapping[str, str]],
    rows: Sequence[Mapping[str, str]],
    keep: Mapping[str, object],
) -> dict[str, Callable[[str], bool]]:
    """Return, for each well-known column of which ``keep`` says nothing, whether an answer is no
    participant's.

    Args:
        columns: the file's.
        labels: rows below the header that hold the questions in words.
        rows: the rows of answers.
        keep: columns whose answers that count are listed.
    """
    names = {_squashed(column) for column in columns}
    coded = bool(names & _OF_QUALTRICS)
    doubts: dict[str, Callable[[str], bool]] = {}
    is_empty = frozenset({""}).__contains__
    for column in columns:
        name, squashed = plain(column), _squashed(column)
        if column in keep:
            continue
        if _STATUS.fullmatch(squashed):
            doubts[column] = functools.partial(_is_no_participants, coded=coded)
        elif squashed == _CHANNEL:
            doubts[column] = _NOT_BY_CHANNEL.__contains__
        elif _ENDED.fullmatch(squashed):
            doubts[column] = _UNFINISHED.__contains__
        elif squashed == "submitdate":  # LimeSurvey's, empty where somebody left
            doubts[column] = is_empty
        elif _records_consent(name):
            # Where nobody has a date or a signature, the survey does not keep any.
            if any(plain(row[column]) for row in rows):
                doubts[column] = is_empty
        elif squashed == "progress" and not names & {"finished", "isfinished"}:
            doubts[column] = _is_under_way
        elif _REVOCATION.fullmatch(name):
            doubts[column] = lambda answer: answer not in _NOT_REVOKED
        elif any(
            _asks_for_consent(plain(text)) for text in (column, *(row[column] for row in labels))
        ):
            doubts[column] = lambda answer: answer not in _CONSENTS
    return doubts


def _squashed(column: str) -> str:
    """Return a column's name without what its spellings differ in."""
    return re.sub(r"[\s_.?-]", "", plain(column))


def _is_no_participants(answer: str, *, coded: bool) -> bool:
    """Return whether a status calls a response no participant's; ``coded`` says that numbers are
    Qualtrics' codes.
    """
    known = answer in _NOT_PARTICIPANTS or _NO_PARTICIPANT.search(answer) is not None
    return known or (coded and re.sub(r"\.0+$", "", answer) in _STATUS_CODES)


def _is_under_way(answer: str) -> bool:
    """Return whether a progress in percent is not known to be the end."""
    number = re.fullmatch(r"(\d{1,3}(?:\.\d+)?)\s*%?", answer)
    return answer == "" or (number is not None and float(number[1]) < 100)


def _asks_for_consent(text: str) -> bool:
    if _CONSENT_QUESTION.search(text):
        return True
    return (
        len(text) <= _SHORT_NAME and bool(_CONSENT.search(text)) and not _ABOUT_CONSENT.search(text)
    )


def _records_consent(text: str) -> bool:
    """Return whether a short name is of the date, the signature or the like that comes with a
    consent.
    """
    return (
        len(text) <= _SHORT_NAME
        and bool(_CONSENT.search(text))
        and bool(_RECORD_OF_CONSENT.search(text))
    )


def _refuse_doubtful(
    path: Path,
    rows: Iterable[tuple[int, Mapping[str, str]]],
    doubts: Mapping[str, Callable[[str], bool]],
) -> None:
    """Refuse rows that are not known to be participants'; all of them are named at once."""
    found: Counter[tuple[str, str]] = Counter()
    first = 0
    for number, row in rows:
        for column, doubtful in doubts.items():
            if doubtful(_HYPHEN.sub(" ", plain(row[column]))):
                found[column, " ".join(row[column].split())] += 1
                first = first or number
    if not found:
        return
    values = [(_short(column), _cut(answer), count) for (column, answer), count in found.items()][
        :_SHOWN_VALUES
    ]
    by_column: dict[str, list[str]] = {}
    for column, answer, _ in values:
        by_column.setdefault(column, []).append(repr(answer))
    rules = ", ".join(f"{column}: [{', '.join(answers)}]" for column, answers in by_column.items())
    raise UserError(
        f"{path}, from row {first}: "
        + ", ".join(f"{column} is {answer!r} in {count}" for column, answer, count in values)
        + " of its rows, which are not known to be of people who finished and consented; give the"
        f" mapping drop: {{{rules}}} to leave them out, or name under keep, by column, every"
        " answer that counts"
    )


def _counts(by_rule: Mapping[str, int]) -> str:
    return ", ".join(f"{rule} ({count})" for rule, count in by_rule.items())


def _cut(answer: str) -> str:
    """Cut an answer that is so long that it may be somebody's own words."""
    return answer if len(answer) <= _SHOWN_LENGTH else f"{answer[:_SHOWN_LENGTH]}…"


def _short(column: str) -> str:
    """Cut a column that is a whole question."""
    return column if len(column) <= 40 else f"{column[:39]}…"
