"""Labels of several people, against counting by hand and other implementations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, cohen_kappa_score, confusion_matrix

from jaxmodpo.statistics import agreement
from jaxmodpo.statistics.human_choices import (
    A,
    B,
    confusion_cells,
    consensus,
    count_choices,
    fleiss_of_sums,
    fleiss_sums,
    leave_one_out_cells,
    majority_labels,
    match_sums,
    mean_scores,
    pair_sums,
    preference_scores,
    square_tables,
)


def random_choices(items: int, raters: int, seed: int = 0) -> np.ndarray:
    """Return choices that lean to a, with some that are missing."""
    return np.random.default_rng(seed).choice([0, 0, 0, 1, 1, 2, -1], size=(items, raters))


def test_the_majority_is_of_those_who_prefer_a_reply_however_many_find_them_equal():
    counts = [[2, 1, 9], [1, 2, 0], [3, 3, 0], [0, 0, 4], [0, 0, 0]]
    assert majority_labels(counts).tolist() == [0, 1, 2, 2, -1]
    assert preference_scores([0, 1, 2]).tolist() == [1.0, 0.0, 0.5]
    assert math.isnan(preference_scores([-1])[0])
    assert mean_scores([[1, 2, 1]]).tolist() == [0.375]
    assert consensus([[2, 1, 9], [3, 3, 0]]).tolist() == pytest.approx([2 / 3, 0.5])


def test_fleiss_kappa_of_sums_is_that_of_the_counts():
    counts = count_choices(random_choices(30, 5))
    of_sums = fleiss_of_sums(fleiss_sums(counts).sum(axis=0))
    assert of_sums == pytest.approx(agreement.fleiss_kappa(counts), rel=1e-12)
    assert np.isnan(fleiss_of_sums(fleiss_sums([[1, 0, 0], [0, 1, 0]]).sum(axis=0)))


def test_cells_sum_to_scikit_learns_confusion_and_its_accuracy_and_kappa():
    rng = np.random.default_rng(2)
    people, judge = rng.integers(3, size=80), rng.integers(3, size=80)
    judge[:50] = people[:50]
    table = square_tables(confusion_cells(people, judge, 3).sum(axis=0))
    np.testing.assert_array_equal(table, confusion_matrix(people, judge))
    decided = (people < 2) & (judge < 2)
    binary = square_tables(confusion_cells(people, judge, 2).sum(axis=0))
    assert agreement.raw_agreement(binary) == accuracy_score(people[decided], judge[decided])
    kappa = cohen_kappa_score(people[decided], judge[decided])
    assert agreement.cohen_kappa(binary) == pytest.approx(kappa, rel=1e-12)


def test_pairs_and_matches_are_those_counted_one_by_one():
    choices = random_choices(25, 6, seed=3)
    judge = np.random.default_rng(4).choice([0, 1, 2, -1], size=25)
    agreeing = pairs = same = answer_count = 0
    for of_item, says in zip(choices, judge, strict=True):
        answers = [choice for choice in of_item if choice >= 0]
        for one, other in itertools.combinations(answers, 2):
            pairs += 1
            agreeing += one == other
        if says >= 0:
            answer_count += len(answers)
            same += sum(answer == says for answer in answers)
    counts = count_choices(choices)
    assert pair_sums(counts).sum(axis=0).tolist() == [agreeing, pairs]
    assert match_sums(counts, judge).sum(axis=0).tolist() == [same, answer_count]


@pytest.mark.parametrize("decided_by_all", [True, False])
def test_leaving_one_out_is_the_majority_of_the_others_rater_by_rater(decided_by_all):
    choices = random_choices(40, 5, seed=5)
    cells = leave_one_out_cells(choices, decided_by_all=decided_by_all).sum(axis=0)
    for rater in range(5):
        table = np.zeros((2, 2))
        for of_item in choices:
            others = np.delete(of_item, rater)
            margin = (others == A).sum() - (others == B).sum()
            of_all = (of_item == A).sum() - (of_item == B).sum()
            if margin == 0 or of_item[rater] not in (A, B) or (decided_by_all and of_all == 0):
                continue
            table[A if margin > 0 else B, of_item[rater]] += 1
        np.testing.assert_array_equal(square_tables(cells[rater]), table)
