"""Holm's adjustment against statsmodels and by its words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from jaxmodpo.statistics.multiple_tests import holm

NAN = float("nan")


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
@settings(max_examples=50, deadline=None)
def test_holm_equals_statsmodels(p_values):
    _, adjusted, _, _ = multipletests(p_values, method="holm")
    np.testing.assert_allclose(holm(p_values), np.asarray(adjusted), rtol=1e-12, atol=1e-300)


def test_holm_of_a_worked_example():
    # 0.01 * 4, 0.02 * 3, then 0.03 * 2 and 0.04 * 1, neither below the 0.06 before it.
    np.testing.assert_allclose(holm([0.04, 0.01, 0.03, 0.02]), [0.06, 0.04, 0.06, 0.06])


def test_a_test_that_could_not_be_made_is_no_member_of_the_family():
    np.testing.assert_allclose(holm([0.02, NAN, 0.03]), [0.04, NAN, 0.04])
    assert np.isnan(holm([NAN, NAN])).all()
    assert holm([]).shape == (0,)


def test_one_test_is_not_adjusted_and_none_exceeds_one():
    assert holm([0.03]).tolist() == [0.03]
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]


def test_what_is_no_family_of_p_values_is_refused():
    with pytest.raises(ValueError, match="one axis"):
        holm(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="from 0 to 1"):
        holm([0.5, 1.5])
