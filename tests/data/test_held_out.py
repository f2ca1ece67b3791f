"""What is held out: whole questions, the same ones whenever seed and share are the same."""

from __future__ import annotations

import numpy as np

from jaxmodpo.data.held_out import held_out, split_rows


def test_held_out_pairs_are_whole_questions():
    questions = [f"question {number}" for number in range(20)] * 2
    held = held_out(questions, 0.3, seed=4)
    assert held.sum() == 12
    assert not {q for q, h in zip(questions, held, strict=True) if h} & set(
        np.array(questions)[~held]
    )
    np.testing.assert_array_equal(held_out(questions, 0.3, seed=4), held)
    assert not held_out(questions, 0.0, seed=4).any()


def test_rows_are_split_in_their_order():
    assert split_rows("abcd", np.array([False, True, False, True])) == (["a", "c"], ["b", "d"])
