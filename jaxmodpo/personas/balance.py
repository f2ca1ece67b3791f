"""Whether training and test personas are alike: one test of independence per dimension.

The split is made to balance population, gender and ethnicity, so that their p-values are high by
design; the others say what the draw did. Small expected counts are where the chi-square
approximation fails.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxmodpo.parsing import JsonObject
from jaxmodpo.personas.participant import NOT_ANSWERED, Participant, primary_preferences
from jaxmodpo.personas.profile import IMPORTANCE_LABELS

SEVERAL = "several equally"
# Below this expected count, the rule of Cochran and of most textbooks, chi-square's p-values are
# not trusted.
LEAST_EXPECTED = 5.0
RESAMPLES = 9_999


def primary(participant: Participant) -> str:
    """Return the label of the criterion rated highest, or that several are, or that none is."""
    highest = primary_preferences(participant)
    if len(highest) > 1:
        return SEVERAL
    return IMPORTANCE_LABELS[highest[0]] if highest else NOT_ANSWERED


DIMENSIONS: Mapping[str, Callable[[Participant], str]] = {
    "population": lambda p: p.group("population"),
    "gender": lambda p: p.group("gender"),
    "ethnicity": lambda p: p.group("ethnicity"),
    "age": lambda p: p.group("age"),
    "severity": lambda p: p.group("severity"),
    "treatment": lambda p: p.group("treatment"),
    "primary preference": primary,
}


def counts(participants: Sequence[Participant], dimension: str) -> dict[str, int]:
    """Count the participants in each group of a dimension, groups by name."""
    group_of = DIMENSIONS[dimension]
    members = collections.Counter(group_of(participant) for participant in participants)
    return dict(sorted(members.items()))


def balance(
    train: Sequence[Participant], test: Sequence[Participant], dimension: str, seed: int
) -> JsonObject:
    """Test whether a dimension's groups are spread alike over training and test.

    Returns:
        The ``groups``' counts ``[training, test]``, the largest difference between their shares
        (``largest_difference``, from 0 to 1), the ``test`` that was taken, its ``statistic`` (a
        chi-square; none for the others) and ``p_value``, which is none where all are of one group.
    """
    in_train = counts(train, dimension)
    in_test = counts(test, dimension)
    groups: dict[str, list[int]] = {}
    for name in sorted({*in_train, *in_test}):
        groups[name] = [in_train.get(name, 0), in_test.get(name, 0)]
    table = np.array(list(groups.values()))  # [groups, 2]
    train_shares, test_shares = (table / table.sum(axis=0)).T
    differences = np.abs(train_shares - test_shares)
    return {
        "dimension": dimension,
        "groups": groups,
        "largest_difference": float(differences.max()),
        **independence(table, seed),
    }


def independence(table: np.ndarray, seed: int) -> JsonObject:
    """Test the independence of rows and columns of counts.

    Pearson's chi-square without a correction where every expected count is 5 or more; else Fisher's
    exact test for two rows, and for more the Fisher–Freeman–Halton test, its p-value from
    :data:`RESAMPLES` random tables of the same margins.

    Args:
        table: ``[groups, 2]`` counts of training and test.
        seed: of the random tables.
    """
    # What each cell would hold if both sets had the same shares: row total × column total / total.
    row_totals = table.sum(axis=1)
    column_totals = table.sum(axis=0)
    expected = np.outer(row_totals, column_totals) / table.sum()
    result: JsonObject = {
        "smallest_expected": float(expected.min()),
        "statistic": None,
        "degrees_of_freedom": None,
    }
    if len(table) < 2:
        # With one group there is nothing that could differ, and no test is defined.
        return result | {"test": "none: all are of one group", "p_value": None}
    if expected.min() >= LEAST_EXPECTED:
        return result | _chi_square(table)
    return result | _exact(table, seed)


def _chi_square(table: np.ndarray) -> JsonObject:
    """Return Pearson's test; its degrees of freedom are (groups − 1) · (2 − 1)."""
    from scipy import stats

    # Without Yates' correction, which scipy would add for two groups alone: dimensions of two and
    # of more groups stand in one table of the report and should be tested in one way.
    outcome: Any = stats.chi2_contingency(table, correction=False)
    return {
        "test": "chi-square",
        "statistic": float(outcome.statistic),
        "degrees_of_freedom": len(table) - 1,
        "p_value": float(outcome.pvalue),
    }


def _exact(table: np.ndarray, seed: int) -> JsonObject:
    """Return an exact test, which has no statistic; beyond two groups all tables of the same
    margins are too many to count, so they are sampled.
    """
    from scipy import stats

    if len(table) == 2:
        fisher: Any = stats.fisher_exact(table)
        return {"test": "Fisher's exact", "p_value": float(fisher.pvalue)}
    method = stats.MonteCarloMethod(n_resamples=RESAMPLES, rng=np.random.default_rng(seed))
    halton: Any = stats.fisher_exact(table, method=method)
    return {
        "test": f"Fisher–Freeman–Halton, {RESAMPLES:,} random tables",
        "p_value": float(halton.pvalue),
    }
