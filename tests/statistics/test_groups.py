"""Win rates by group of personas, and groups too small to be shown."""

from __future__ import annotations

import numpy as np
import pytest

from jaxmodpo.statistics.groups import GroupRate, rates_by_group


def test_each_group_has_the_mean_of_its_votes_with_counts_and_an_interval():
    random = np.random.default_rng(0)
    groups = ["older"] * 40 + ["younger"] * 40
    personas = np.repeat(np.arange(80), 50)
    votes = (random.random(4000) < np.where(personas < 40, 0.8, 0.4)).astype(float)
    older, younger = rates_by_group(votes, personas, groups)
    assert (older.group, older.personas, older.votes, older.hidden) == ("older", 40, 2000, "")
    assert older.rate == pytest.approx(votes[:2000].mean())
    assert older.interval is not None and younger.interval is not None
    # Personas of a group differ by chance alone here: the interval is that of 2,000 votes.
    half_width = 1.96 * np.sqrt(0.8 * 0.2 / 2000)
    assert older.interval[1] - older.interval[0] == pytest.approx(2 * half_width, rel=0.3)
    assert younger.interval[1] < older.interval[0]


def test_the_votes_of_one_persona_move_together():
    personas = np.repeat(np.arange(10), 100)
    votes = np.repeat([1.0, 0.0] * 5, 100)
    [group] = rates_by_group(votes, personas, ["all"] * 10)
    assert group.interval is not None
    assert group.rate == 0.5 and group.interval[1] - group.interval[0] > 0.5


def test_a_small_group_is_counted_and_not_shown():
    votes = [1.0, 0.0, 0.5, 1.0]
    rates = rates_by_group(votes, [0, 0, 1, 2], ["a", "a", "b", "", "b"], smallest=2)
    assert rates[0][:4] == ("a", 2, 3, pytest.approx(0.5))
    # Of the two personas of b one never voted; persona 3 is in no group.
    assert rates[1] == GroupRate("b", 1, 1, None, None, "fewer than 2 personas")


def test_no_votes_and_no_groups_give_nothing():
    assert rates_by_group([], [], []) == []
    assert rates_by_group([1.0], [0], [""]) == []
