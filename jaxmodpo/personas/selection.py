"""Which participants become personas, and which of those are kept for testing.

Both steps look after small groups: the selection keeps enough of each for the split to give every
set its minimum.
"""

from __future__ import annotations

import collections
import logging
from collections.abc import Sequence

import numpy as np

from jaxmodpo.personas.participant import Participant

logger = logging.getLogger(__name__)

DIMENSIONS = ("population", "gender", "ethnicity")
# A set that lacks one of a group's minimum outweighs every difference in shares.
_LACKING = 1e4
# Draws between equally balanced splits, and is too small to prefer a less balanced one that anybody
# would notice.
_DRAW = 1e-4
# The search's limit: deterministic, as a limit in seconds is not.
_NODES = 20_000

Group = tuple[str, str]


def groups_of(participant: Participant) -> list[Group]:
    """Return the participant's population, gender and ethnicity, each with the name of its
    dimension.
    """
    return [(dimension, participant.group(dimension)) for dimension in DIMENSIONS]


def select_diverse(
    texts: Sequence[str],
    count: int,
    seed: int,
    groups: Sequence[Sequence[Group]] = (),
    minimum: int = 0,
) -> list[int]:
    """Choose ``count`` texts that differ: greedily, the one farthest from its nearest chosen
    neighbour.

    Distances are one minus the cosine of TF-IDF vectors. The first is drawn from the seed; of
    equally far ones the first wins. Once as many places are left as groups still lack members, only
    their members are chosen.

    Args:
        texts: the profiles.
        count: how many to choose.
        seed: of the first.
        groups: what each text's participant belongs to.
        minimum: members chosen of each group that has as many, as far as ``count`` allows.

    Returns:
        Indices into ``texts``, ascending.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer().fit_transform(texts)
    lacking = collections.Counter(
        {g: minimum for g, n in _sizes(groups).items() if minimum and n >= minimum}
    )
    nearest = np.full(len(texts), np.inf)
    free = np.ones(len(texts), dtype=bool)
    following = int(np.random.default_rng(seed).integers(len(texts)))
    for left in range(count - 1, -1, -1):
        free[following] = False
        if groups:
            lacking.subtract(g for g in groups[following] if lacking[g] > 0)
        if left == 0:
            break
        similarity = (vectors @ vectors[following].T).toarray().ravel()  # pyright: ignore[reportIndexIssue]
        nearest = np.minimum(nearest, 1 - similarity)
        allowed = free
        if lacking.total() >= left:
            allowed = free & np.array([any(lacking[g] > 0 for g in row) for row in groups])
            allowed = allowed if allowed.any() else free
        # Rounded, so that the order of equal distances does not hang on a processor's last bits.
        following = int(np.argmax(np.where(allowed, np.round(nearest, 9), -1)))
    return np.flatnonzero(~free).tolist()


def _sizes(groups: Sequence[Sequence[Group]]) -> collections.Counter[Group]:
    return collections.Counter(group for row in groups for group in row)


def split_balanced(
    participants: Sequence[Participant], test: int, seed: int, minimum: int = 2
) -> tuple[list[int], list[int]]:
    """Split into training and test so that population, gender and ethnicity are spread alike.

    Participants of the same three groups are interchangeable, so that a split is the number x_c
    that each such cell c gives to the test set. The x_c are integers that minimise

        Σ_g |Σ_{c in g} x_c − t_g| / t_g + penalty,    t_g = test · n_g / n,

    over every group g of n_g members, where the penalty is for each member that the test or the
    training set lacks of the minimum, of every group that has at least twice the minimum. The
    integer programme is solved exactly, so that the minimum is met wherever some split meets it;
    equally good splits are drawn from by the seed.

    Args:
        participants: the selected ones.
        test: how many are for testing.
        seed: of the draws.
        minimum: members of a group in each set, where it has twice as many.

    Returns:
        Indices of the training and of the test personas, ascending.
    """
    generator = np.random.default_rng(seed)
    cells: dict[tuple[Group, ...], list[int]] = {}
    for index, participant in enumerate(participants):
        cells.setdefault(tuple(groups_of(participant)), []).append(index)
    keys = sorted(cells)
    taken = _cell_counts(keys, [len(cells[key]) for key in keys], test, minimum, generator)
    chosen: set[int] = set()
    for key, number in zip(keys, taken, strict=True):
        chosen.update(generator.permutation(cells[key])[:number].tolist())
    for group, said in missed_minimums(
        [groups_of(p) for p in participants], chosen, minimum
    ).items():
        logger.warning(
            "no split gives each set %d of %s; test has %d, training %d", minimum, group, *said
        )
    return [n for n in range(len(participants)) if n not in chosen], sorted(chosen)


def missed_minimums(
    groups: Sequence[Sequence[Group]], chosen: set[int], minimum: int
) -> dict[str, tuple[int, int]]:
    """Return the groups with twice the minimum that a set has too few of: members in test, members
    in training.
    """
    total = _sizes(groups)
    inside = _sizes([row for n, row in enumerate(groups) if n in chosen])
    return {
        f"{dimension} {name}": (inside[dimension, name], size - inside[dimension, name])
        for (dimension, name), size in sorted(total.items())
        if size >= 2 * minimum and not minimum <= inside[dimension, name] <= size - minimum
    }


def _cell_counts(
    keys: Sequence[tuple[Group, ...]],
    sizes: Sequence[int],
    test: int,
    minimum: int,
    generator: np.random.Generator,
) -> list[int]:
    """Solve :func:`split_balanced`'s programme; its variables are x_c, then a difference and a lack
    per group.
    """
    from scipy.optimize import milp

    groups = sorted({group for key in keys for group in key})
    belongs = np.array([[group in key for key in keys] for group in groups], dtype=float)
    totals = belongs @ np.array(sizes, dtype=float)
    targets = test * totals / sum(sizes)
    least = np.where(totals >= 2 * minimum, minimum, 0)
    number, same = len(groups), np.eye(len(groups))
    none, free = np.zeros((number, number)), np.full(number, np.inf)
    whole = np.concatenate([np.ones(len(keys)), np.zeros(2 * number)])
    # Rows by what they hold: either difference, the lack in test, the lack in training, cell sizes,
    # the total.
    rows = np.block(
        [
            [belongs, -same, none],
            [belongs, same, none],
            [belongs, none, same],
            [belongs, none, -same],
            [np.eye(len(keys)), np.zeros((len(keys), 2 * number))],
            [whole],
        ]
    )
    lower = np.concatenate([-free, targets, least, -free, np.zeros(len(keys)), [test]])
    upper = np.concatenate([targets, free, free, totals - least, sizes, [test]])
    draw = _DRAW * generator.random(len(keys))
    cost = np.concatenate([draw, 1 / targets, np.full(number, _LACKING)])
    options = {"node_limit": _NODES, "mip_rel_gap": 1e-9}
    found = milp(cost, integrality=whole, constraints=(rows, lower, upper), options=options)
    assert found.x is not None, (
        found.message
    )  # every number of test personas below the total has a split
    return np.round(found.x[: len(keys)]).astype(int).tolist()
