"""Which rows a survey's own bookkeeping calls no participant's: its columns of status, progress and
consent.

Survey services write next to the answers whether a response is a preview, was finished, or was
consented to. They name these columns in many ways and code them in more, so this module knows the
usual spellings. It only *doubts*: a doubtful row is never dropped in silence, since a survey may
use a word in a way of its own; :mod:`jaxmodpo.personas.rows` refuses the survey until its mapping
says what the word means.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence

from jaxmodpo.personas.answers import NO, NO_ANSWER, REVOKED, YES, plain

Doubt = Callable[[str], bool]
"""whether an answer, plain and without hyphens, may be of somebody who is no participant"""

_CONSENTS = YES | {
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
    "yes, i consent",
    "yes, i agree",
    "yes, i accept",
    "yes i consent",
    "yes i agree",
}
_NOT_REVOKED = (NO | NO_ANSWER - {REVOKED}) | {""}
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
        "survey test",
        "test",
        "returned",
        "rejected",
        "active",
        "reserved",
        "partial",
        "partial complete",
        "partially completed",
        "in progress",
        "deleted",
        "terminated",
        "excluded",
        "declined",
        "expired",
        "timeout",
        "cancelled",
        "canceled",
        "not completed",
        "not complete",
        "not finished",
        "over quota",
        "overquota",
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
_SHORT_NAME = 30


def doubts(
    columns: Sequence[str],
    labels: Sequence[Mapping[str, str]],
    rows: Sequence[Mapping[str, str]],
    keep: Mapping[str, object],
) -> dict[str, Doubt]:
    """Return, for each well-known column of which ``keep`` says nothing, how to tell the answers
    that no participant has.

    Args:
        columns: the file's.
        labels: rows below the header that hold the questions in words.
        rows: the rows of answers.
        keep: columns whose answers that count are listed.
    """
    names = {_squashed(column) for column in columns}
    by_column: dict[str, Doubt] = {}
    for column in columns:
        if column in keep:
            continue
        questions = [column, *(row[column] for row in labels)]
        answers = [row[column] for row in rows]
        doubt = _doubt_of(column, names, questions, answers)
        if doubt is not None:
            by_column[column] = doubt
    return by_column


def _doubt_of(
    column: str, names: set[str], questions: Sequence[str], answers: Sequence[str]
) -> Doubt | None:
    """Return how to doubt one column's answers; None where its name says nothing of participation.

    The order of the rules matters: a column "consent status" is a status, and a "consent date"
    shows consent by being filled in, whatever stands there.

    Args:
        column: its name.
        names: all columns' names, squashed.
        questions: the column's name, and the question in words where the file has it.
        answers: the column's cells.
    """
    squashed = _squashed(column)
    if _STATUS.fullmatch(squashed):
        # Other services number their states otherwise, so the codes count in Qualtrics' files only.
        return functools.partial(_is_no_participants, coded=bool(names & _OF_QUALTRICS))
    if squashed == _CHANNEL:
        return _NOT_BY_CHANNEL.__contains__
    if _ENDED.fullmatch(squashed):
        return _UNFINISHED.__contains__
    if squashed == "submitdate":  # LimeSurvey's, empty where somebody left
        return _is_empty
    if _records_consent(plain(column)):
        # Where nobody has a date or a signature, the survey does not keep any.
        kept_at_all = any(plain(answer) for answer in answers)
        return _is_empty if kept_at_all else None
    if squashed == "progress" and not names & {"finished", "isfinished"}:
        # A column that says outright who finished is more reliable than a percentage.
        return _is_under_way
    if _REVOCATION.fullmatch(plain(column)):
        return _is_revoked
    if any(_asks_for_consent(plain(question)) for question in questions):
        return _is_no_consent
    return None


def _squashed(column: str) -> str:
    """Return a column's name without what its spellings differ in."""
    return re.sub(r"[\s_.?-]", "", plain(column))


def _is_empty(answer: str) -> bool:
    return answer == ""


def _is_revoked(answer: str) -> bool:
    return answer not in _NOT_REVOKED


def _is_no_consent(answer: str) -> bool:
    return answer not in _CONSENTS


def _is_no_participants(answer: str, *, coded: bool) -> bool:
    """Return whether a status calls a response no participant's; ``coded`` says that numbers are
    Qualtrics' codes.
    """
    if answer in _NOT_PARTICIPANTS or _NO_PARTICIPANT.search(answer):
        return True
    # A spreadsheet may have made 8 into 8.0.
    code = re.sub(r"\.0+$", "", answer)
    return coded and code in _STATUS_CODES


def _is_under_way(answer: str) -> bool:
    """Return whether a progress in percent is not known to be the end."""
    if answer == "":
        return True
    percentage = re.fullmatch(r"(\d{1,3}(?:\.\d+)?)\s*%?", answer)
    return percentage is not None and float(percentage[1]) < 100


def _asks_for_consent(text: str) -> bool:
    """Return whether a name or a question asks for consent, and not when or how it was given."""
    if _CONSENT_QUESTION.search(text):
        return True
    # A long text with the word may be any question about consent, so names alone are taken.
    if len(text) > _SHORT_NAME or not _CONSENT.search(text):
        return False
    return not _ABOUT_CONSENT.search(text)


def _records_consent(text: str) -> bool:
    """Return whether a short name is of the date, the signature or the like that comes with a
    consent.
    """
    if len(text) > _SHORT_NAME or not _CONSENT.search(text):
        return False
    return _RECORD_OF_CONSENT.search(text) is not None
