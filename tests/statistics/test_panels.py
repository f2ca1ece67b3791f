"""Resampled questions and personas against drawing them one by one, and what intervals cover."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from jaxmodpo.bench.coverage import World, coverage, panel_votes
from jaxmodpo.statistics.bootstrap import times_drawn
from jaxmodpo.statistics.panels import (
    PanelVotes,
    bootstrap_panel,
    recentered_interval,
    square_of_pairs,
)

NAN = float("nan")


def some_votes(seed: int = 3) -> tuple[PanelVotes, np.ndarray]:
    """Two pairs, four questions, two replies, five personas; some votes ties, some missing."""
    random = np.random.default_rng(seed)
    verdicts = random.choice([-1.0, 0, 1, NAN], size=(2, 4, 2, 5), p=[0.3, 0.1, 0.3, 0.3])
    verdicts[0, 1, 0] = NAN  # identical replies: nobody was asked
    verdicts[1, 2, 1] = NAN  # no valid vote
    balance = np.nansum(verdicts, axis=-1)
    has_votes = np.isfinite(verdicts).any(axis=-1)
    outcomes = np.where(has_votes, (np.sign(balance) + 1) / 2, NAN)
    outcomes[0, 1, 0] = 0.5
    flat = verdicts.reshape(-1, 5)
    unit, persona = np.nonzero(np.isfinite(flat))
    return PanelVotes(unit, persona, flat[unit, persona].astype(int), 5, outcomes), verdicts


@pytest.mark.parametrize("ties_count_half", [True, False])
def test_a_resample_equals_counting_the_votes_drawn_one_by_one(ties_count_half):
    votes, verdicts = some_votes()
    samples = bootstrap_panel(votes, ties_count_half=ties_count_half, resamples=150, seed=7)
    question_draws = times_drawn(4, 150, 7)
    persona_draws = times_drawn(5, 150, 8)
    for number in range(150):
        questions = np.repeat(np.arange(4), question_draws[number])
        personas = np.repeat(np.arange(5), persona_draws[number])
        for pair in range(2):
            outcomes: list[float] = []
            for question in questions:
                for reply in range(2):
                    sampled_verdicts = verdicts[pair, question, reply, personas]
                    outcome = 0.5 if (pair, question, reply) == (0, 1, 0) else NAN
                    if np.isfinite(sampled_verdicts).any():
                        outcome = (np.sign(np.nansum(sampled_verdicts)) + 1) / 2
                    if np.isfinite(outcome) and (ties_count_half or outcome != 0.5):
                        outcomes.append(outcome)
            expected = np.mean(outcomes) if outcomes else NAN
            np.testing.assert_allclose(samples[number, pair], expected)


def test_no_votes_at_all_leave_every_rate_undefined():
    none = np.zeros(0, int)
    samples = bootstrap_panel(
        PanelVotes(none, none, none, 3, np.full((2, 4, 1), NAN)), resamples=20
    )
    assert samples.shape == (20, 2) and np.isnan(samples).all()


def test_one_persona_is_in_every_panel():
    votes = panel_votes(np.array([[1], [1], [-1], [1]]))
    samples = bootstrap_panel(votes, resamples=200, seed=2)[:, 0]
    questions_alone = times_drawn(4, 200, 2) @ [1, 1, 0, 1] / 4
    np.testing.assert_allclose(samples, questions_alone)


def test_interval_is_the_samples_moved_to_the_value_and_stays_within_bounds():
    samples = np.random.default_rng(0).normal(0.9, 0.05, size=20_000)
    low, high = recentered_interval(0.95, samples, bounds=(0, 1), fewest=1000)
    assert low == pytest.approx(0.95 - 1.96 * 0.05, abs=0.003) and high == 1.0
    low, high = recentered_interval([0.5, 0.5], np.full((9, 2), NAN), bounds=(0, 1), fewest=2)
    assert np.isnan([low, high]).all()


def test_few_personas_spread_less_in_a_sample_than_in_the_population():
    samples = np.linspace(0.4, 0.6, 2001)
    low, high = recentered_interval(0.5, samples, bounds=(0, 1), fewest=5)
    assert high - low == pytest.approx(0.95 * 0.2 * np.sqrt(5 / 4))


def test_pairs_are_arranged_as_a_square():
    square = square_of_pairs(np.array([0.2, 0.3, 0.9]), 3)
    np.testing.assert_allclose(square, [[NAN, 0.2, 0.3], [0.8, NAN, 0.9], [0.7, 0.1, NAN]])


def test_memory_is_of_the_votes_and_not_of_their_resamples():
    random = np.random.default_rng(0)
    unit = np.repeat(np.arange(6000), 10)
    persona = random.integers(500, size=60_000)
    # One vote a persona and unit.
    _, first = np.unique(unit * 500 + persona, return_index=True)
    verdict = random.choice([-1, 1], size=60_000)
    votes = PanelVotes(unit[first], persona[first], verdict[first], 500, np.zeros((3, 2000, 1)))
    tracemalloc.start()
    bootstrap_panel(votes, resamples=500)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # 6,000 units times 500 resamples would be 24 MB in a single array of float64.
    assert peak < 60e6


@pytest.mark.slow(seconds=15)
def test_nominal_95_percent_intervals_over_both_cover_new_questions_and_new_personas():
    of_questions, of_both = coverage(World(100, 20, 0.2, 0.7, 0.5))
    assert of_questions < 0.85
    assert 0.92 <= of_both <= 0.98
