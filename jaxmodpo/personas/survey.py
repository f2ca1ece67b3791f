"""The survey's columns, and rows of them as participants.

One canonical layout covers what the paper's profiles hold: demographics and diagnosis, experience
with AI, five attitudes, five importance ratings, helpful areas and appropriate uses. Lists are
separated by semicolons; an empty field means not answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxmodpo.artifacts import read_table
from jaxmodpo.errors import UserError

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
COLUMNS = ("participant_id", *TEXTS, *LISTS, *ATTITUDES, *IMPORTANCES)


@dataclass(frozen=True)
class Participant:
    """One survey row.

    Attributes:
        participant_id: unique over all files.
        texts: single answers by column, empty where not answered.
        lists: answers with several parts, by column.
        ratings: numbers by column; None where not answered.
    """

    participant_id: str
    texts: dict[str, str]
    lists: dict[str, tuple[str, ...]]
    ratings: dict[str, float | None]


def read_surveys(paths: Sequence[Path]) -> list[Participant]:
    """Read survey files.

    Raises:
        UserError: a missing column, a rating that is not one, or a participant twice; it names file, row, column.
    """
    participants: dict[str, Participant] = {}
    for path in paths:
        for number, row in enumerate(read_table(path, COLUMNS), 1):
            where = f"{path}, row {number}"
            name = row["participant_id"].strip()
            if not name:
                raise UserError(f"{where}: the participant_id is empty")
            if name in participants:
                raise UserError(f"{where}: the participant_id {name} has been given before")
            participants[name] = Participant(
                name,
                {column: row[column].strip() for column in TEXTS},
                {column: tuple(p.strip() for p in row[column].split(";") if p.strip()) for column in LISTS},
                {
                    **{column: _rating(row[column], where, column, step=1.0) for column in ATTITUDES},
                    **{column: _rating(row[column], where, column, step=0.5) for column in IMPORTANCES},
                },
            )
    return list(participants.values())


def _rating(text: str, where: str, column: str, step: float) -> float | None:
    text = text.strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not (1 <= value <= 5 and (value / step).is_integer()):
        steps = "whole numbers" if step == 1.0 else "steps of 0.5"
        raise UserError(f"{where}: {column} must be from 1 to 5 in {steps}, not '{text}'")
    return value
