"""Power, checked by simulated evaluations."""

from __future__ import annotations

import numpy as np
import pytest

from jaxmodpo.statistics.mcnemar import mcnemar_from_counts
from jaxmodpo.statistics.power import detectable_over_panels, detectable_over_questions


@pytest.mark.parametrize("questions", [20, 150])
def test_a_detectable_difference_is_seen_four_times_of_five(questions):
    difference = detectable_over_questions(questions)
    assert difference is not None
    random = np.random.default_rng(0)
    wins = random.binomial(questions, 0.5 + difference, size=4000)
    seen = {
        won: mcnemar_from_counts(won, questions - won).decisive_p_value < 0.05
        for won in set(wins.tolist())
    }
    assert np.mean([seen[won] for won in wins.tolist()]) == pytest.approx(0.8, abs=0.02)


def test_600_questions_see_what_the_normal_approximation_says():
    # (1.96 + 0.84) / 2 / √600
    assert detectable_over_questions(600) == pytest.approx(2.8016 / 2 / np.sqrt(600), abs=0.002)


def test_personas_that_differ_make_small_differences_harder_to_see():
    questions, personas, spread = 200, 20, 0.2
    difference = detectable_over_panels(questions, personas, spread=spread)
    over_questions = detectable_over_questions(questions)
    assert difference is not None and over_questions is not None
    assert difference > 1.3 * over_questions
    random = np.random.default_rng(1)
    tastes = random.normal(0, spread, size=(4000, personas)).mean(axis=1)
    rates = random.binomial(questions, np.clip(0.5 + difference + tastes, 0, 1)) / questions
    error = np.sqrt(0.25 / questions + spread**2 / personas)
    assert np.mean(rates - 0.5 > 1.959964 * error) == pytest.approx(0.8, abs=0.02)


def test_without_differences_among_personas_both_agree():
    assert detectable_over_panels(600, 5, spread=0) == pytest.approx(
        detectable_over_questions(600), abs=0.002
    )


def test_too_few_questions_see_nothing_at_all():
    assert detectable_over_questions(5) is None
    assert detectable_over_questions(1) is None
    assert detectable_over_questions(6) is not None
    assert detectable_over_panels(2, 2) is None
