"""A synthetic survey with the paper's columns and roughly its marginals; nobody's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxmodpo.files import write_table
from jaxmodpo.personas.participant import COLUMNS, IMPORTANCES

_AGE = {"18-24": 0.37, "25-34": 0.29, "35-44": 0.19, "45-54": 0.1, "55+": 0.05}
_GENDER = {"Female": 0.52, "Male": 0.43, "Non-binary": 0.05}
_ETHNICITY = {
    "Asian": 0.31,
    "Black/African American": 0.28,
    "White/Caucasian": 0.28,
    "Hispanic/Latino": 0.06,
    "Middle Eastern/North African": 0.04,
    "Other": 0.03,
}
_SEVERITY = {"Mild": 0.3, "Moderate": 0.5, "Severe": 0.2}
_TREATMENT = {
    "Not currently receiving treatment": 0.45,
    "Therapy": 0.25,
    "Medication": 0.15,
    "Therapy and medication": 0.15,
}
_DIAGNOSES = ("Depression", "Anxiety", "ADHD", "PTSD", "OCD", "Eating disorder", "Bipolar disorder")
_EXPERIENCE = (
    "General information or knowledge search",
    "Educational or work-related tasks",
    "Entertainment or casual conversation",
    "Emotional support",
)
_AREAS = (
    "Mild depression or anxiety",
    "Stress management",
    "Sleep problems",
    "Relationship problems",
    "Loneliness",
)
_USES = (
    "Giving general information about mental health",
    "Offering emotional support",
    "Casual conversations to reduce stress",
    "Suggesting self-care activities",
    "Recommending therapists or hotlines",
)
# The share of participants who rate each criterion highest; empathy leads as in the paper.
_FAVORITE_SHARES = (0.627, 0.16, 0.09, 0.06, 0.063)
_FAVORITE: dict[str, float] = dict(zip(IMPORTANCES, _FAVORITE_SHARES, strict=True))
_UCLA_SHARE = 124 / 335
# Means of the attitudes, from 1 to 5.
_ATTITUDE_CENTERS = {
    "attitude_accessibility": 4.0,
    "attitude_ai_empathy": 3.2,
    "attitude_error_concerns": 3.7,
    "attitude_complement_only": 4.2,
    "attitude_trust": 3.0,
}
_SOMETIMES_SKIPPED = ["severity", "treatment", "diagnoses", "helpful_areas", "attitude_trust"]
_SKIPPED_TOGETHER = [
    "ai_experience",
    "helpful_areas",
    "appropriate_uses",
    "diagnoses",
    *IMPORTANCES[1:4],
]


def write_survey(path: Path, *, participants: int = 335, seed: int) -> None:
    """Write a synthetic survey.

    Args:
        path: the CSV file.
        participants: rows.
        seed: of the draws.
    """
    write_rows(path, survey_rows(participants, seed=seed))


def survey_rows(participants: int, *, seed: int) -> list[dict[str, str]]:
    """Draw a synthetic survey's rows, in the canonical layout."""
    generator = np.random.default_rng(seed)
    ucla_participants = round(participants * _UCLA_SHARE)
    rows: list[dict[str, str]] = []
    for number in range(participants):
        population = "UCLA" if number < ucla_participants else "Prolific"
        rows.append(_row(f"p{number:04d}", population, generator))
    return rows


def write_rows(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Write rows of the canonical layout as a survey file."""
    write_table(path, rows, COLUMNS)


def _row(name: str, population: str, generator: np.random.Generator) -> dict[str, str]:
    row = {
        "participant_id": name,
        "population": population,
        "age": _pick(_AGE, generator),
        "gender": _pick(_GENDER, generator),
        "ethnicity": _pick(_ETHNICITY, generator),
        "severity": _pick(_SEVERITY, generator),
        "treatment": _pick(_TREATMENT, generator),
        "diagnoses": _pick_several(_DIAGNOSES, 1, 3, generator),
        "ai_experience": _pick_several(_EXPERIENCE, 1, 4, generator),
        "helpful_areas": _pick_several(_AREAS, 1, 4, generator),
        "appropriate_uses": _pick_several(_USES, 1, 5, generator),
    }
    for column, center in _ATTITUDE_CENTERS.items():
        drawn_rating = np.round(generator.normal(center, 0.9))
        row[column] = str(int(np.clip(drawn_rating, 1, 5)))
    row |= _importances(generator)
    # Some people skip questions; few skip many. Both are needed to see what quality is worth.
    if generator.random() < 0.15:
        row[str(generator.choice(_SOMETIMES_SKIPPED))] = ""
    if generator.random() < 0.03:
        row |= dict.fromkeys(_SKIPPED_TOGETHER, "")
    return row


def _importances(generator: np.random.Generator) -> dict[str, str]:
    """Draw ratings around 4.2 in which one criterion stands above the others."""
    favorite = _pick(_FAVORITE, generator)
    ratings: dict[str, str] = {}
    for column in IMPORTANCES:
        # In steps of a half. The favorite's rating is drawn too and not used, so that the others
        # are the same whichever it is.
        halves = np.round(2 * generator.normal(4.1, 0.4))
        # The others end at 4.5, so that the favorite's 5 is the only highest rating.
        rating = float(np.clip(halves / 2, 1, 4.5))
        if column == favorite:
            rating = 5.0
        ratings[column] = f"{rating:.1f}"
    return ratings


def _pick(options: Mapping[str, float], generator: np.random.Generator) -> str:
    """Draw one option by its share."""
    shares = np.array(list(options.values()))
    # Shares from a paper are rounded and add up to almost one; the generator wants one.
    return str(generator.choice(list(options), p=shares / shares.sum()))


def _pick_several(
    options: Sequence[str], minimum: int, maximum: int, generator: np.random.Generator
) -> str:
    """Draw a list of options, from ``minimum`` to ``maximum`` of them, in their order."""
    count = int(generator.integers(minimum, maximum + 1))
    numbers = sorted(generator.permutation(len(options))[:count].tolist())
    return ";".join(str(options[number]) for number in numbers)
