"""Who is selected, and the split: balance and minimums against every possible split, and odd group
sizes.
"""

from __future__ import annotations

import collections
import itertools
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmodpo.personas.participant import Participant
from jaxmodpo.personas.selection import (
    DIMENSIONS,
    groups_of,
    missed_minimums,
    select_diverse,
    split_balanced,
)


def person(population: str = "A", gender: str = "F", ethnicity: str = "X") -> Participant:
    return Participant(
        "", {"population": population, "gender": gender, "ethnicity": ethnicity}, {}, {}
    )


def imbalance(people: list[Participant], chosen: set[int], test: int) -> float:
    """The sum that split_balanced minimises, straight from its definition."""
    groups = [groups_of(p) for p in people]
    total = collections.Counter(g for row in groups for g in row)
    inside = collections.Counter(g for n in chosen for g in groups[n])
    targets = {g: test * size / len(people) for g, size in total.items()}
    return sum(abs(inside[g] - target) / target for g, target in targets.items())


def lacking(people: list[Participant], chosen: set[int], minimum: int) -> int:
    missed = missed_minimums([groups_of(p) for p in people], chosen, minimum)
    return sum(
        max(0, minimum - inside) + max(0, minimum - outside) for inside, outside in missed.values()
    )


def test_selection_takes_what_differs_most():
    texts = ["warm calm kind"] * 5 + ["cold harsh rude", "blue green red"]
    for seed in range(5):
        assert set(select_diverse(texts, 3, seed)) > {5, 6}
    assert len(set(select_diverse(texts, 7, 0))) == 7


def test_selection_keeps_a_small_group_of_ordinary_people():
    # Without the minimum, nobody of the four would be chosen: their profiles are alike and like
    # many others'.
    texts = ["plain plain plain"] * 24 + [f"word{n} other{n}" for n in range(30)]
    groups = [groups_of(person(ethnicity="small" if n in (3, 4, 5, 6) else "X")) for n in range(54)]
    plain = select_diverse(texts, 20, 1, groups, 0)
    selected = select_diverse(texts, 20, 1, groups, 4)
    assert len(selected) == len(set(selected)) == 20
    assert len({3, 4, 5, 6} & set(plain)) <= 1 and {3, 4, 5, 6} <= set(selected)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_selection_keeps_every_group_where_there_is_room(data):
    number = data.draw(st.integers(8, 30))
    people = [
        person(*(data.draw(st.sampled_from(letters)) for letters in ("AB", "FMN", "VWXYZ")))
        for _ in range(number)
    ]
    groups = [groups_of(p) for p in people]
    sizes = collections.Counter(g for row in groups for g in row)
    need = sum(2 for size in sizes.values() if size >= 2)
    count = data.draw(st.integers(min(need, number), number))
    selected = select_diverse([f"a{n} b{n % 3}" for n in range(number)], count, 0, groups, 2)
    inside = collections.Counter(g for n in selected for g in groups[n])
    assert len(set(selected)) == count
    assert all(inside[group] >= 2 for group, size in sizes.items() if size >= 2)


@pytest.mark.slow(seconds=2)
@settings(max_examples=80, deadline=None)
@given(st.data())
def test_no_other_split_is_more_balanced_or_meets_more_minimums(data):
    number = data.draw(st.integers(4, 11))
    test = data.draw(st.integers(1, number - 1))
    minimum = data.draw(st.integers(0, 3))
    people = [
        person(*(data.draw(st.sampled_from(letters)) for letters in ("AB", "FMN", "WXYZ")))
        for _ in range(number)
    ]
    train, test_people = split_balanced(people, test, data.draw(st.integers(0, 5)), minimum)
    assert sorted(train + test_people) == list(range(number)) and len(test_people) == test
    every = [set(test_set) for test_set in itertools.combinations(range(number), test)]
    fewest_lacking = min(lacking(people, test_set, minimum) for test_set in every)
    assert lacking(people, set(test_people), minimum) == fewest_lacking
    best = min(
        imbalance(people, test_set, test)
        for test_set in every
        if lacking(people, test_set, minimum) == fewest_lacking
    )
    # A draw between equals weighs less than 1e-4 a person.
    assert imbalance(people, set(test_people), test) <= best + 1e-4 * number


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=7), st.integers(1, 3), st.integers(0, 9))
def test_groups_of_odd_sizes_have_their_minimum_in_both_sets(sizes, minimum, seed):
    people = [person(ethnicity=f"group {g}") for g, size in enumerate(sizes) for _ in range(size)]
    need = minimum * sum(size >= 2 * minimum for size in sizes)
    if not (max(need, 1) <= len(people) // 3 and len(people) - len(people) // 3 >= need):
        return
    _, test_people = split_balanced(people, len(people) // 3, seed, minimum)
    inside = collections.Counter(people[n].texts["ethnicity"] for n in test_people)
    for g, size in enumerate(sizes):
        if size >= 2 * minimum:
            assert minimum <= inside[f"group {g}"] <= size - minimum
        # No group is further than its minimum forces from its share, but for those that make room
        # for others.
        assert inside[f"group {g}"] <= size


def test_the_papers_four_middle_eastern_personas_are_halved():
    people = [
        person(
            "UCLA" if n % 5 < 2 else "Prolific",
            "FM"[n % 2],
            "Middle Eastern" if n < 4 else "ABW"[n % 3],
        )
        for n in range(150)
    ]
    for seed in range(5):
        train, test_people = split_balanced(people, 50, seed)
        assert (len(train), len(test_people)) == (100, 50)
        for dimension in DIMENSIONS:
            total = collections.Counter(p.group(dimension) for p in people)
            inside = collections.Counter(people[n].group(dimension) for n in test_people)
            assert inside.pop("Middle Eastern", 2) == 2
            assert all(abs(count - total[group] / 3) < 1.34 for group, count in inside.items())


def test_equal_splits_are_drawn_by_the_seed():
    people = [person("AB"[n % 2], "FM"[n // 2 % 2]) for n in range(40)]
    assert split_balanced(people, 12, 3) == split_balanced(people, 12, 3)
    assert len({tuple(split_balanced(people, 12, seed)[1]) for seed in range(8)}) == 8


def test_a_minimum_that_no_split_meets_is_said_and_comes_close(caplog):
    people = [person(ethnicity="ABCDEF"[n % 6]) for n in range(24)]
    with caplog.at_level(logging.WARNING):
        _, test_people = split_balanced(people, 5, 0, 2)
    inside = collections.Counter(people[n].texts["ethnicity"] for n in test_people)
    assert sum(min(2, count) for count in inside.values()) == 5  # nobody more than a group needs
    assert "no split gives each set 2 of ethnicity" in caplog.text


@pytest.mark.parametrize("minimum", [0, 1, 2, 3])
def test_the_minimum_is_a_setting(minimum):
    people = [person(ethnicity="small" if n < 6 else "X") for n in range(60)]
    _, test_people = split_balanced(people, 6, 0, minimum)
    assert sum(people[n].texts["ethnicity"] == "small" for n in test_people) == max(
        minimum, 1
    )  # its share is 0.6
