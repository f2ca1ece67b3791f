"""The answer in sentences: a lead goes by its own interval, and a test by whom it compares."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from right_results import EVALUATION

from jaxmodpo.report.answer import findings


def finding(**changes: Any) -> str:
    """Return the sentences on a criterion by which y, of 60%, is preferred to x, of 40%, with
    another test of the two.
    """
    (test,) = EVALUATION.tests["safety"]
    tests = {"safety": (dataclasses.replace(test, **changes),)}
    (sentences,) = findings(dataclasses.replace(EVALUATION, tests=tests))
    return sentences


def test_a_lead_whose_interval_holds_zero_may_be_chance_however_small_the_p_value_is():
    words = finding(
        decisive="p_value",
        p_value=1e-6,
        p_value_holm=3e-6,
        wins=100,
        losses=300,
        average_difference_interval=(-0.3, 0.1),
    )
    assert (
        "Its lead over x, the second, may be chance: 20.0 points (95% interval -10.0 to 30.0)"
        in words
    )
    assert (
        "Compared with x alone it wins 300 questions and loses 100 (p < 0.001, adjusted for all"
        " pairs by Holm's method)." in words
    )


def test_a_lead_whose_interval_is_above_zero_is_one_however_large_the_p_value_is():
    words = finding(average_difference_interval=(-0.3, -0.1), p_value_holm=1.0)
    assert "It leads x, the second, by 20.0 points (95% interval 10.0 to 30.0)." in words
    assert "wins 4 questions and loses 3, which may be chance (p = 1.000, adjusted" in words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"average_difference_interval": None}, "may be chance: 20.0 points (no interval)."),
        ({"wins": 0, "losses": 0}, "Compared with x alone it ties on every question."),
        ({"wins": 0, "losses": 1}, "it wins 1 question and loses 0, which may be chance"),
    ],
)
def test_what_cannot_be_computed_is_said(changes, words):
    assert words in finding(**changes)
