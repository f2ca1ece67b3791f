"""Which participants become personas, and which of those are kept for testing.

Both steps look after small groups: the selection keeps enough of each for the split to give every
set its minimum.
"""

from __future__ import annotations

import collections
import itertools
import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from jaxmodpo.personas.participant import Participant

logger = logging.getLogger(__name__)

DIMENSIONS = ("population", "gender", "ethnicity")
# A set that lacks one of a group's minimum outweighs every difference in shares.
_LACKING = 1e4
# Weight of the random costs that decide between equally balanced splits. It is too small to prefer
# a less balanced one that anybody would notice.
_RANDOM_COST = 1e-4
# The solver's limit: deterministic, as a limit in seconds is not.
_NODES = 20_000

Group = tuple[str, str]

_Array = NDArray[np.float64]


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
    neighbor.

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
    lacking = _minimums(groups, minimum)
    # Distance of each text from the nearest text that is chosen already.
    nearest = np.full(len(texts), np.inf)
    free = np.ones(len(texts), dtype=bool)
    following = int(np.random.default_rng(seed).integers(len(texts)))
    for remaining in range(count - 1, -1, -1):
        free[following] = False
        if groups:
            helped = [group for group in groups[following] if lacking[group] > 0]
            lacking.subtract(helped)
        if remaining == 0:
            break
        # Rows of TF-IDF have length one, so their product is the cosine. Only the distance to the
        # newest text can make a text's nearest one nearer: count products instead of count².
        similarity = (vectors @ vectors[following].T).toarray().ravel()  # pyrefly: ignore
        nearest = np.minimum(nearest, 1 - similarity)
        allowed = _allowed(free, groups, lacking, remaining)
        # Rounded, so that the order of equal distances does not hang on a processor's last bits.
        distance = np.round(nearest, 9)
        following = int(np.argmax(np.where(allowed, distance, -1)))
    return np.flatnonzero(~free).tolist()


def _minimums(groups: Sequence[Sequence[Group]], minimum: int) -> collections.Counter[Group]:
    """Return how many members each group must get; a smaller group than that gets no promise."""
    lacking: collections.Counter[Group] = collections.Counter()
    if minimum:
        for group, size in _sizes(groups).items():
            if size >= minimum:
                lacking[group] = minimum
    return lacking


def _allowed(
    free: np.ndarray,
    groups: Sequence[Sequence[Group]],
    lacking: collections.Counter[Group],
    remaining: int,
) -> np.ndarray:
    """Return which texts may be chosen next.

    As long as there is room for everybody that is lacking, diversity alone decides. From then on
    every choice must help a group, or a minimum is missed.
    """
    if lacking.total() < remaining:
        return free
    lacking_groups = {group for group, count in lacking.items() if count > 0}
    helps = np.array([not lacking_groups.isdisjoint(row) for row in groups])
    allowed = free & helps
    # One person helps up to three groups, so places may be left when nobody lacks any more.
    return allowed if allowed.any() else free


def _sizes(groups: Sequence[Sequence[Group]]) -> collections.Counter[Group]:
    """Count the members of each group."""
    sizes: collections.Counter[Group] = collections.Counter()
    for row in groups:
        sizes.update(row)
    return sizes


def split_balanced(
    participants: Sequence[Participant], test: int, seed: int, minimum: int = 2
) -> tuple[list[int], list[int]]:
    """Split into training and test so that population, gender and ethnicity are spread alike.

    Participants of the same three groups are interchangeable, so that a split is the number x_c
    that each such cell c gives to the test set. The x_c are integers that minimize

        Σ_g |Σ_{c in g} x_c − t_g| / t_g + penalty,    t_g = test · n_g / n,

    over every group g of n_g members, where the penalty is for each member that the test or the
    training set lacks of the minimum, of every group that has at least twice the minimum. The
    integer program is solved exactly, so that the minimum is met wherever some split meets it;
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
    groups = [groups_of(participant) for participant in participants]
    cells: dict[tuple[Group, ...], list[int]] = {}
    for index, row in enumerate(groups):
        cells.setdefault(tuple(row), []).append(index)
    # Sorted, so that the split does not depend on the order in which participants come.
    keys = sorted(cells)
    sizes = [len(cells[key]) for key in keys]
    test_counts = _test_counts(keys, sizes, test, minimum, generator)
    test_indices: set[int] = set()
    for key, number in zip(keys, test_counts, strict=True):
        shuffled = generator.permutation(cells[key])
        test_indices.update(shuffled[:number].tolist())
    for group, (in_test, in_train) in missed_minimums(groups, test_indices, minimum).items():
        logger.warning(
            "no split gives each set %d of %s; test has %d, training %d",
            minimum,
            group,
            in_test,
            in_train,
        )
    train_indices = [index for index in range(len(participants)) if index not in test_indices]
    return train_indices, sorted(test_indices)


def missed_minimums(
    groups: Sequence[Sequence[Group]], test_indices: set[int], minimum: int
) -> dict[str, tuple[int, int]]:
    """Return the groups that fall short in a split: (test count, training count).

    Groups with fewer than twice the minimum are left out, since no split could satisfy them.
    """
    sizes = _sizes(groups)
    test_groups = [row for index, row in enumerate(groups) if index in test_indices]
    test_sizes = _sizes(test_groups)
    missed: dict[str, tuple[int, int]] = {}
    for group, size in sorted(sizes.items()):
        in_test = test_sizes[group]
        in_train = size - in_test
        if size >= 2 * minimum and min(in_test, in_train) < minimum:
            dimension, name = group
            missed[f"{dimension} {name}"] = (in_test, in_train)
    return missed


def _test_counts(
    keys: Sequence[tuple[Group, ...]],
    sizes: Sequence[int],
    test: int,
    minimum: int,
    generator: np.random.Generator,
) -> list[int]:
    """Solve :func:`split_balanced`'s program: return how many of each cell are for testing.

    The variables are x_c of each cell, then of each group a difference d_g and a lack l_g. A linear
    program has no absolute value, so d_g is bounded from below by both signs of it; minimizing d_g
    presses it down onto |Σ x_c − t_g|. In the same way l_g is pressed onto the members that the
    set which lacks more of them lacks.
    """
    from scipy.optimize import milp

    groups = sorted(set(itertools.chain.from_iterable(keys)))
    cell_count = len(keys)
    group_count = len(groups)
    # belongs[g, c] is 1 where cell c lies in group g, so that belongs @ x counts each group.
    belongs = np.zeros((group_count, cell_count))
    for row, group in enumerate(groups):
        belongs[row] = [group in key for key in keys]
    totals = belongs @ np.array(sizes, dtype=float)
    targets = test * totals / sum(sizes)
    minimums = np.where(totals >= 2 * minimum, minimum, 0)
    is_cell = np.concatenate([np.ones(cell_count), np.zeros(2 * group_count)])
    # Without random costs the solver would always pick the same one of equally good splits.
    cell_costs = _RANDOM_COST * generator.random(cell_count)
    difference_costs = 1 / targets
    lack_costs = np.full(group_count, _LACKING)
    cost = np.concatenate([cell_costs, difference_costs, lack_costs])
    solution = milp(
        cost,
        integrality=is_cell,
        constraints=_constraints(belongs, sizes, totals, targets, minimums, test),
        options={"node_limit": _NODES, "mip_rel_gap": 1e-9},
    )
    # Every number of test personas below the total has a split, so there is always a solution.
    assert solution.x is not None, solution.message
    # The solver's numbers are whole up to its tolerance.
    test_counts = np.round(solution.x[:cell_count])
    return test_counts.astype(int).tolist()


def _constraints(
    belongs: _Array,
    sizes: Sequence[int],
    totals: _Array,
    targets: _Array,
    minimums: _Array,
    test: int,
) -> tuple[_Array, _Array, _Array]:
    """Return :func:`_test_counts`' lines: their coefficients, and what they are at least and at
    most.

    Args:
        belongs: ``[groups, cells]``, 1 where a cell lies in a group.
        sizes: members of each cell.
        totals: members of each group.
        targets: of them, how many are wanted for testing.
        minimums: how many of them each of the two sets shall have.
        test: how many are for testing in all.
    """
    group_count, cell_count = belongs.shape
    # The columns of the program are x, then d, then l. Blocks of it, by the columns they stand in:
    same = np.eye(group_count)
    none = np.zeros((group_count, group_count))
    cell_rows = np.eye(cell_count)
    no_groups = np.zeros((cell_count, 2 * group_count))
    only_cells = np.concatenate([np.ones(cell_count), np.zeros(2 * group_count)])
    constraints = np.block(
        [
            [belongs, -same, none],  # Σ x − d ≤ t
            [belongs, same, none],  # Σ x + d ≥ t
            [belongs, none, same],  # Σ x + l ≥ minimum, in test
            [belongs, none, -same],  # Σ x − l ≤ total − minimum, in training
            [cell_rows, no_groups],  # 0 ≤ x ≤ size of the cell
            [only_cells],  # Σ x = test
        ]
    )
    no_bound = np.full(group_count, np.inf)
    no_cells = np.zeros(cell_count)
    # The right-hand sides of the lines above, in the same order.
    lower = np.concatenate([-no_bound, targets, minimums, -no_bound, no_cells, [test]])
    upper = np.concatenate([targets, no_bound, no_bound, totals - minimums, sizes, [test]])
    return constraints, lower, upper
