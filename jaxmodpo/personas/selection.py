"""Which participants become personas, and which of those are kept for testing."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence

import numpy as np

from jaxmodpo.personas.survey import Participant

# A group of at least this many personas has at least SMALL_GROUP_TEST of them in the test set.
SMALL_GROUP, SMALL_GROUP_TEST = 4, 2


def select_diverse(texts: Sequence[str], count: int, seed: int) -> list[int]:
    """Choose ``count`` texts that differ: greedily, the one farthest from its nearest chosen neighbour.

    Distances are one minus the cosine of TF-IDF vectors. The first is drawn from the seed; of equally far
    ones the first wins.

    Returns:
        Indices into ``texts``, ascending.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer().fit_transform(texts)
    similarity = np.asarray((vectors @ vectors.T).todense())  # pyright: ignore[reportAttributeAccessIssue]
    chosen = [int(np.random.default_rng(seed).integers(len(texts)))]
    nearest = 1 - similarity[chosen[0]]
    nearest[chosen[0]] = -1
    while len(chosen) < count:
        # Rounded, so that the order of equal distances does not hang on a processor's last bits.
        following = int(np.argmax(np.round(nearest, 9)))
        chosen.append(following)
        nearest = np.minimum(nearest, 1 - similarity[following])
        nearest[chosen] = -1
    return sorted(chosen)


def split_balanced(participants: Sequence[Participant], test: int, seed: int) -> tuple[list[int], list[int]]:
    """Split into training and test so that population, gender and ethnicity are spread alike.

    Test personas are added one at a time, each time one that brings the test set's counts in the
    three dimensions closest to their shares; ties are drawn from the seed. A group's share is proportional, but at
    least :data:`SMALL_GROUP_TEST` where it has :data:`SMALL_GROUP` members or more.

    Returns:
        Indices of the training and of the test personas, ascending.
    """
    dimensions: list[Callable[[Participant], str]] = [
        lambda p: f"population {p.texts['population']}",
        lambda p: f"gender {p.texts['gender']}",
        lambda p: f"ethnicity {p.texts['ethnicity']}",
    ]
    groups = [[dimension(p) for dimension in dimensions] for p in participants]
    totals = collections.Counter(group for row in groups for group in row)
    share = test / len(participants)
    wanted = {
        group: max(total * share, SMALL_GROUP_TEST if total >= SMALL_GROUP else 0.0) for group, total in totals.items()
    }
    order = np.random.default_rng(seed).permutation(len(participants)).tolist()
    have: collections.Counter[str] = collections.Counter()
    chosen: set[int] = set()
    for _ in range(test):

        def gain(index: int) -> float:
            """How much closer to its share every group of this participant comes; small groups weigh more."""
            return sum(
                (abs(have[g] - wanted[g]) - abs(have[g] + 1 - wanted[g])) / wanted[g] if wanted[g] else -1.0
                for g in groups[index]
            )

        best = max((index for index in order if index not in chosen), key=gain)
        chosen.add(best)
        have.update(groups[best])
    return [n for n in range(len(participants)) if n not in chosen], sorted(chosen)
