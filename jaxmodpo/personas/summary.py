"""The numbers of the personas' report, as ``report.json`` holds them: counts, shares, tests;
nobody's answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from jaxmodpo.parsing import JsonObject
from jaxmodpo.personas.anonymity import QUASI_IDENTIFIERS, anonymity
from jaxmodpo.personas.balance import DIMENSIONS, balance, counts
from jaxmodpo.personas.participant import IMPORTANCES, Participant, primary_preferences
from jaxmodpo.personas.profile import QUALITY_WEIGHTS
from jaxmodpo.personas.rows import LeftOut

Sets = Mapping[str, Sequence[Participant]]
# The steps in order; the sets that the paper's figures compare are all but the second.
STEPS = ("participants", "above_quality", "selected", "train", "test")
COMPARED = ("participants", "selected", "train", "test")

_DECIMALS = 9
"""of preferences; a sum of thirds depends on the order of its terms beyond that"""


def _without(identifier: str) -> tuple[str, ...]:
    return tuple(name for name in QUASI_IDENTIFIERS if name != identifier)


# Each but the first leaves one quasi-identifier out, so that a reader sees which of them tells
# people apart.
IDENTIFIER_SETS = (
    QUASI_IDENTIFIERS,
    *(_without(name) for name in QUASI_IDENTIFIERS),
)


def summarize(
    sets: Sets,
    qualities: Mapping[str, Mapping[str, float]],
    left_out: LeftOut | None = None,
    *,
    minimum_quality: float,
    seed: int,
    synthetic: bool,
) -> JsonObject:
    """Return everything that the report shows.

    Args:
        sets: the participants of each of :data:`STEPS`.
        qualities: of every participant, with its components, by id.
        left_out: what of the survey's files became no participant.
        minimum_quality: the quality that was asked for.
        seed: of the tests that draw random tables.
        synthetic: whether the survey was made up.
    """
    survey: JsonObject = {}
    if left_out is not None and left_out.rows:
        survey = left_out.summary()
    composition: JsonObject = {}
    balance_of_dimensions: list[JsonObject] = []
    for name in DIMENSIONS:
        composition[name] = _composition(sets, name)
        balance_of_dimensions.append(balance(sets["train"], sets["test"], name, seed))
    return {
        "synthetic": synthetic,
        "survey": survey,
        "counts": {step: len(sets[step]) for step in STEPS},
        "composition": composition,
        "quality": _qualities(sets, qualities, minimum_quality),
        "preferences": {step: preferences(sets[step]) for step in COMPARED},
        "balance": balance_of_dimensions,
        "anonymity": {
            "sets": {step: anonymity(sets[step]) for step in COMPARED},
            "selected_by_identifiers": _anonymity_by_identifiers(sets["selected"]),
        },
    }


def _anonymity_by_identifiers(participants: Sequence[Participant]) -> list[JsonObject]:
    """Return how many share their identifiers, for each set of identifiers that is looked at."""
    return [anonymity(participants, names) for names in IDENTIFIER_SETS]


def _composition(sets: Sets, dimension: str) -> dict[str, dict[str, int]]:
    """Count each set's participants by their groups of one dimension."""
    return {step: counts(sets[step], dimension) for step in STEPS}


def _qualities(
    sets: Sets, qualities: Mapping[str, Mapping[str, float]], minimum_quality: float
) -> JsonObject:
    """Return each set's mean quality with its components, and a histogram of everybody's."""
    summaries: dict[str, dict[str, float]] = {}
    for step in STEPS:
        rows = [qualities[participant.participant_id] for participant in sets[step]]
        summaries[step] = _quality(rows)
    everybody: list[float] = []
    for participant in sets["participants"]:
        row = qualities[participant.participant_id]
        everybody.append(row["quality"])
    return {
        "least": minimum_quality,
        "weights": QUALITY_WEIGHTS,
        "sets": summaries,
        "histogram": _histogram(everybody),
    }


def preferences(participants: Sequence[Participant]) -> JsonObject:
    """Return who rates what highest, and mean ratings.

    A persona that rates k criteria highest counts 1/k for each: giving it to the first one listed
    would make that one look preferred. Shares are of those who rated anything.

    Returns:
        ``rated``, the personas that did; ``several``, those with more than one highest; and by
        criterion ``share``, ``alone`` (the share that rates it above every other) and ``mean`` of
        its ratings.
    """
    # Of each who rated anything, the criteria that none other was rated above.
    highest_criteria: list[tuple[str, ...]] = []
    for participant in participants:
        names = primary_preferences(participant)
        if names:
            highest_criteria.append(tuple(names))
    # Where nobody rated anything every fraction is zero, and not a division by zero.
    raters = max(len(highest_criteria), 1)
    criteria: dict[str, dict[str, float | None]] = {}
    for name in IMPORTANCES:
        fractions = [1 / len(names) for names in highest_criteria if name in names]
        shared = sum(fractions)
        alone = highest_criteria.count((name,))
        criteria[name.removeprefix("importance_")] = {
            "share": round(shared / raters, _DECIMALS),
            "alone": round(alone / raters, _DECIMALS),
            "mean": _mean_rating(participants, name),
        }
    counts_of_highest = [len(names) for names in highest_criteria]
    with_several = sum(count > 1 for count in counts_of_highest)
    return {
        "rated": len(highest_criteria),
        "several": with_several,
        "criteria": criteria,
    }


def _mean_rating(participants: Sequence[Participant], name: str) -> float | None:
    ratings: list[float] = []
    for participant in participants:
        rating = participant.ratings[name]
        if rating is not None:
            ratings.append(rating)
    if not ratings:
        return None
    return round(float(np.mean(ratings)), _DECIMALS)


def _quality(rated: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return mean, spread and range of a set's qualities, and the mean of each component."""
    values = np.array([row["quality"] for row in rated])
    figures = {
        "mean": values.mean(),
        "std": values.std(),
        "min": values.min(),
        "max": values.max(),
    }
    for component in QUALITY_WEIGHTS:
        figures[component] = np.mean([row[component] for row in rated])
    return {name: round(float(value), 6) for name, value in figures.items()}


def _histogram(values: Sequence[float]) -> dict[str, list[float]]:
    """Count values in fifty bins from 0 to 1, without the empty ones at the lower end."""
    edges = np.linspace(0, 1, 51)
    # A quality of 0.9 belongs above the edge 0.9, whatever the last bits of either.
    counts_in_bins, _ = np.histogram(np.round(values, 6), np.round(edges, 6))
    first_filled = int(np.flatnonzero(counts_in_bins)[0])
    return {
        "edges": [round(float(edge), 6) for edge in edges[first_filled:]],
        "counts": [int(count) for count in counts_in_bins[first_filled:]],
    }
