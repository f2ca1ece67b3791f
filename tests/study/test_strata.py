"""Largest remainders, and the balance of designs, over many draws."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmodpo.study.design import balanced_sides, raters_of_items, spread
from jaxmodpo.study.strata import largest_remainders, stratified_sample


def test_largest_remainders_of_a_textbook_example():
    # Hamilton's method with 43 seats: quotas 20.41, 13.14 and 9.46 give 20, 13 and 10.
    populations = {"a": 5117, "b": 3292, "c": 2370}
    seats = largest_remainders(populations, 43, np.random.default_rng(0))
    assert seats == {"a": 20, "b": 13, "c": 10}


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.data())
@settings(max_examples=60, deadline=None)
def test_a_sample_is_within_one_of_each_quota_and_takes_no_place_twice(strata, data):
    total = data.draw(st.integers(1, len(strata)))
    sample = stratified_sample(strata, total, np.random.default_rng(1))
    assert len(set(sample)) == len(sample) == total
    sizes = Counter(strata)
    sampled = Counter(strata[position] for position in sample)
    for stratum, size in sizes.items():
        assert abs(sampled[stratum] - total * size / len(strata)) < 1


@given(st.integers(1, 25), st.integers(1, 9), st.data())
@settings(max_examples=60, deadline=None)
def test_designs_are_balanced_for_every_item_and_rater(items, raters, data):
    ratings = data.draw(st.integers(1, raters))
    seed = data.draw(st.integers(0, 1000))
    rng = np.random.default_rng(seed)
    design = raters_of_items(items, raters, ratings, rng)
    assert {len(set(of_item)) for of_item in design} == {ratings}
    loads = Counter(itertools.chain.from_iterable(design))
    assert max(loads.values()) - min(loads[rater] for rater in range(raters)) <= 1
    sides = balanced_sides(design, rng)
    assert set(sides) == {(item, r) for item, of_item in enumerate(design) for r in of_item}
    for half in (0, 1):
        lefts: Counter[int] = Counter()
        edges: Counter[int] = Counter()
        for edge, is_left in sides.items():
            lefts[edge[half]] += is_left
            edges[edge[half]] += 1
        assert all(abs(2 * lefts[node] - edges[node]) <= 1 for node in edges)


def test_every_two_raters_meet_about_as_often():
    design = raters_of_items(70, 8, 4, np.random.default_rng(0))
    meetings = Counter(
        itertools.chain.from_iterable(itertools.combinations(of_item, 2) for of_item in design)
    )
    # 70 items of 6 pairs each over 28 pairs of raters: 15 meetings on average.
    assert len(meetings) == 28
    assert min(meetings.values()) >= 13 and max(meetings.values()) <= 17


def test_sides_are_drawn_and_not_the_same_for_every_seed():
    design = [[0, 1, 2, 3]] * 6
    designs = {tuple(balanced_sides(design, np.random.default_rng(s)).items()) for s in range(8)}
    assert len(designs) == 8


def test_checks_stand_in_stretches_of_their_own():
    sequence = spread(list(range(30)), [100, 101, 102], np.random.default_rng(3))
    assert sorted(sequence) == [*range(30), 100, 101, 102]
    positions = [position for position, number in enumerate(sequence) if number >= 100]
    for number, position in enumerate(positions):
        assert 10 * number + number <= position <= 10 * (number + 1) + number
    assert spread([1, 2], [], np.random.default_rng(0)) in ([1, 2], [2, 1])
