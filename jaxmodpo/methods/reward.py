"""Reward models: a RoBERTa encoder trained on preference pairs with the Bradley–Terry loss."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmodpo.artifacts import Pair, Phase, fingerprint
from jaxmodpo.data import examples as examples_module
from jaxmodpo.data.examples import Examples, reward_pairs
from jaxmodpo.data.pairs import load_pairs
from jaxmodpo.data.text import RewardText, load_tokenizer
from jaxmodpo.errors import UserError
from jaxmodpo.losses import bradley_terry_loss
from jaxmodpo.models.files import read_model_config
from jaxmodpo.models.roberta import Roberta, RobertaConfig, load_roberta, parameter_table, save_roberta
from jaxmodpo.training.cache import cached, examples_digest
from jaxmodpo.training.mesh import make_mesh, shardings
from jaxmodpo.training.step import Batch, LossTerms, Parameters
from jaxmodpo.training.trainer import TrainingConfig, discard_checkpoints, train

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RewardConfig(TrainingConfig):
    """Train a reward model for one criterion."""

    pairs: Path
    """preference pairs"""
    model: Path
    """a pretrained RoBERTa's Hugging Face folder"""
    learning_rate: float = 2e-5
    """peak, reached after the warm-up; cosine decay to 0 from there"""
    epochs: int = 5
    """passes over the data"""
    weight_decay: float = 0.03
    """decoupled, as in AdamW"""
    max_length: int = 512
    """tokens of question and response; a longer response loses its end"""
    validation_fraction: float = 0.1
    """share of the questions held out; their accuracy goes into the manifest"""


@dataclass(frozen=True)
class RewardLoss:
    """Bradley–Terry loss of a RoBERTa reward model: the callable that the training step compiles."""

    config: RobertaConfig

    def __call__(self, trainable: Parameters, frozen: Parameters, batch: Batch, dropout_key: Array | None) -> LossTerms:
        rewards = _rewards(self.config, trainable, batch, dropout_key)
        weights, chosen, rejected = batch["row_weights"], rewards[:, 0], rewards[:, 1]
        rows = {
            "rewards/chosen": chosen,
            "rewards/rejected": rejected,
            "rewards/accuracies": (chosen > rejected).astype(jnp.float32),
            "rewards/margins": chosen - rejected,
        }
        total = jnp.sum(weights)
        return LossTerms(
            total=jnp.sum(bradley_terry_loss(chosen, rejected) * weights),
            denominator=total,
            metrics={name: jnp.sum(values * weights) for name, values in rows.items()},
            rows=total,
        )


def _rewards(config: RobertaConfig, parameters: Parameters, batch: Batch, dropout_key: Array | None) -> Array:
    """Return ``[rows, S]`` rewards of ``[rows, S, T]`` tokens."""
    rows, sequences, time = batch["tokens"].shape
    model = Roberta(config, parameters)
    flat = model.rewards(batch["tokens"].reshape(-1, time), batch["lengths"].reshape(-1), dropout_key)
    return flat.reshape(rows, sequences)


_score = functools.partial(jax.jit, static_argnames=("config",))(
    lambda parameters, batch, *, config: _rewards(config, parameters, batch, None)
)


def score(config: RobertaConfig, parameters: Parameters, examples: Examples, rows: int) -> np.ndarray:
    """Return the reward of every sequence, ``[n, S]`` float32, without dropout."""
    scored = []
    for batch, real in examples_module.in_order(examples, rows):
        arrays = {name: jnp.asarray(batch[name]) for name in ("tokens", "lengths")}
        scored.append(np.asarray(_score(parameters, arrays, config=config))[:real])
    return np.concatenate(scored)


def rewards_of_pairs(
    folder: Path, pairs: list[Pair], *, batch_size: int, max_length: int | None = None, cache_dir: Path | None = None
) -> np.ndarray:
    """Return ``[pairs, 2]`` rewards, chosen then rejected; computed once per model and data set.

    Args:
        folder: a reward model.
        pairs: what to score.
        batch_size: pairs at a time.
        max_length: tokens; by default what the model was trained with, or can take.
        cache_dir: see ``training.cache``.
    """
    model = load_roberta(folder)
    if model.config.num_labels != 1:
        raise UserError(f"{folder} is not a reward model: it has {model.config.num_labels} outputs")
    tokenizer = load_tokenizer(folder)
    trained = read_model_config(folder).get("reward_max_length", 512)
    text = RewardText(tokenizer, max_length or min(trained, model.config.max_length))
    examples = reward_pairs(pairs, text)
    parameters = {name: variable[...] for name, variable in model.parameters.items()}
    depends_on = {"model": fingerprint(folder), "examples": examples_digest(examples), "rows": batch_size}
    return cached("rewards", depends_on, lambda: score(model.config, parameters, examples, batch_size), cache_dir)


def hold_out(pairs: list[Pair], fraction: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Split pairs by question into training and held-out ones."""
    questions = sorted({pair.question_id for pair in pairs})
    count = round(fraction * len(questions))
    held = set(np.random.default_rng(seed).permutation(questions)[:count].tolist())
    return [p for p in pairs if p.question_id not in held], [p for p in pairs if p.question_id in held]


def reward(config: RewardConfig) -> Phase:
    """Run ``reward``."""
    config.check()
    if not 0 <= config.validation_fraction < 1:
        raise UserError(f"--validation-fraction must lie in [0, 1), not {config.validation_fraction}")
    inputs = {"model": config.model, "pairs": config.pairs}
    phase = Phase.open("reward", config, config.output_dir, inputs)
    if phase.finished:
        return phase
    training, held = hold_out(load_pairs(config.pairs), config.validation_fraction, config.seed)
    if not training:
        raise UserError(f"{config.pairs} leaves no pair to train on; lower --validation-fraction")
    model = load_roberta(config.model, fresh_head_seed=config.seed)
    text = RewardText(load_tokenizer(config.model), min(config.max_length, model.config.max_length))
    mesh = make_mesh(config.mesh)
    places = shardings(mesh)(parameter_table(model.config))
    parameters = {name: jax.device_put(variable[...], places[name]) for name, variable in model.parameters.items()}
    trained = train(RewardLoss(model.config), parameters, {}, reward_pairs(training, text), config, mesh)
    results: dict[str, object] = {"pairs": len(training), "held_out_pairs": len(held), **text.cut.as_dict()}
    if held:
        rewards = score(model.config, trained, reward_pairs(held, text), config.batch_size)
        results["held_out_accuracy"] = round(float((rewards[:, 0] > rewards[:, 1]).mean()), 6)
        logger.info("held-out accuracy %.3f on %d pairs", results["held_out_accuracy"], len(held))
    settings = read_model_config(config.model) | {"reward_max_length": text.max_length}
    save_roberta(config.output_dir / "model", Roberta(model.config, trained), settings, tokenizer_from=config.model)
    discard_checkpoints(config)
    phase.finish(**results)
    return phase
