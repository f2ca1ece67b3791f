"""Sampling: the distribution drawn from, independence of the batch, durability of the command."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import tiny_mistral

from jaxmodpo.models import decoder
from jaxmodpo.policy.loaded import load_policy
from jaxmodpo.sampling.draw import SamplingSettings, candidates, draw
from jaxmodpo.sampling.engine import sample


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sampling")
    return tiny_mistral(folder / "model", gain=8.0, vocab_size=16, num_key_value_heads=1)


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


@pytest.mark.slow(seconds=10)
def test_greedy_replies_equal_token_by_token_full_passes(model: Path):
    policy = load_policy(model, base_dtype="float32")
    prompts = [[1, 5, 6, 7], [1, 9], [1, 4, 4, 8, 9, 10]]
    settings = SamplingSettings(0.0, 1.0, 12, end_tokens=(2,))
    replies = sample(policy, prompts, jax.random.split(jax.random.key(0), 3), settings, rows=4)
    bare = decoder.Decoder(policy.config, policy.base)
    for prompt, reply in zip(prompts, replies, strict=True):
        tokens = list(prompt)
        for _ in range(12):
            hidden = bare.hidden_states(jnp.asarray([tokens]))
            tokens.append(int(jnp.argmax(bare.logits(hidden)[0, -1])))
            if tokens[-1] == 2:
                break
        assert reply == tokens[len(prompt) :]


@pytest.mark.slow(seconds=3)
def test_a_reply_ends_at_the_first_of_several_end_tokens(model: Path):
    policy = load_policy(model, base_dtype="float32")
    prompts = [[1, 5, 6, 7], [1, 9]]
    keys = jax.random.split(jax.random.key(6), 2)
    free = sample(policy, prompts, keys, SamplingSettings(1.0, 1.0, 12, end_tokens=(2,)), rows=2)
    second = free[0][3]
    ended = sample(
        policy, prompts, keys, SamplingSettings(1.0, 1.0, 12, end_tokens=(2, second)), rows=2
    )
    for whole, cut in zip(free, ended, strict=True):
        stops = [place for place, token in enumerate(whole) if token in (2, second)]
        assert cut == (whole[: stops[0] + 1] if stops else whole)
    assert len(ended[0]) < len(free[0])


def test_a_reply_does_not_depend_on_its_neighbors(model: Path):
    policy = load_policy(model, base_dtype="float32")
    prompts = [[1, 5, 6], [1, 9], [1, 4, 4, 8]]
    keys = jax.random.split(jax.random.key(3), 3)
    settings = SamplingSettings(1.0, 0.9, 10, end_tokens=(2,))
    together = sample(policy, prompts, keys, settings, rows=3)
    alone = [
        sample(policy, [p], keys[n : n + 1], settings, rows=3)[0] for n, p in enumerate(prompts)
    ]
    assert together == alone and together[0] != together[1]
