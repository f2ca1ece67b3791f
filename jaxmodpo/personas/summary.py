"""The numbers of the personas' report, as ``report.json`` holds them: counts, shares, tests;
nobody's answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxmodpo.personas.anonymity import QUASI_IDENTIFIERS, anonymity
from jaxmodpo.personas.balance import DIMENSIONS, balance, counts
from jaxmodpo.personas.participant import IMPORTANCES, Participant, primary_preferences
from jaxmodpo.personas.profile import QUALITY_WEIGHTS
from jaxmodpo.personas.rows import LeftOut

Sets = Mapping[str, Sequence[Participant]]
# The steps in order; the sets that the paper's figures compare are all but the second.
STEPS = ("participants", "above_quality", "selected", "train", "test")
COMPARED = ("participants", "selected", "train", "test")
# Each leaves one quasi-identifier out, so that a reader sees which of them tells people apart.
IDENTIFIER_SETS = (
    QUASI_IDENTIFIERS,
    *(
        tuple(name for name in QUASI_IDENTIFIERS if name != left_out)
        for left_out in QUASI_IDENTIFIERS
    ),
)


def summarize(
    sets: Sets,
    qualities: Mapping[str, Mapping[str, float]],
    left_out: LeftOut | None = None,
    *,
    least: float,
    seed: int,
    synthetic: bool,
) -> dict[str, Any]:
    """Return everything that the report shows.

    Args:
        sets: the participants of each of :data:`STEPS`.
        qualities: of every participant, with its parts, by id.
        left_out: what of the survey's files became no participant.
        least: the quality that was asked for.
        seed: of the tests that draw random tables.
        synthetic: whether the survey was made up.
    """
    return {
        "synthetic": synthetic,
        "survey": left_out.summary() if left_out and left_out.rows else {},
        "counts": {step: len(sets[step]) for step in STEPS},
        "composition": {
            name: {step: counts(sets[step], name) for step in STEPS} for name in DIMENSIONS
        },
        "quality": {
            "least": least,
            "weights": QUALITY_WEIGHTS,
            "sets": {
                step: _quality([qualities[p.participant_id] for p in sets[step]]) for step in STEPS
            },
            "histogram": _histogram(
                [qualities[p.participant_id]["quality"] for p in sets["participants"]]
            ),
        },
        "preferences": {step: preferences(sets[step]) for step in COMPARED},
        "balance": [balance(sets["train"], sets["test"], name, seed) for name in DIMENSIONS],
        "anonymity": {
            "sets": {step: anonymity(sets[step]) for step in COMPARED},
            "selected_by_identifiers": [
                anonymity(sets["selected"], names) for names in IDENTIFIER_SETS
            ],
        },
    }


def preferences(participants: Sequence[Participant]) -> dict[str, Any]:
    """Return who rates what highest, and mean ratings.

    A persona that rates k criteria highest counts 1/k for each: giving it to the first one listed
    would make that one look preferred. Shares are of those who rated anything.

    Returns:
        ``rated``, the personas that did; ``several``, those with more than one highest; and by
        criterion ``share``, ``alone`` (the share that rates it above every other) and ``mean`` of
        its ratings.
    """
    highest = [names for p in participants if (names := primary_preferences(p))]
    number = max(len(highest), 1)
    criteria = {}
    for name in IMPORTANCES:
        ratings = [value for p in participants if (value := p.ratings[name]) is not None]
        criteria[name.removeprefix("importance_")] = {
            "share": round(sum(1 / len(names) for names in highest if name in names) / number, 9),
            "alone": round(sum(names == (name,) for names in highest) / number, 9),
            "mean": round(float(np.mean(ratings)), 9) if ratings else None,
        }
    return {
        "rated": len(highest),
        "several": sum(len(names) > 1 for names in highest),
        "criteria": criteria,
    }


def _quality(rated: Sequence[Mapping[str, float]]) -> dict[str, float]:
    values = np.array([row["quality"] for row in rated])
    figures = {"mean": values.mean(), "std": values.std(), "min": values.min(), "max": values.max()}
    figures |= {part: np.mean([row[part] for row in rated]) for part in QUALITY_WEIGHTS}
    return {name: round(float(value), 6) for name, value in figures.items()}


def _histogram(values: Sequence[float]) -> dict[str, list[float]]:
    edges = np.linspace(0, 1, 51)
    # A quality of 0.9 belongs above the edge 0.9, whatever the last bits of either.
    found, _ = np.histogram(np.round(values, 6), np.round(edges, 6))
    first = int(np.flatnonzero(found)[0])
    return {
        "edges": [round(float(e), 6) for e in edges[first:]],
        "counts": [int(n) for n in found[first:]],
    }
