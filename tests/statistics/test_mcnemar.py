"""McNemar's test against figures computed with statsmodels and those of the paper."""

from __future__ import annotations

import numpy as np
import pytest

from jaxmodpo.statistics.mcnemar import mcnemar, mcnemar_from_counts, question_majorities

NAN = float("nan")


def test_majority_of_replies_decides_a_question():
    outcomes = [[1, 1, 0], [0.5, 0, 0.5], [1, 0, 0.5], [NAN, 1, NAN], [NAN, NAN, NAN]]
    np.testing.assert_array_equal(question_majorities(outcomes), [1, 0, 0.5, 1, NAN])


# b, c, chi-square, its p, corrected chi-square, its p, exact p: statsmodels 0.15.0,
# statsmodels.stats.contingency_tables.mcnemar.
STATSMODELS = [
    (12, 3, 5.4, 0.02013675155034633, 4.266666666666667, 0.03886710381241731, 0.03515625),
    (1, 0, 1.0, 0.31731050786291115, 0.0, 1.0, 1.0),
    (0, 4, 4.0, 0.04550026389635857, 2.25, 0.13361440253771584, 0.125),
    (44, 30, 2.6486486486486487, 0.10363796401396222, 2.2837837837837838, 0.13073258577290067, 0.13017768031912758),
    (315, 285, 1.5, 0.22067136191984324, 1.4016666666666666, 0.23644471557230048, 0.2364186831754689),
]  # fmt: skip


@pytest.mark.parametrize(
    ("wins", "losses", "expected"), [(b, c, rest) for b, c, *rest in STATSMODELS]
)
def test_mcnemar_agrees_with_statsmodels(wins, losses, expected):
    outcomes = np.repeat([1.0, 0.0, 0.5, NAN], [wins, losses, 7, 2])[:, None]
    test = mcnemar(outcomes)
    assert test[:3] == (wins, losses, 7)
    assert test[3:8] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("wins", "losses", "printed"), [(315, 285, "0.221"), (310, 288, "0.368"), (307, 292, "0.540")]
)
def test_uncorrected_chi_square_attains_the_papers_p_values_at_600_questions(wins, losses, printed):
    test = mcnemar_from_counts(wins, losses, 600 - wins - losses)
    assert f"{test.p_value:.3f}" == printed
    assert f"{test.p_value_corrected:.3f}" != printed


def test_mcnemar_without_a_win_or_loss_has_p_one():
    test = mcnemar(np.full((5, 2), 0.5))
    assert test == (0, 0, 5, 0.0, 1.0, 0.0, 1.0, 1.0, "p_value_exact")


@pytest.mark.parametrize(
    ("wins", "losses", "decisive"),
    [(5, 0, "p_value_exact"), (24, 0, "p_value_exact"), (15, 10, "p_value")],
)
def test_exact_test_decides_below_25_questions_won_or_lost(wins, losses, decisive):
    test = mcnemar_from_counts(wins, losses, ties=100)
    assert test.decisive == decisive
    assert test.decisive_p_value == getattr(test, decisive)


def test_mcnemar_correction_does_not_make_equal_counts_differ():
    assert mcnemar_from_counts(5, 5).p_value_corrected == 1.0


def test_mcnemar_takes_one_outcome_per_question():
    outcomes = [[1, 1, 1, 1], [1, 1, 1, 0], [0, 0, 0, 1], [1, 1, 0, 0]]
    assert mcnemar(outcomes)[:3] == (2, 1, 1)
