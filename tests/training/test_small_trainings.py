"""The step, the trainer, resume, the reference and the mesh, on models of a few thousand
parameters.
"""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from tiny_models import WORDS, tiny_mistral

from jaxmodpo.data import examples as examples_module
from jaxmodpo.data import row_lengths
from jaxmodpo.data.batches import Batches
from jaxmodpo.data.examples import Examples
from jaxmodpo.data.replies import policy_pairs
from jaxmodpo.data.text import PolicyText, load_tokenizer
from jaxmodpo.errors import UserError
from jaxmodpo.methods.align import with_reference
from jaxmodpo.methods.dpo import DPO, DPOConfig, dpo
from jaxmodpo.models import decoder
from jaxmodpo.models.lora import LoraConfig
from jaxmodpo.policy.loaded import load_policy
from jaxmodpo.policy.mesh import make_mesh
from jaxmodpo.records import Candidate, Pair, write_pairs
from jaxmodpo.training.policy_loss import PolicyLoss
from jaxmodpo.training.problem import Problem
from jaxmodpo.training.settings import LoopSettings
from jaxmodpo.training.step import (
    LossTerms,
    OptimizerSettings,
    initial_state,
    places_of,
    train_step,
)
from jaxmodpo.training.trainer import train


def some_pairs(count: int = 13) -> list[Pair]:
    generator = np.random.default_rng(0)

    def text(length: int) -> str:
        return " ".join(generator.choice(WORDS, length))

    return [
        Pair(
            f"q{n}",
            text(3),
            Candidate(f"c{n}", text(2 + n % 5) + " a"),
            Candidate(f"r{n}", text(3) + " b"),
        )
        for n in range(count)
    ]


def dpo_config(model: Path, pairs: Path, out: Path, **changes) -> DPOConfig:
    settings: dict = {
        "model": model,
        "pairs": pairs,
        "output_dir": out,
        "base_dtype": "float32",
        "lora_rank": 3,
        "lora_alpha": 6.0,
        "learning_rate": 1e-2,
        "batch_size": 2,
        "gradient_accumulation": 2,
        "epochs": 3,
        "save_every": 2,
        "validation_fraction": 0.0,
        "log_every": 1,
        "cache_dir": out.parent / "cache",
    }
    return DPOConfig(**(settings | changes))


@pytest.fixture
def world(tmp_path: Path) -> tuple[Path, Path]:
    write_pairs(tmp_path / "pairs.json", some_pairs())
    return tiny_mistral(tmp_path / "model", num_hidden_layers=1), tmp_path / "pairs.json"


@jax.tree_util.register_static
class Quadratic:
    """Mean of (w·x − y)² with per-row weights: a loss whose AdamW path optax gives
    independently.
    """

    def __call__(self, trainable, frozen, batch, dropout_key) -> LossTerms:
        errors = (batch["x"] @ trainable["w"] - batch["y"]) ** 2
        total = jnp.sum(batch["row_weights"])
        return LossTerms(jnp.sum(errors * batch["row_weights"]), total, {}, total)


@pytest.mark.slow(seconds=2)
def test_a_step_is_optax_adamw_on_the_exact_mean_whatever_the_microbatches():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(12, 5)).astype("f"), generator.normal(size=12).astype("f")
    weights = np.array([1] * 7 + [0] * 5, "f")  # unequal microbatches: 4, 3, 0 rows that count
    data = {"x": x, "y": y, "row_weights": weights}
    loss, settings = Quadratic(), OptimizerSettings(weight_decay=0.1, max_grad_norm=0.5)
    reference = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(0.05, weight_decay=0.1))
    expected = {"w": jnp.zeros(5)}
    moments = reference.init(expected)

    def mean_loss(p):
        return jnp.mean((x[:7] @ p["w"] - y[:7]) ** 2)

    everywhere = NamedSharding(make_mesh(), PartitionSpec())
    states = {
        m: initial_state(settings, {"w": jax.device_put(jnp.zeros(5), everywhere)}) for m in (1, 3)
    }
    for step in range(5):
        updates, moments = reference.update(jax.grad(mean_loss)(expected), moments, expected)
        for microbatches, state in states.items():
            states[microbatches], metrics = train_step(
                state,
                {},
                {
                    n: jnp.asarray(a.reshape(microbatches, -1, *a.shape[1:]))
                    for n, a in data.items()
                },
                jax.random.key(0),
                jnp.int32(step),
                jnp.float32(0.05),
                loss=loss,
                optimizer=settings,
                places=places_of(state),
            )
            np.testing.assert_allclose(
                float(metrics["loss"]), float(mean_loss(expected)), rtol=1e-5
            )
        expected = {"w": expected["w"] + jnp.asarray(jax.tree.leaves(updates)[0])}
        for state in states.values():
            np.testing.assert_allclose(
                state.trainable["w"], np.asarray(expected["w"]), rtol=1e-5, atol=1e-7
            )


@pytest.mark.slow(seconds=2)
@pytest.mark.parametrize("batching", ["packed", "padded"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_before_the_first_update_policy_equals_reference_to_the_bit_and_the_loss_is_ln_2(
    world, tmp_path, dtype, batching
):
    model, pairs = world
    config = dpo_config(model, pairs, tmp_path / "run", base_dtype=dtype, batching=batching)
    policy = load_policy(model, base_dtype=dtype, fresh=config.lora)
    examples = with_reference(
        policy,
        policy_pairs([some_pairs()], PolicyText(load_tokenizer(model))).by_question().examples,
        config,
    )
    scored = policy.logps(examples, 2, batching=batching)
    np.testing.assert_array_equal(scored, examples.fields["reference_logps"])
    assert np.isfinite(scored).all() and (scored < 0).all()
    batches = Batches(examples, batch_size=2, batching=batching)
    microbatch = {n: jnp.asarray(a[0]) for n, a in batches.at(0).items()}
    loss = PolicyLoss(policy.config, policy.lora, DPO(0.1, 0.0), policy.attention, "none")
    terms = loss(policy.adapter, policy.base, microbatch, None)
    # The scoring is compiled and this is not, so the last bits of a log-probability may differ.
    assert float(terms.total / terms.denominator) == pytest.approx(
        np.log(2), abs=1e-6 if dtype == "float32" else 2e-3
    )


@pytest.mark.slow(seconds=2)
def test_completion_log_probabilities_count_the_completion_and_its_eos_and_nothing_else(world):
    model, _ = world
    text = PolicyText(load_tokenizer(model))
    policy = load_policy(model, base_dtype="float32")
    pairs = some_pairs(3)
    examples = policy_pairs([pairs], text).by_question().examples
    scored = policy.logps(examples, 2)
    padded = policy.logps(examples, 2, batching="padded")
    np.testing.assert_allclose(scored, padded, atol=1e-5)
    for pair, (chosen_reward, _) in zip(pairs, scored, strict=True):
        tokens, prompt = text.example(pair.question_text, pair.chosen.response_text)
        assert tokens[0] == text.tokenizer.bos_token_id and tokens[-1] == text.eos
        assert sum(token == text.tokenizer.bos_token_id for token in tokens) == 1
        bare = decoder.Decoder(policy.config, policy.base)
        logits = bare.logits(bare.hidden_states(jnp.asarray([tokens])))[0]
        logps = jax.nn.log_softmax(logits)
        expected = sum(
            float(logps[position - 1, tokens[position]]) for position in range(prompt, len(tokens))
        )
        assert float(chosen_reward) == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow(seconds=5)
def test_training_lowers_the_loss_and_logs_trls_metric_names(world, tmp_path):
    model, pairs = world
    phase = dpo(dpo_config(model, pairs, tmp_path / "run", epochs=12))
    rows = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert rows[0]["loss"] == pytest.approx(np.log(2), abs=1e-5) and rows[-1]["loss"] < 0.6
    names = {
        "loss",
        "rewards/chosen",
        "rewards/rejected",
        "rewards/accuracies",
        "rewards/margins",
        "logps/chosen",
    }
    names |= {
        "logps/rejected",
        "grad_norm",
        "learning_rate",
        "step",
        "epoch",
        "skipped",
        "skipped_in_row",
    }
    names |= {"tokens_per_second", "examples_per_second", "comparisons_per_second"}
    assert names == set(rows[-1])
    assert phase.results["examples"] == phase.results["comparisons"] == 13
    startup = dict(phase.results["startup_seconds"])
    total = startup.pop("total")
    startup_parts = {"data", "model", "reference", "batches", "initial state", "first update"}
    assert startup.keys() == startup_parts | {"compiling", "other"}
    assert sum(startup.values()) == pytest.approx(total, abs=0.01)
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.slow(seconds=5)
def test_a_finished_run_is_not_run_again_and_other_settings_are_refused(world, tmp_path):
    model, pairs = world
    config = dpo_config(model, pairs, tmp_path / "run", epochs=1)
    dpo(config)
    before = (tmp_path / "run" / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns
    assert dpo(config).finished
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"beta was 0.1, is 0.2"):
        dpo(dpo_config(model, pairs, tmp_path / "run", epochs=1, beta=0.2))


@pytest.mark.slow(seconds=10)
def test_rows_of_several_lengths_train_as_rows_of_one(world, tmp_path, monkeypatch):
    model, pairs = world
    losses: list[list[float]] = []
    lengths: list[list[int]] = []
    # As if compiling a further length took no time, and then as if it took for ever.
    for name, updates in (("several", 0), ("one", 10**9)):
        monkeypatch.setattr(row_lengths, "MICROBATCHES_OF_COMPILING", updates)
        # So slowly that rounding, which another layout changes, is not made larger by learning.
        changes = {"gradient_accumulation": 1, "save_every": 100, "learning_rate": 1e-3}
        config = dpo_config(model, pairs, tmp_path / name, **changes)
        lengths.append(dpo(config).results["row_lengths"])
        rows = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(row)["loss"] for row in rows])
    assert len(lengths[0]) > len(lengths[1]) == 1
    assert min(losses[0]) < 0.65
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-5)


def test_the_reference_is_computed_once_per_model_and_data(world, tmp_path, monkeypatch):
    model, pairs = world
    config = dpo_config(model, pairs, tmp_path / "run")
    policy = load_policy(model, base_dtype="float32", fresh=config.lora)
    text = PolicyText(load_tokenizer(model))
    examples = policy_pairs([some_pairs()], text).by_question().examples
    first = with_reference(policy, examples, config).fields["reference_logps"]
    monkeypatch.setattr(type(policy), "logps", lambda *_, **__: pytest.fail("computed again"))
    np.testing.assert_array_equal(
        with_reference(policy, examples, config).fields["reference_logps"], first
    )
    fewer = policy_pairs([some_pairs(12)], text).by_question().examples
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        with_reference(policy, fewer, config)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"learning_rate": 0.0}, "--learning-rate must be above 0"),
        ({"batch_size": 0}, "--batch-size must be at least 1"),
        ({"warmup_ratio": 1.0}, "--warmup-ratio"),
        ({"validation_fraction": 1.0}, "--validation-fraction must be at least 0 and below 1"),
        ({"validation_fraction": 0.99}, "13 examples leave none to train on"),
        ({"lora_rank": 0}, "rank"),
        ({"lora_targets": ("q_proj", "nose")}, "nose"),
        ({"mesh": (1, 3, 1)}, "needs 3 devices"),
        ({"max_prompt_length": 1024}, "must be below --max-length"),
    ],
)
def test_settings_that_cannot_train_are_refused_in_one_sentence(world, tmp_path, changes, said):
    model, pairs = world
    with pytest.raises(UserError, match=said):
        dpo(dpo_config(model, pairs, tmp_path / "run", **changes))


def test_training_that_breaks_down_says_so(tmp_path):
    @jax.tree_util.register_static
    class Broken(Quadratic):
        def __call__(self, trainable, frozen, batch, dropout_key):
            terms = super().__call__(
                trainable, frozen, {**batch, "x": batch["tokens"].astype(float)}, None
            )
            return terms._replace(total=terms.total * jnp.nan)

    data = Examples(
        np.ones((4, 1, 8), np.int32),
        np.zeros((4, 1), np.int32),
        np.ones((4, 1), np.int32),
        {"y": np.ones(4, "f")},
    )
    config = LoopSettings(output_dir=tmp_path, log_every=1, max_skipped=2)
    batches = Batches(data, batch_size=2)
    with pytest.raises(
        UserError, match="broke down: the last 2 updates up to 2 had a loss or gradient"
    ):
        train(Problem(Broken(), {"w": jnp.zeros(8)}, {}, make_mesh()), batches, config)


def test_lengths_are_rounded_so_that_similar_data_share_a_compiled_step():
    examples = examples_module.completions([[1, 2]], [[3, 4, 5]])
    assert examples.tokens.shape == (1, 1, examples_module.LENGTH_MULTIPLE)
    assert examples.prompt_lengths.tolist() == [[2]] and examples.lengths.tolist() == [[5]]
    assert LoraConfig().scale == 2.0
