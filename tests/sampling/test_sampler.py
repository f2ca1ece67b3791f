"""Sampling: the distribution drawn from, independence of the batch, durability of the command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import WORDS, tiny_mistral

from jaxmodpo.errors import UserError
from jaxmodpo.files import read_json
from jaxmodpo.models import decoder
from jaxmodpo.policy.loaded import load_policy
from jaxmodpo.records import Question, read_responses, write_questions
from jaxmodpo.sampling.command import ResponsesConfig, responses
from jaxmodpo.sampling.sampler import SamplingSettings, choose, sample


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sampling")
    return tiny_mistral(folder / "model", gain=8.0, vocab_size=16, num_key_value_heads=1)


def frequencies(logits, temperature: float, top_p: float, draws: int = 20_000) -> np.ndarray:
    keys = jax.random.split(jax.random.key(0), draws)
    tokens = choose(jnp.tile(jnp.asarray(logits), (draws, 1)), keys, temperature, top_p)
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


def test_temperature_zero_takes_the_likeliest_token():
    assert choose(
        jnp.array([[0.0, 3.0, 1.0]]), jax.random.split(jax.random.key(0), 1), 0.0, 0.9
    ).tolist() == [1]


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
    keys = jax.random.split(jax.random.key(5), 2)
    free = sample(policy, prompts, keys, SamplingSettings(1.0, 1.0, 12, end_tokens=(2,)), rows=2)
    second = free[0][3]
    ended = sample(
        policy, prompts, keys, SamplingSettings(1.0, 1.0, 12, end_tokens=(2, second)), rows=2
    )
    for whole, cut in zip(free, ended, strict=True):
        stops = [place for place, token in enumerate(whole) if token in (2, second)]
        assert cut == (whole[: stops[0] + 1] if stops else whole)
    assert len(ended[0]) < len(free[0])


def test_a_reply_does_not_depend_on_its_neighbours(model: Path):
    policy = load_policy(model, base_dtype="float32")
    prompts = [[1, 5, 6], [1, 9], [1, 4, 4, 8]]
    keys = jax.random.split(jax.random.key(3), 3)
    settings = SamplingSettings(1.0, 0.9, 10, end_tokens=(2,))
    together = sample(policy, prompts, keys, settings, rows=3)
    alone = [
        sample(policy, [p], keys[n : n + 1], settings, rows=3)[0] for n, p in enumerate(prompts)
    ]
    assert together == alone and together[0] != together[1]


def responses_config(model: Path, tmp_path: Path, **changes) -> ResponsesConfig:
    write_questions(
        tmp_path / "questions.csv", [Question(f"q{n}", WORDS[n % 8]) for n in range(10)]
    )
    settings: dict = {
        "model": model,
        "questions": tmp_path / "questions.csv",
        "output_dir": tmp_path / "out",
        "samples": 3,
        "max_new_tokens": 8,
        "batch_size": 4,
        "base_dtype": "float32",
    }
    return ResponsesConfig(**(settings | changes))


def test_every_question_gets_its_replies_under_unique_ids(model: Path, tmp_path: Path):
    phase = responses(responses_config(model, tmp_path, model_name="base"))
    rows = read_responses(tmp_path / "out" / "responses.csv")
    assert [r.response_id for r in rows] == [f"q{n}_{k}" for n in range(10) for k in range(3)]
    assert {r.model_name for r in rows} == {"base"} and phase.results["responses"] == 30
    assert len({r.response_text for r in rows}) > 5


KILLER = """
import os, signal, sys
import jaxmodpo.sampling.command as command
real, calls = command.sample, 0
def sample(*a, **k):
    global calls
    calls += 1
    if calls == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*a, **k)
command.sample = sample
from jaxmodpo.cli import main
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_killed_sampling_resumes_to_the_same_bytes(model: Path, tmp_path: Path):
    config = responses_config(model, tmp_path)
    responses(config)
    flags = (
        f"responses --model {model} --questions {config.questions} --output-dir"
        f" {tmp_path / 'killed'} --samples 3 --max-new-tokens 8 --batch-size 4 --base-dtype float32"
    ).split()
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", KILLER, *flags], env=environment, capture_output=True
    )
    assert done.returncode == -9, done.stderr.decode()[-2000:]
    journal = tmp_path / "killed" / "sampled.jsonl"
    assert len(journal.read_text().splitlines()) == 12
    with journal.open("a") as file:
        file.write('{"response_text": "torn')
    done = subprocess.run(
        [sys.executable, "-m", "jaxmodpo.cli", *flags], env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert (tmp_path / "killed" / "responses.csv").read_bytes() == (
        tmp_path / "out" / "responses.csv"
    ).read_bytes()
    assert read_json(tmp_path / "killed" / "manifest.json")["status"] == "finished"


@pytest.mark.parametrize(
    "changes",
    [
        {"samples": 0},
        {"temperature": -1.0},
        {"top_p": 0.0},
        {"max_new_tokens": 0},
        {"batch_size": 0},
    ],
)
def test_settings_that_cannot_sample_are_refused(model: Path, tmp_path: Path, changes: dict):
    with pytest.raises(UserError):
        responses(responses_config(model, tmp_path, **changes))
