"""Slots: a reply depends on its prompt, its key and the shapes, and on nothing else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from engine_policy import make_policy

from jaxmodpo.errors import UserError
from jaxmodpo.models import decoder
from jaxmodpo.models.cached_attention import BLOCK, attend, visible_places
from jaxmodpo.policy.loaded import Policy, load_policy
from jaxmodpo.sampling.draw import SamplingSettings
from jaxmodpo.sampling.engine import Ask, Engine, Sampled, Shapes, sample


@pytest.fixture(scope="module")
def policy() -> Policy:
    return make_policy()


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    random = np.random.default_rng(0)
    return [random.integers(3, 48, length).tolist() for length in (5, 90, 2, 40, 64, 65, 11, 30, 3)]


def keys(count: int) -> jax.Array:
    return jax.random.split(jax.random.key(7), count)


@pytest.mark.slow(seconds=6)
def test_replies_do_not_depend_on_order_or_neighbors_to_the_bit(policy, prompts):
    settings = SamplingSettings(1.0, 0.9, 70, end_tokens=(2, 9))
    together = sample(policy, prompts, keys(9), settings, rows=8)
    backwards = sample(policy, prompts[::-1], keys(9)[::-1], settings, rows=8)[::-1]
    alone = [sample(policy, [prompts[n]], keys(9)[n : n + 1], settings, rows=8)[0] for n in (1, 4)]
    assert together == backwards
    assert alone == [together[1], together[4]]
    assert len({len(reply) for reply in together}) > 3


@pytest.mark.slow(seconds=5)
def test_another_number_of_rows_gives_the_same_tokens(policy, prompts):
    settings = SamplingSettings(1.0, 0.9, 30, end_tokens=(2,))
    assert sample(policy, prompts, keys(9), settings, rows=3) == sample(
        policy, prompts, keys(9), settings, rows=16
    )


def assert_likeliest(
    policy: Policy, prompts: list[list[int]], replies: list[list[int]], length: int
) -> None:
    """Assert that each token of a reply is the likeliest one of a pass over the whole of it."""
    model = decoder.Decoder(policy.config, policy.base)
    full = jax.jit(lambda tokens: model.logits(model.hidden_states(tokens)))
    for prompt, reply in zip(prompts, replies, strict=True):
        tokens = np.zeros((1, length), int)
        tokens[0, : len(prompt) + len(reply)] = prompt + reply
        likeliest = np.argmax(np.asarray(full(jnp.asarray(tokens)))[0], axis=-1)
        assert reply == likeliest[len(prompt) - 1 : len(prompt) + len(reply) - 1].tolist()


@pytest.mark.slow(seconds=2)
@pytest.mark.parametrize("window", [None, 20])
def test_greedy_replies_are_the_likeliest_tokens_of_a_full_pass(prompts, window):
    policy = make_policy(sliding_window=window)
    settings = SamplingSettings(0.0, 1.0, 100, end_tokens=(2,))
    replies = sample(policy, prompts, keys(9), settings, rows=4)
    assert_likeliest(policy, prompts, replies, length=192)
    assert all(len(reply) == 100 or reply[-1] == 2 for reply in replies)


@pytest.mark.slow(seconds=3)
def test_prompts_longer_than_the_cache_do_not_spoil_shorter_ones():
    policy = make_policy(sliding_window=20)
    random = np.random.default_rng(4)
    prompts = [random.integers(3, 48, length).tolist() for length in (5, 300, 70, 190)]
    settings = SamplingSettings(0.0, 1.0, 40, end_tokens=(2,))
    shapes = Shapes.of(policy.config, 300, 40, rows=4)
    assert shapes.prompt_length < shapes.prompt_tokens and shapes.prompt_rows == 4
    replies = sample(policy, prompts, keys(4), settings, rows=4)
    assert_likeliest(policy, prompts, replies, length=384)


def test_a_window_bounds_what_the_cache_holds(policy):
    config = make_policy(sliding_window=20).config
    assert Shapes.of(config, 200, 300, rows=4).cache_length == 64
    assert Shapes.of(policy.config, 200, 300, rows=4).cache_length == 512


def test_rows_that_devices_do_not_divide_are_refused(policy):
    with pytest.raises(UserError, match="6 rows cannot be shared out among 4 devices"):
        Shapes.of(policy.config, 10, 10, rows=6, shards=4)


@pytest.mark.slow(seconds=3)
def test_samples_of_one_prompt_share_its_prefill_and_a_run_needs_few_programs(policy, prompts):
    settings = SamplingSettings(1.0, 1.0, 130, end_tokens=(2,))
    asks = [
        Ask((n, k), prompt, jax.random.fold_in(keys(9)[n], k))
        for n, prompt in enumerate(prompts)
        for k in range(5)
    ]
    engine = Engine(policy, settings, Shapes.of(policy.config, 90, 130, rows=8))
    replies: list[Sampled] = []
    engine.run(asks, replies.extend)
    assert {reply.name for reply in replies} == {ask.name for ask in asks}
    assert len(replies) == len(asks)
    # A prefill of these shapes may have been compiled for another test.
    assert engine.programs["round"] == 1 and engine.programs.get("prefill", 1) == 1
    reasons = {reply.reason for reply in replies}
    assert reasons == {"end", "length"}
    assert all((r.tokens[-1] == 2) == (r.reason == "end") for r in replies)
    assert all(len(r.tokens) == 130 for r in replies if r.reason == "length")


def test_a_stop_string_cuts_at_the_same_token_whatever_the_rounds(policy, prompts):
    settings = SamplingSettings(1.0, 1.0, 60, end_tokens=(2,))
    free = sample(policy, prompts, keys(9), settings, rows=4)

    def tokens_to_stop(tokens) -> int | None:
        return tokens.index(9) + 1 if 9 in tokens else None

    shapes = Shapes.of(policy.config, 90, 60, rows=4)
    asks = [Ask(n, prompt, keys(9)[n]) for n, prompt in enumerate(prompts)]
    stopped: dict[object, Sampled] = {}
    engine = Engine(policy, settings, shapes, tokens_to_stop)
    engine.run(asks, lambda replies: stopped.update({reply.name: reply for reply in replies}))
    for n, whole in enumerate(free):
        if 9 in whole:
            assert stopped[n].tokens == whole[: whole.index(9) + 1]
            assert stopped[n].reason == "stop"
        else:
            assert stopped[n].tokens == whole
    assert any(reply.reason == "stop" for reply in stopped.values())


def test_a_repetition_penalty_counts_prompt_and_reply(policy, prompts):
    settings = SamplingSettings(0.0, 1.0, 24, end_tokens=(2,), repetition_penalty=1e6)
    for prompt, reply in zip(
        prompts, sample(policy, prompts, keys(9), settings, rows=4), strict=True
    ):
        free = set(range(48)) - set(prompt)
        first = reply[: len(free)]
        # Nothing comes twice while a new token has a positive logit.
        assert len(set(first)) >= len(first) - 2


def with_infinite_logits(policy: Policy) -> Policy:
    """Return a policy whose adapter makes its hidden states overflow."""
    adapter = {name: array + 1e30 for name, array in policy.adapter.items()}
    return dataclasses.replace(policy, adapter=adapter, adapter_folders=(Path("broken"),))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_model_whose_logits_are_no_numbers_is_refused_by_name(policy, prompts, temperature):
    settings = SamplingSettings(temperature, 0.9, 30, end_tokens=(2,))
    told = "with the adapter broken: the logits of a reply's next token are not finite numbers"
    with pytest.raises(UserError, match=told):
        sample(with_infinite_logits(policy), prompts, keys(9), settings, rows=8)


def in_blocks(array_LBSKC: jax.Array) -> jax.Array:
    """Return the keys or values of a cache as the cache has them."""
    layers, rows, places, heads, width = array_LBSKC.shape
    blocks = array_LBSKC.reshape(layers, rows, places // BLOCK, BLOCK, heads, width)
    return jnp.transpose(blocks, (0, 2, 1, 4, 3, 5))


def test_attention_does_not_depend_on_how_far_neighbors_make_it_read_to_the_bit():
    random = np.random.default_rng(1)
    q = jnp.asarray(random.normal(size=(3, 1, 4, 8)), jnp.float32)
    k, v = (jnp.asarray(random.normal(size=(2, 3, 4 * BLOCK, 2, 8)), jnp.float32) for _ in range(2))
    run = jax.jit(attend)
    outputs = []
    for last in (10, BLOCK + 5, 4 * BLOCK - 1):
        positions = jnp.asarray([[3], [BLOCK - 1], [last]])
        visible = visible_places(positions, 4 * BLOCK, None)
        outputs.append(np.asarray(run(q, in_blocks(k), in_blocks(v), 1, visible)))
        expected = jax.nn.dot_product_attention(q, k[1], v[1], mask=visible[:, None])
        np.testing.assert_allclose(outputs[-1], np.asarray(expected), rtol=1e-5, atol=1e-6)
    assert (outputs[0][:2] == outputs[1][:2]).all() and (outputs[0][:2] == outputs[2][:2]).all()


def test_places_are_used_again_behind_the_window():
    visible = np.asarray(visible_places(jnp.asarray([[69]]), 64, 10))[0, 0]
    # Positions 60 to 69: the first four at their own places, the others at 0 to 5.
    assert np.flatnonzero(visible).tolist() == [0, 1, 2, 3, 4, 5, 60, 61, 62, 63]


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
