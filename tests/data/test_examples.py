"""Examples: tokens that the model has no row for, and pairs that are equal once cut."""

from __future__ import annotations

import numpy as np
import pytest

from jaxmodpo.data.comparisons import Comparisons, equal_pairs
from jaxmodpo.data.examples import Examples, check_tokens
from jaxmodpo.errors import UserError


def test_a_token_beyond_the_embeddings_rows_is_refused_and_the_last_row_taken():
    check_tokens(9, 10)
    with pytest.raises(UserError, match="token 10, and the model's embedding has 10 rows"):
        check_tokens(10, 10)


def test_equal_pairs_are_those_of_the_same_tokens_in_any_objective():
    tokens = np.array([[[1, 2]], [[1, 2]], [[1, 3]], [[1, 0]], [[1, 0]]], np.int32)
    lengths = np.array([[2], [2], [2], [1], [2]], np.int32)
    replies = Examples(tokens, np.zeros_like(lengths), lengths, {})
    rows = np.array([[0, 1, 2, 3], [0, 2, 1, 3], [3, 4, 0, 2], [2, 3, 1, 0]])
    comparisons = Comparisons(replies, rows, np.zeros(4, int))
    assert equal_pairs(comparisons).tolist() == [True, False, False, True]
