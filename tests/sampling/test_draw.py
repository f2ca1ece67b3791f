"""What may be drawn: thresholds found by halving are those of a sorted list, and penalties as in
transformers.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jaxmodpo.errors import UserError
from jaxmodpo.sampling.draw import (
    Candidates,
    SamplingSettings,
    candidates,
    draw,
    is_in_nucleus,
    likeliest,
    penalized,
)


def how(temperature: float = 1.0, top_p: float = 1.0, **changes) -> SamplingSettings:
    return SamplingSettings(temperature, top_p, 1, (0,), **changes)


def open_weights(logits, settings: SamplingSettings, seen=None) -> np.ndarray:
    """Return the weight of each token that may be drawn, and 0 for the others."""
    open_to_all = candidates(jnp.asarray(logits, jnp.float32), settings, seen)
    rows, vocabulary = open_to_all.weights_BV.shape
    is_inside = [is_in_nucleus(open_to_all, jnp.full(rows, token)) for token in range(vocabulary)]
    return np.where(np.stack(is_inside, axis=1), np.asarray(open_to_all.weights_BV), 0)


def open_tokens(logits, settings: SamplingSettings, seen=None) -> list[list[int]]:
    """Return the tokens of each row that may be drawn."""
    weights = open_weights(logits, settings, seen)
    return [np.flatnonzero(row).tolist() for row in weights]


@pytest.mark.slow(seconds=4)
@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.sampled_from([0.1, 0.3, 0.5, 0.9, 0.95, 0.999]))
def test_the_nucleus_is_the_one_of_the_sorted_list(seed: int, top_p: float):
    logits = np.random.default_rng(seed).normal(0, 3, (4, 50)).astype(np.float32)
    for row, is_open in zip(logits, open_tokens(logits, how(top_p=top_p)), strict=True):
        probabilities = np.exp(row.astype(np.float64) - row.max())
        probabilities /= probabilities.sum()
        order = np.argsort(-probabilities)
        before = np.cumsum(probabilities[order]) - probabilities[order]
        if np.abs(before - top_p).min() < 1e-5:
            continue  # float32 sums may fall on either side
        assert set(is_open) == set(order[before < top_p])


def test_what_is_as_likely_as_the_last_of_the_nucleus_belongs_to_it():
    logits = np.log(np.array([[0.4, 0.2, 0.2, 0.2]], np.float32))
    assert open_tokens(logits, how(top_p=0.5)) == [[0, 1, 2, 3]]
    assert open_tokens(logits, how(top_p=0.39)) == [[0]]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("top_p", "nucleus"), [(0.9, {1, 2}), (1e-46, {1})])
def test_a_draw_ends_where_logits_are_no_numbers_or_top_p_rounds_to_nothing(top_p, nucleus):
    logits = jnp.array([[0.0, np.nan, 1.0], [0.0, 3.0, 1.0]])
    tokens = draw(candidates(logits, how(top_p=top_p)), jax.random.split(jax.random.key(0), 2))
    assert ((tokens >= 0) & (tokens < 3)).all()
    # The row beside it draws as ever.
    assert int(tokens[1]) in nucleus


@pytest.mark.parametrize(
    ("top_k", "kept"), [(1, [3]), (2, [0, 3]), (3, [0, 1, 2, 3]), (9, [0, 1, 2, 3, 4])]
)
def test_top_k_keeps_the_likeliest_and_what_equals_the_last(top_k: int, kept: list[int]):
    assert open_tokens([[1.0, -2.5, -2.5, 7.0, -40.0]], how(top_k=top_k)) == [kept]


def test_min_p_is_measured_by_the_likeliest_token():
    logits = np.log(np.array([[0.5, 0.26, 0.24]], np.float32))
    assert open_tokens(logits, how(min_p=0.5)) == [[0, 1]]


def test_one_filter_works_on_what_the_one_before_left():
    # Of the two likeliest, 0.6 and 0.3, the first alone is two thirds.
    logits = np.log(np.array([[0.6, 0.3, 0.1]], np.float32))
    assert open_tokens(logits, how(top_p=0.65)) == [[0, 1]]
    assert open_tokens(logits, how(top_p=0.65, top_k=2)) == [[0]]


def test_temperature_zero_keeps_all_and_takes_the_likeliest():
    logits = jnp.array([[0.0, 3.0, 1.0, 3.0]])
    assert likeliest(penalized(logits, how(0.0, 0.5))).tolist() == [1]


def test_filters_and_penalty_equal_those_of_transformers():
    torch = pytest.importorskip("torch")
    from transformers.generation import logits_process as theirs

    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (3, 40)).astype(np.float32)
    prompt = random.integers(0, 40, (3, 6))
    seen = np.zeros((3, 40), bool)
    np.put_along_axis(seen, prompt, True, axis=1)
    expected = torch.tensor(logits)
    for processor in (
        theirs.RepetitionPenaltyLogitsProcessor(1.3),
        theirs.TemperatureLogitsWarper(0.7),
        theirs.TopKLogitsWarper(20),
        theirs.TopPLogitsWarper(0.9),
        theirs.MinPLogitsWarper(0.05),
    ):
        expected = processor(torch.tensor(prompt), expected)
    settings = how(0.7, 0.9, top_k=20, min_p=0.05, repetition_penalty=1.3)
    ours = open_weights(logits, settings, jnp.asarray(seen))
    probabilities = torch.softmax(expected.double(), dim=-1).numpy()
    assert ((ours > 0) == (probabilities > 0)).all()
    np.testing.assert_allclose(ours / ours.sum(axis=1, keepdims=True), probabilities, rtol=1e-6)


@pytest.mark.slow(seconds=4)
@pytest.mark.parametrize(
    ("settings", "vocabulary"),
    [(how(top_p=0.3), 300), (how(0.7, 0.9), 300), (how(top_k=9, top_p=0.8), 300), (how(), 7)],
)
def test_draws_have_the_frequencies_of_what_is_open(settings: SamplingSettings, vocabulary: int):
    count = 40_000
    logits = np.random.default_rng(3).normal(0, 1.5, (1, vocabulary)).astype(np.float32)
    weights = open_weights(logits, settings)[0].astype(np.float64)
    one_row = candidates(jnp.asarray(logits), settings)
    many_rows = Candidates(*(jnp.repeat(array, count, axis=0) for array in one_row))
    tokens = jax.jit(draw)(many_rows, jax.random.split(jax.random.key(1), count))
    counts = np.bincount(np.asarray(tokens), minlength=vocabulary)
    assert not counts[weights == 0].any()
    expected = count * weights / weights.sum()
    common = expected >= 5
    observed = np.append(counts[common], counts[~common].sum())
    wanted = np.append(expected[common], expected[~common].sum() + 1e-9)
    assert stats.chisquare(observed, wanted).pvalue > 1e-3


def test_a_row_draws_the_same_whatever_its_neighbors_draw_to_the_bit():
    random = np.random.default_rng(5)
    logits = jnp.asarray(random.normal(0, 1, (64, 500)), jnp.float32)
    keys = jax.random.split(jax.random.key(2), 64)
    settings = how(top_p=0.2)
    together = draw(candidates(logits, settings), keys)
    neighbors = logits.at[1:].set(logits[1:, ::-1])
    assert draw(candidates(neighbors, settings), keys)[0] == together[0]
    # One token has nearly everything, so that nobody draws again.
    certain = logits.at[1:, 7].set(50.0)
    assert draw(candidates(certain, settings), keys)[0] == together[0]


@pytest.mark.parametrize(
    "changes", [{"top_k": -1}, {"min_p": 1.5}, {"repetition_penalty": 0.0}, {"top_p": 0.0}]
)
def test_settings_that_mean_nothing_are_refused(changes: dict):
    right: dict[str, Any] = {
        "temperature": 1.0,
        "top_p": 1.0,
        "max_new_tokens": 1,
        "end_tokens": (0,),
    }
    with pytest.raises(UserError, match="sampling needs"):
        SamplingSettings(**(right | changes))


def frequencies(logits, temperature: float, top_p: float, draws: int = 20_000) -> np.ndarray:
    keys = jax.random.split(jax.random.key(0), draws)
    settings = SamplingSettings(temperature, top_p, 1, (0,))
    logits_BV = jnp.tile(jnp.asarray(logits), (draws, 1))
    tokens = draw(candidates(logits_BV, settings), keys)
    return np.bincount(np.asarray(tokens), minlength=len(logits)) / draws


def test_draws_follow_the_tempered_softmax():
    logits = np.array([1.0, 0.0, -1.0, 2.0], np.float32)
    expected = np.exp(logits / 0.8) / np.exp(logits / 0.8).sum()
    np.testing.assert_allclose(frequencies(logits, 0.8, 1.0), expected, atol=0.015)


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.45, [1]), (0.5, [1]), (0.51, [1, 3]), (0.81, [1, 3, 0]), (0.01, [1])]
)
def test_top_p_draws_from_the_smallest_set_that_reaches_it(top_p: float, kept: list[int]):
    probabilities = np.array([0.15, 0.5, 0.05, 0.3], np.float32)
    expected = np.zeros(4)
    expected[kept] = probabilities[kept] / probabilities[kept].sum()
    np.testing.assert_allclose(frequencies(np.log(probabilities), 1.0, top_p), expected, atol=0.015)
