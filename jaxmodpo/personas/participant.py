"""What a survey asks and how one participant's answers are held.

One canonical layout covers what the paper's profiles hold: demographics and diagnosis, experience
with AI, five attitudes, five importance ratings, helpful areas and appropriate uses. It is a module
of its own because reading, mapping, rating, splitting and reporting all speak in its fields.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxmodpo.errors import UserError

IDENTIFIER = "participant_id"
TEXTS = ("population", "age", "gender", "ethnicity", "severity", "treatment")
LISTS = ("diagnoses", "ai_experience", "helpful_areas", "appropriate_uses")
# Agreement from 1 (strongly disagree) to 5 (strongly agree).
ATTITUDES = (
    "attitude_accessibility",
    "attitude_ai_empathy",
    "attitude_error_concerns",
    "attitude_complement_only",
    "attitude_trust",
)
# Importance from 1 to 5 in steps of a half.
IMPORTANCES = (
    "importance_empathy",
    "importance_active_listening",
    "importance_trust_rapport",
    "importance_self_motivated_change",
    "importance_patient_autonomy",
)
COLUMNS = (IDENTIFIER, *TEXTS, *LISTS, *ATTITUDES, *IMPORTANCES)
NOT_ANSWERED = "not answered"


@dataclass(frozen=True)
class Participant:
    """One survey row.

    Attributes:
        participant_id: unique over all files.
        texts: single answers by field, empty where not answered.
        lists: answers with several parts, by field.
        ratings: numbers by field; None where not answered.
        groups: the group that counts for balance, where it is wider than the answer: someone who
            ticked two ethnicities keeps both in the profile and counts once.
        unasked: fields that the survey does not ask about; they are neither missing nor
            contradictory.
    """

    participant_id: str
    texts: dict[str, str]
    lists: dict[str, tuple[str, ...]]
    ratings: dict[str, float | None]
    groups: dict[str, str] = field(default_factory=dict)
    unasked: frozenset[str] = frozenset()

    def group(self, dimension: str) -> str:
        """Return the group of a text field that this participant counts in."""
        return self.groups.get(dimension) or self.texts[dimension] or NOT_ANSWERED


def primary_preferences(participant: Participant) -> tuple[str, ...]:
    """Return the importance fields rated highest: several where they tie, none where nothing was
    rated.
    """
    rated: dict[str, float] = {}
    for name in IMPORTANCES:
        rating = participant.ratings[name]
        if rating is not None:
            rated[name] = rating
    highest = max(rated.values(), default=None)
    return tuple(name for name, rating in rated.items() if rating == highest)


def parse_rating(text: str, name: str, location: str) -> float:
    """Read a rating from 1 to 5: whole for attitudes, in steps of a half for importances.

    Raises:
        UserError: it is not one; the message names ``location`` and the field.
    """
    if name in ATTITUDES:
        step = 1.0
        step_in_words = "whole numbers"
    else:
        step = 0.5
        step_in_words = "steps of 0.5"
    try:
        value = float(text)
    except ValueError:
        value = float("nan")  # which lies in no range, so that the check below refuses it
    if not (1 <= value <= 5 and (value / step).is_integer()):
        raise UserError(
            f"{location}: {name} must be from 1 to 5 in {step_in_words}, not {quoted(text)}"
        )
    return value


def quoted(answer: str) -> str:
    """Quote an answer in a message, unless it is so long that it may be somebody's own words."""
    # Messages end up in logs and bug reports, where nobody's free text belongs.
    return f"'{answer}'" if len(answer) <= 24 else f"a text of {len(answer)} characters"
