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
_FAVOURITE: dict[str, float] = dict(zip(IMPORTANCES, (0.627, 0.16, 0.09, 0.06, 0.063), strict=True))
_UCLA_SHARE = 124 / 335


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
    ucla = round(participants * _UCLA_SHARE)
    return [
        _row(f"p{n:04d}", "UCLA" if n < ucla else "Prolific", generator)
        for n in range(participants)
    ]


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
        "diagnoses": _several(_DIAGNOSES, 1, 3, generator),
        "ai_experience": _several(_EXPERIENCE, 1, 4, generator),
        "helpful_areas": _several(_AREAS, 1, 4, generator),
        "appropriate_uses": _several(_USES, 1, 5, generator),
    }
    for column, centre in (
        ("attitude_accessibility", 4.0),
        ("attitude_ai_empathy", 3.2),
        ("attitude_error_concerns", 3.7),
        ("attitude_complement_only", 4.2),
        ("attitude_trust", 3.0),
    ):
        row[column] = str(int(np.clip(np.round(generator.normal(centre, 0.9)), 1, 5)))
    row |= _importances(generator)
    # Some people skip questions; few skip many.
    if generator.random() < 0.15:
        skipped = generator.choice(
            ["severity", "treatment", "diagnoses", "helpful_areas", "attitude_trust"]
        )
        row[str(skipped)] = ""
    if generator.random() < 0.03:
        for column in (
            "ai_experience",
            "helpful_areas",
            "appropriate_uses",
            "diagnoses",
            *IMPORTANCES[1:4],
        ):
            row[column] = ""
    return row


def _importances(generator: np.random.Generator) -> dict[str, str]:
    """Draw ratings around 4.2 in which one criterion stands above the others."""
    favourite = _pick(_FAVOURITE, generator)
    ratings: dict[str, str] = {}
    for column in IMPORTANCES:
        drawn = np.clip(np.round(2 * generator.normal(4.1, 0.4)) / 2, 1, 4.5)
        ratings[column] = f"{5.0 if column == favourite else float(drawn):.1f}"
    return ratings


def _pick(options: Mapping[str, float], generator: np.random.Generator) -> str:
    shares = np.array(list(options.values()))
    return str(generator.choice(list(options), p=shares / shares.sum()))


def _several(options: Sequence[str], least: int, most: int, generator: np.random.Generator) -> str:
    count = int(generator.integers(least, most + 1))
    chosen = sorted(generator.permutation(len(options))[:count].tolist())
    return ";".join(str(options[n]) for n in chosen)
