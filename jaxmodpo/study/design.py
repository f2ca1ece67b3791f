"""Who sees which item, and which reply of it stands on the left: balanced designs, by draw.

::

    raters = raters_of_items(items=100, raters=10, ratings=4, rng=rng)   # four raters for each item
    a_is_left = balanced_sides(raters, rng)     # by item and rater; halves for each of them
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

Edge = tuple[int, int]
"""an item and a rater who sees it, by their numbers"""

_DUMMY = -1


def raters_of_items(
    items: int, raters: int, ratings: int, rng: np.random.Generator
) -> list[list[int]]:
    """Return the raters of each item: ``ratings`` different ones, in ascending order.

    Any two raters have as many items, or one has one more. Of the raters who have fewest items,
    those are taken who have met the item's other raters least, so that every two raters meet about
    as often: a balanced incomplete block design as far as the numbers allow one.

    Args:
        items: how many there are.
        raters: how many there are, at least ``ratings``.
        ratings: how many raters see each item.
        rng: draws among equals.
    """
    if ratings > raters:
        raise ValueError(f"{ratings} ratings of an item by {raters} raters")
    if ratings == raters:
        return [list(range(raters)) for _ in range(items)]
    loads = np.zeros(raters, np.int64)
    meetings = np.zeros((raters, raters), np.int64)
    chosen_of_items: list[list[int]] = []
    for _ in range(items):
        item_raters: list[int] = []
        is_taken = np.zeros(raters, bool)
        times_met = np.zeros(raters, np.int64)
        draw = rng.permutation(raters)
        for _ in range(ratings):
            # The last key counts most: whether a rater is taken, then loads, meetings, the draw.
            best = int(np.lexsort((draw, times_met, loads, is_taken))[0])
            item_raters.append(best)
            is_taken[best] = True
            times_met += meetings[best]
        meetings[np.ix_(item_raters, item_raters)] += 1
        loads[item_raters] += 1
        chosen_of_items.append(sorted(item_raters))
    return chosen_of_items


def balanced_sides(
    raters_by_item: Sequence[Sequence[int]], rng: np.random.Generator
) -> dict[Edge, bool]:
    """Return for each item and rater whether the first reply stands on the left.

    Every item has its first reply on the left for half of its raters, and every rater for half of
    their items; of an odd number, for half of one more or one less.

    Items and raters are the two halves of a graph, whose edges say who sees what. If all have an
    even number of edges, the graph falls into closed walks that use each edge once (Euler). Items
    and raters alternate on them, so a walk has an even number of edges, and left and right by turns
    gives every item and rater as many of each. Odd ones are made even by edges to a dummy on the
    other half, which are then left out.

    Args:
        raters_by_item: the raters of each item, by their numbers.
        rng: draws the order of the walks, and with it the sides.
    """
    edges: list[Edge] = []
    for item, raters in enumerate(raters_by_item):
        edges += [(item, rater) for rater in raters]
    rng.shuffle(edges)
    all_edges = edges + _dummy_edges(edges)
    sides: dict[Edge, bool] = {}
    for walk in _closed_walks(all_edges):
        # Which of the two ways a walk begins is a coin flip of its own.
        first_is_left = bool(rng.integers(2))
        for number, edge in enumerate(walk):
            sides[edge] = first_is_left == (number % 2 == 0)
    return {edge: side for edge, side in sides.items() if _DUMMY not in edge}


def _dummy_edges(edges: Sequence[Edge]) -> list[Edge]:
    """Return edges between odd items or raters and a dummy of the other half: all become even."""
    item_is_odd: dict[int, bool] = defaultdict(bool)
    rater_is_odd: dict[int, bool] = defaultdict(bool)
    for item, rater in edges:
        item_is_odd[item] ^= True
        rater_is_odd[rater] ^= True
    odd_items = [item for item, is_odd in item_is_odd.items() if is_odd]
    odd_raters = [rater for rater, is_odd in rater_is_odd.items() if is_odd]
    dummies = [(item, _DUMMY) for item in odd_items]
    dummies += [(_DUMMY, rater) for rater in odd_raters]
    # Items and raters have equally many edges in all, so both dummies are odd or neither is.
    if len(odd_items) % 2 == 1:
        dummies.append((_DUMMY, _DUMMY))
    return dummies


def _closed_walks(edges: Sequence[Edge]) -> list[list[Edge]]:
    """Return closed walks that use every edge once; every node has an even number of edges."""
    # Nodes of the two halves are told apart by a mark, since both are numbered from 0.
    edges_of_node: dict[tuple[str, int], list[int]] = defaultdict(list)
    for number, (item, rater) in enumerate(edges):
        edges_of_node["item", item].append(number)
        edges_of_node["rater", rater].append(number)
    used = [False] * len(edges)
    walks: list[list[Edge]] = []
    for start in list(edges_of_node):
        walk: list[Edge] = []
        node = start
        number = _take_unused(edges_of_node[node], used)
        # With even numbers of edges a walk can get stuck only where it began.
        while number is not None:
            item, rater = edges[number]
            walk.append((item, rater))
            node = ("rater", rater) if node == ("item", item) else ("item", item)
            number = _take_unused(edges_of_node[node], used)
        if walk:
            walks.append(walk)
    return walks


def _take_unused(numbers: list[int], used: list[bool]) -> int | None:
    """Take an unused edge off a node's list and mark it as used; None where none is left.

    Every edge stands in the lists of both its nodes, so that those at the list's end may have been
    used from the other side.
    """
    while numbers:
        number = numbers.pop()
        if not used[number]:
            used[number] = True
            return number
    return None


def spread(questions: Sequence[int], checks: Sequence[int], rng: np.random.Generator) -> list[int]:
    """Return questions in an order by draw, with the checks at random places of equal stretches.

    Args:
        questions: numbers of items that are shuffled.
        checks: numbers of attention checks; each stands inside a stretch of its own.
        rng: draws both orders and the places.
    """
    shuffled = [questions[number] for number in rng.permutation(len(questions))]
    ordered_checks = [checks[number] for number in rng.permutation(len(checks))]
    # The ends of the stretches, from 0 to the number of questions, as even as whole numbers are.
    even_edges = np.linspace(0, len(shuffled), len(checks) + 1)
    edges = even_edges.round().astype(int)
    sequence: list[int] = []
    for number, check in enumerate(ordered_checks):
        stretch = shuffled[edges[number] : edges[number + 1]]
        position = int(rng.integers(len(stretch) + 1))
        sequence += [*stretch[:position], check, *stretch[position:]]
    return sequence if ordered_checks else shuffled
