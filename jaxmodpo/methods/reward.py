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
from jaxmodpo.data.batches import Batches, scored
from jaxmodpo.data.examples import Examples, reward_pairs
from jaxmodpo.data.pairs import held_out, load_pairs
from jaxmodpo.data.text import RewardText, load_tokenizer
from jaxmodpo.errors import UserError
from jaxmodpo.losses import bradley_terry_loss
from jaxmodpo.models.files import read_model_config
from jaxmodpo.models.remat import Remat
from jaxmodpo.models.roberta import Roberta, RobertaConfig, load_roberta, parameter_table, save_roberta
from jaxmodpo.training.cache import cached, examples_digest
from jaxmodpo.training.distributed import leads, on_host, open_phase
from jaxmodpo.training.mesh import make_mesh, put, shardings, spread
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
    remat: Remat = "full"
    """what the backward pass computes again: whole layers, all but matrix products (dots are kept), or nothing"""


@dataclass(frozen=True)
class RewardLoss:
    """Bradley–Terry loss of a RoBERTa reward model: the callable that the training step compiles."""

    config: RobertaConfig
    remat: Remat = "none"

    def __call__(self, trainable: Parameters, frozen: Parameters, batch: Batch, dropout_key: Array | None) -> LossTerms:
        rewards = _rewards(self.config, trainable, batch, dropout_key, self.remat)
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


def _rewards(
    config: RobertaConfig, parameters: Parameters, batch: Batch, dropout_key: Array | None, remat: Remat = "none"
) -> Array:
    """Return ``[rows, S]`` rewards of ``[rows, S, T]`` tokens."""
    rows, sequences, time = batch["tokens"].shape
    model = Roberta(config, parameters)
    flat = model.rewards(batch["tokens"].reshape(-1, time), batch["lengths"].reshape(-1), dropout_key, remat)
    return flat.reshape(rows, sequences)


_score = functools.partial(jax.jit, static_argnames=("config",))(
    lambda parameters, batch, *, config: _rewards(config, parameters, batch, None)
)


def score(config: RobertaConfig, parameters: Parameters, examples: Examples, rows: int) -> np.ndarray:
    """Return the reward of every sequence, ``[n, S]`` float32, without dropout."""

    def compute(batch: dict[str, np.ndarray]) -> np.ndarray:
        arrays = {name: batch[name][0] for name in ("tokens", "lengths")}
        return np.asarray(_score(parameters, arrays, config=config))[None]

    return scored(Batches(examples, batch_size=rows), compute)


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


def reward(config: RewardConfig) -> Phase:
    """Run ``reward``."""
    config.check()
    phase = open_phase("reward", config, {"model": config.model, "pairs": config.pairs})
    if phase.finished:
        return phase
    pairs = load_pairs(config.pairs)
    held = held_out([pair.question_id for pair in pairs], config.validation_fraction, config.seed)
    if held.all():
        raise UserError(f"{config.pairs} leaves no pair to train on; lower --validation-fraction")
    model = load_roberta(config.model, fresh_head_seed=config.seed)
    text = RewardText(load_tokenizer(config.model), min(config.max_length, model.config.max_length))
    mesh = make_mesh(config.mesh)
    places = shardings(mesh)(parameter_table(model.config))
    parameters = {name: put(variable[...], places[name]) for name, variable in model.parameters.items()}
    examples = reward_pairs(pairs, text)
    parts = spread(mesh)
    batches = Batches(
        examples.subset(~held),
        batch_size=config.batch_size,
        accumulation=config.gradient_accumulation,
        epochs=config.epochs,
        seed=config.seed,
        spread=parts,
    )
    validation = Batches(examples.subset(held), batch_size=config.batch_size, spread=parts) if held.any() else None
    trained = train(RewardLoss(model.config, config.remat), parameters, {}, batches, config, mesh, validation)
    whole = on_host(trained.parameters)
    if leads():
        settings = read_model_config(config.model) | {"reward_max_length": text.max_length}
        save_roberta(config.output_dir / "model", Roberta(model.config, whole), settings, tokenizer_from=config.model)
    discard_checkpoints(config)
    results = trained.report
    if held.any():
        results["held_out_accuracy"] = results["held_out_rewards/accuracies"]
        logger.info("held-out accuracy %.3f on %d pairs", results["held_out_accuracy"], held.sum())
    phase.finish(pairs=int((~held).sum()), held_out_pairs=int(held.sum()), **results, **text.cut.as_dict())
    return phase
