"""A sample that keeps the distribution of what it is drawn from: as many of each stratum as its
share says, rounded by largest remainders.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

_Stratum = TypeVar("_Stratum", bound=Hashable)


def largest_remainders(
    sizes: Mapping[_Stratum, int], total: int, rng: np.random.Generator
) -> dict[_Stratum, int]:
    """Return how many of a sample each stratum has.

    A stratum's quota is total · size / Σ sizes. Each has its quota rounded down; the places that
    are left go to the largest fractions, of equal ones by draw. No stratum has more than its size.

    Args:
        sizes: of the strata; they sum to at least ``total``.
        total: the size of the sample.
        rng: draws among equal fractions.

    References:
        Hamilton's method of apportionment; Balinski and Young, *Fair Representation*, 1982.
    """
    everything = sum(sizes.values())
    if total > everything:
        raise ValueError(f"a sample of {total} of {everything}")
    # Whole numbers, so that equal fractions are equal exactly.
    counts = {stratum: total * size // everything for stratum, size in sizes.items()}
    fractions = {stratum: total * size % everything for stratum, size in sizes.items()}
    strata = list(sizes)
    by_draw = [strata[number] for number in rng.permutation(len(strata))]
    # The sort is stable: equal fractions stay in the order that was drawn.
    by_fraction = sorted(by_draw, key=lambda stratum: -fractions[stratum])
    places_left = total - sum(counts.values())
    for stratum in by_fraction[:places_left]:
        counts[stratum] += 1
    return counts


def stratified_sample(
    strata: Sequence[Hashable], total: int, rng: np.random.Generator
) -> list[int]:
    """Return the places of a sample, in their order, given the stratum of each place."""
    sizes = Counter(strata)
    counts = largest_remainders(sizes, total, rng)
    sample: list[int] = []
    for stratum, count in counts.items():
        members = [index for index, stratum_there in enumerate(strata) if stratum_there == stratum]
        picked = rng.choice(len(members), size=count, replace=False)
        sample += [members[number] for number in picked]
    return sorted(sample)
