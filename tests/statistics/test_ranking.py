"""Rank sets, the probability of being best, and the questions that a first place hangs on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from jaxmodpo.statistics.ranking import (
    FirstPlace,
    probability_of_best,
    rank_sets,
    turn_first_place,
)
from jaxmodpo.statistics.win_rates import average_win_rates, bootstrap_win_rates, win_rate

NAN = float("nan")


def table_of(*pairs: list[float], models: int) -> np.ndarray:
    """A table of all pairs from outcomes by question, in the order of combinations."""
    table = np.full((models, models, len(pairs[0]), 1), NAN)
    for (a, b), outcomes in zip(itertools.combinations(range(models), 2), pairs, strict=True):
        table[a, b, :, 0] = outcomes
        table[b, a, :, 0] = 1 - np.array(outcomes)
    return table


def ranked(table: np.ndarray) -> tuple[list[int], list[int]]:
    samples = average_win_rates(bootstrap_win_rates(table, resamples=1000))
    sets = rank_sets(average_win_rates(win_rate(table)), samples, table.shape[2])
    return sets.best.tolist(), sets.worst.tolist()


def test_models_far_apart_have_one_rank_each_and_equal_ones_share_theirs():
    random = np.random.default_rng(0)
    far = (random.random(200) < 0.9).astype(float).tolist()
    even = (random.random(200) < 0.5).astype(float).tolist()
    # 0 beats 1 and 2; 1 and 2 are even.
    assert ranked(table_of(far, far, even, models=3)) == ([1, 2, 2], [1, 3, 3])


def test_few_questions_leave_every_rank_open():
    assert ranked(table_of([1.0, 1.0, 0.0], models=2)) == ([1, 1], [2, 2])
    assert ranked(table_of([1.0, 1.0], models=2)) == ([1, 1], [2, 2])
    assert ranked(table_of([1.0], models=2)) == ([1, 1], [2, 2])
    assert ranked(table_of([0.5] * 50, models=2)) == ([1, 1], [2, 2])


def test_winning_every_one_of_many_questions_is_a_first_place():
    assert ranked(table_of([1.0] * 30, models=2)) == ([1, 2], [1, 2])


@pytest.mark.slow(seconds=6)
def test_all_ranks_lie_in_their_sets_as_often_as_promised():
    random = np.random.default_rng(1)
    times_held = 0
    for _ in range(200):
        # All three are equal, so that no one may be surely better than another.
        pairs = [random.integers(0, 2, 60).astype(float).tolist() for _ in range(3)]
        times_held += ranked(table_of(*pairs, models=3)) == ([1, 1, 1], [3, 3, 3])
    assert 0.92 <= times_held / 200 <= 0.99


def test_first_places_are_counted_and_shared():
    samples = [[0.9, 0.1, 0.5], [0.6, 0.6, 0.5], [0.1, 0.2, 0.9], [NAN, 0.2, 0.9]]
    assert probability_of_best(samples).tolist() == pytest.approx([0.5, 1 / 6, 1 / 3])
    assert np.isnan(probability_of_best([[NAN, 0.5]])).all()


def test_a_first_place_turns_when_its_lead_is_gone():
    # Six won and three lost: four that were won must go for three to two.
    assert turn_first_place(table_of([1.0] * 6 + [0.0] * 3, models=2)) == FirstPlace(0, 1, 4)
    assert turn_first_place(table_of([1.0, 0.0], models=2)).questions == 0
    assert turn_first_place(table_of([0.5] * 4, models=2)).questions == 0


def test_a_first_place_without_a_question_against_it_never_turns():
    assert turn_first_place(table_of([1.0, 1.0, 0.5], models=2)) == FirstPlace(0, None, None)


def test_no_fewer_questions_turn_a_first_place_than_are_found():
    random = np.random.default_rng(4)
    for _ in range(10):
        pairs = [random.choice([0, 0.5, 1], 7, p=[0.3, 0.1, 0.6]).tolist() for _ in range(3)]
        table = table_of(*pairs, models=3)
        first_place = turn_first_place(table)
        averages = average_win_rates(win_rate(table))
        assert averages[first_place.first] == averages.max()
        fewest = fewest_by_trying(table, first_place.first)
        if np.sum(averages > averages.max() - 1e-9) == 1:
            assert first_place.questions == fewest


def fewest_by_trying(table: np.ndarray, first: int) -> int | None:
    """Try every set of questions to leave out, small ones first."""
    questions = range(table.shape[2])
    for gone in questions:
        for leave_out in itertools.combinations(questions, gone):
            questions_left = [question for question in questions if question not in leave_out]
            averages = average_win_rates(win_rate(table[:, :, questions_left]))
            if averages.max() > averages[first] + 1e-9:
                return gone
    return None
