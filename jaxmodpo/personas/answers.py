"""What an answer means in any survey: the spellings of yes, of no and of no answer at all, the band
of an age, and the group of a free text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

YES = frozenset(
    {"1", "1.0", "y", "yes", "t", "true", "on", "x", "✓", "✔", "☑", "selected", "checked", "ticked"}
)
"""known spellings of a yes, as :func:`plain` gives them"""

NO = frozenset(
    {"0", "0.0", "n", "no", "f", "false", "off", "not selected", "not checked", "not ticked"}
)
"""known spellings of a no"""

REVOKED = "consent_revoked"
"""what Prolific writes in place of the data of those who withdrew"""

EXPIRED = "data_expired"
"""what Prolific writes in place of data that are too old"""

# How programs write an empty cell.
_NO_VALUE = {"na", "n/a", "#n/a", "<na>", "nan", "nat", "null", "#null!", "undefined", "missing"}
# How statistics packages code one, and the marks that people type.
_MISSING_CODES = {"-9", "-99", "-999", "-9.0", "-99.0", "-999.0", ".", "-", "–", "—"}
_NOT_ANSWERED = {
    "no answer",
    "not answered",
    "unanswered",
    "seen but unanswered",
    "no response",
    "skipped",
}
_REFUSED = {
    "prefer not to say",
    "prefer not to answer",
    "prefer not to disclose",
    "rather not say",
    "decline to answer",
    "i prefer not to say",
    "i prefer not to answer",
    "i'd rather not say",
    "i would rather not say",
}
NO_ANSWER = frozenset(_NO_VALUE | _MISSING_CODES | _NOT_ANSWERED | _REFUSED | {EXPIRED, REVOKED})
"""answers that are none in any survey, unless a mapping's ``values`` say what they mean"""


def plain(text: str) -> str:
    """Return a column's name or an answer without what spreadsheets change: case, spaces, curly
    apostrophes.
    """
    return " ".join(text.replace("’", "'").split()).casefold()


def band(age: int, bands: tuple[int, ...]) -> str | None:
    """Return an age's band, as in "25-34" or "55+"; None below the first.

    Args:
        age: in years.
        bands: the lowest age of each band, rising.
    """
    bands_begun = sum(lowest <= age for lowest in bands)
    if bands_begun == 0:
        return None
    lowest = bands[bands_begun - 1]
    if bands_begun == len(bands):
        return f"{lowest}+"
    return f"{lowest}-{bands[bands_begun] - 1}"


def group_of(answer: str, groups: Mapping[str, str]) -> str:
    """Return the group of the first word that begins a word of the answer, else "Other".

    A word begins at a word's beginning alone, so that "male" does not fit "Female".
    """
    for word, group in groups.items():
        if re.search(rf"(?<!\w){re.escape(plain(word))}", plain(answer)):
            return group
    return "Other"
