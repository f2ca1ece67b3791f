"""Weights on the simplex: read as numbers or by name, and refused where they do not fit."""

from __future__ import annotations

import pytest

from jaxmodpo.errors import UserError
from jaxmodpo.methods.weights import named_weights


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ((0.5, 0.6), "sum to 1"),
        ((1.2, -0.2), "at least 0"),
        ((float("nan"), 0.5), "sum to 1"),
        ((1.0,), "needs 2 numbers"),
        ((0.0, 1.0), "must be positive"),
        (("empathy=0.5", "safty=0.5"), "names empathy, safty, but the objectives are"),
        (("empathy=0.5", "safety=half"), "must be numbers"),
        (("empathy=0.5", 0.5), "NAME=VALUE"),
    ],
)
def test_weights_that_do_not_fit_their_objectives_are_refused(weights, said):
    with pytest.raises(UserError, match=said):
        named_weights(weights, ["the primary", "safety"], primary=True)


def test_named_weights_are_put_into_the_objectives_order():
    assert named_weights(
        ("safety=0.25", "empathy=0.75"), ["the primary", "safety"], primary=True
    ) == (0.75, 0.25)
    assert named_weights(("b=0.25", "a=0.75"), ["a", "b"]) == (0.75, 0.25)
