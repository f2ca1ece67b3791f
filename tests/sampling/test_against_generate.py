"""Greedy replies against transformers' ``generate``, and draws against the exact distribution."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

torch = pytest.importorskip("torch", reason="the reference models need torch")
import transformers  # noqa: E402
from engine_policy import make_policy  # noqa: E402

from jaxmodpo.bench.parity import CASES, VOCABULARY, reference_model  # noqa: E402
from jaxmodpo.models.adapters import save_adapter  # noqa: E402
from jaxmodpo.models.cached_attention import Cache  # noqa: E402
from jaxmodpo.models.decoder import Decoder, load_decoder, parameter_table  # noqa: E402
from jaxmodpo.models.lora import LoraConfig, adapter_table  # noqa: E402
from jaxmodpo.models.model_folder import save_model  # noqa: E402
from jaxmodpo.models.parameters import initialize  # noqa: E402
from jaxmodpo.models.quantized import BaseDtype, dequantize  # noqa: E402
from jaxmodpo.policy.loaded import load_policy  # noqa: E402
from jaxmodpo.sampling.draw import SamplingSettings  # noqa: E402
from jaxmodpo.sampling.engine import sample  # noqa: E402

DECODERS = [name for name, case in CASES.items() if case.kind != "roberta"]
ENDS = (2, 7)
NEW_TOKENS = 40


def prompts() -> list[list[int]]:
    random = np.random.default_rng(5)
    return [random.integers(8, VOCABULARY, length).tolist() for length in (3, 12, 1, 20)]


def generated(model, penalty: float = 1.0) -> list[list[int]]:
    """Return the greedy replies of transformers, one prompt at a time and so without padding."""
    replies = []
    for prompt in prompts():
        with torch.inference_mode():
            out = model.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                do_sample=False,
                max_new_tokens=NEW_TOKENS,
                eos_token_id=list(ENDS),
                pad_token_id=0,
                repetition_penalty=penalty,
            )
        replies.append(out[0, len(prompt) :].tolist())
    return replies


def greedy(folder: Path, adapter: Path | None = None, penalty: float = 1.0) -> list[list[int]]:
    policy = load_policy(folder, base_dtype="float32", adapter=adapter, for_sampling=True)
    settings = SamplingSettings(0.0, 1.0, NEW_TOKENS, ENDS, repetition_penalty=penalty)
    keys = jax.random.split(jax.random.key(0), 4)
    return sample(policy, prompts(), keys, settings, rows=3)


@pytest.mark.slow(seconds=4)
@pytest.mark.parametrize("name", DECODERS)
def test_greedy_replies_equal_generates_token_by_token(tmp_path: Path, name: str):
    model = reference_model(CASES[name], seed=1)
    model.save_pretrained(tmp_path)
    replies = greedy(tmp_path)
    assert replies == generated(model)
    assert len({str(reply) for reply in replies}) > 1


@pytest.mark.slow(seconds=4)
def test_greedy_replies_under_a_repetition_penalty_equal_generates(tmp_path: Path):
    model = reference_model(CASES["Llama: plain rotary"], seed=1)
    model.save_pretrained(tmp_path)
    replies = greedy(tmp_path, penalty=1.3)
    assert replies == generated(model, penalty=1.3)
    assert replies != greedy(tmp_path)


@pytest.mark.slow(seconds=5)
def test_greedy_replies_of_an_adapter_equal_generates_with_peft(tmp_path: Path):
    peft = pytest.importorskip("peft")
    model = reference_model(CASES["Mistral v0.1: window of 8"], seed=1)
    model.save_pretrained(tmp_path / "base")
    config = load_decoder(tmp_path / "base", "float32").config
    lora = LoraConfig(rank=3, alpha=6.0, dropout=0.0)
    table = adapter_table(parameter_table(config), lora)
    arrays = {
        name: array + 0.1 * jax.random.normal(jax.random.key(3), array.shape)
        for name, array in initialize(table, jax.random.key(2)).items()
    }
    save_adapter(tmp_path / "adapter", arrays, lora, config, str(tmp_path / "base"))
    replies = greedy(tmp_path / "base", tmp_path / "adapter")
    without = generated(model)
    assert replies == generated(peft.PeftModel.from_pretrained(model, tmp_path / "adapter").eval())
    assert replies != without


@pytest.mark.slow(seconds=15)
@pytest.mark.parametrize(
    ("name", "base_dtype"),
    [
        ("Mistral v0.1: window of 8", "int8"),
        ("Mistral v0.1: window of 8", "nf4"),
        ("Llama 3.2: scaled rotary, tied, head_dim 32", "nf4"),
    ],
)
def test_greedy_replies_of_a_quantized_base_equal_generates_with_the_same_weights(
    tmp_path: Path, name: str, base_dtype: BaseDtype
):
    # Blocks of 64 inputs must divide every projection.
    wider = {"hidden_size": 64, "intermediate_size": 128}
    case = CASES[name]
    model = reference_model(case._replace(settings=case.settings | wider), seed=1)
    model.save_pretrained(tmp_path / "base")
    policy = load_policy(tmp_path / "base", base_dtype=base_dtype, for_sampling=True)
    # Quantized weights come with bfloat16 for the rest, in which no two programs agree on a token.
    base = {
        name: array.astype(jnp.float32) if array.dtype == jnp.bfloat16 else array
        for name, array in policy.base.items()
    }
    replies = sample(
        dataclasses.replace(policy, base=base),
        prompts(),
        jax.random.split(jax.random.key(0), 4),
        SamplingSettings(0.0, 1.0, NEW_TOKENS, ENDS),
        rows=3,
    )

    save_model(
        tmp_path / "dequantized",
        json.loads((tmp_path / "base" / "config.json").read_text()),
        parameter_table(policy.config),
        dequantized(base),
    )
    same_weights = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "dequantized", dtype=torch.float32
    ).eval()
    assert replies == generated(same_weights)
    # Or nothing would tell these weights from those before they were quantized.
    assert replies != generated(model)


def dequantized(base: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Return a quantized base as plain float32 matrices, layer by layer."""
    plain: dict[str, jax.Array] = {}
    for name, array in base.items():
        projection, _, part = name.rpartition(".")
        if part == "codes":
            arrays = {
                key.removeprefix(f"{projection}."): value
                for key, value in base.items()
                if key.startswith(f"{projection}.")
            }
            layers = [
                dequantize({key: value[layer] for key, value in arrays.items()}, jnp.float32)
                for layer in range(len(array))
            ]
            plain[projection] = jnp.stack(layers)
        elif part not in ("scales", "scale_blocks", "scale_offset"):
            plain[name] = array
    return plain


@pytest.mark.slow(seconds=4)
@pytest.mark.parametrize("base_dtype", ["float32", "int8", "nf4"])
@pytest.mark.parametrize("window", [None, 24])
def test_the_logits_of_each_step_equal_a_full_pass(tmp_path: Path, base_dtype, window):
    settings = CASES["Mistral v0.2: no window, θ 1e6"]
    wider = {"hidden_size": 64, "intermediate_size": 128, "sliding_window": window}
    model = reference_model(settings._replace(settings=settings.settings | wider), seed=1)
    model.save_pretrained(tmp_path)
    decoder = load_decoder(tmp_path, base_dtype)
    # Quantized weights come with bfloat16 for the rest, in which no two ways agree to 1e-4.
    base = {
        name: array[...].astype(jnp.float32) if array.dtype == jnp.bfloat16 else array[...]
        for name, array in decoder.base.items()
    }
    decoder = Decoder(decoder.config, base)
    random = np.random.default_rng(2)
    tokens = jnp.asarray(random.integers(3, VOCABULARY, (2, 100)))
    full = decoder.logits(decoder.hidden_states(tokens))

    cache: Cache = decoder.empty_cache(2, 128)
    chunk, cache = decoder.extend(tokens[:, :64], jnp.arange(64)[None].repeat(2, 0), cache)
    steps = [decoder.logits(chunk)]
    extend = jax.jit(decoder.extend)
    for position in range(64, 100):
        hidden, cache = extend(tokens[:, position, None], jnp.full((2, 1), position), cache)
        steps.append(decoder.logits(hidden))
    difference = jnp.abs(jnp.concatenate(steps, axis=1) - full).max()
    assert difference < 1e-4 * float(jnp.abs(full).max())


@pytest.mark.slow(seconds=6)
def test_draws_through_the_whole_sampler_have_the_exact_frequencies():
    policy = make_policy()
    prompt = [5, 9, 30, 41, 7]
    count = 6000
    settings = SamplingSettings(0.8, 0.95, 2, end_tokens=(2,))
    keys = jax.random.split(jax.random.key(11), count)
    replies = sample(policy, [prompt] * count, keys, settings, rows=256)

    model = Decoder(policy.config, policy.base)

    def distribution(tokens: list[int]) -> np.ndarray:
        logits = model.logits(model.hidden_states(jnp.asarray([tokens])))[:, -1]
        probabilities = np.asarray(jax.nn.softmax(logits[0] / 0.8)).astype(np.float64)
        order = np.argsort(-probabilities)
        before = np.cumsum(probabilities[order]) - probabilities[order]
        return np.where(before[np.argsort(order)] < 0.95, probabilities, 0)

    first = distribution(prompt)
    check(first, [reply[0] for reply in replies])
    # The second token too, after the commonest first one: drawn from a slot's cache.
    commonest = int(np.argmax(first))
    seconds = [reply[1] for reply in replies if reply[0] == commonest and len(reply) > 1]
    assert len(seconds) > 500
    check(distribution([*prompt, commonest]), seconds)


def check(probabilities: np.ndarray, draws: list[int]) -> None:
    """Compare draws with probabilities by a chi-square test; rare tokens count together."""
    counts = np.bincount(draws, minlength=len(probabilities))
    assert (counts[probabilities == 0] == 0).all()
    expected = probabilities / probabilities.sum() * len(draws)
    common = expected >= 5
    observed = np.append(counts[common], counts[~common].sum())
    wanted = np.append(expected[common], expected[~common].sum())
    if wanted[-1] < 5:
        observed = np.append(observed[:-2], observed[-2:].sum())
        wanted = np.append(wanted[:-2], wanted[-2:].sum())
    assert stats.chisquare(observed, wanted).pvalue > 1e-3
