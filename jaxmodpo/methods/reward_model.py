"""A reward model as others use it: its loss, its rewards, and how a folder of one is loaded.

Rewards of pairs, chosen then rejected::

    rewards = rewards_of_pairs(Path("reward/model"), pairs, batch_size=16)   # [pairs, 2]
    margins = rewards[:, 0] - rewards[:, 1]
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from jaxmodpo.data.batches import SCORED_ARRAYS, Batches, score_in_batches
from jaxmodpo.data.examples import Examples, check_tokens
from jaxmodpo.data.replies import reward_pairs
from jaxmodpo.data.text import SHORTEST_REWARD_TEXT, RewardText, load_tokenizer
from jaxmodpo.errors import UserError
from jaxmodpo.fingerprints import fingerprint
from jaxmodpo.losses import bradley_terry_loss, plackett_luce_loss
from jaxmodpo.models import flops
from jaxmodpo.models.attention import Attention
from jaxmodpo.models.completions import token_sequences
from jaxmodpo.models.model_folder import read_model_config
from jaxmodpo.models.parameters import Parameters
from jaxmodpo.models.remat import Remat
from jaxmodpo.models.roberta import Roberta, load_roberta, parameter_table
from jaxmodpo.models.roberta_config import RobertaConfig
from jaxmodpo.policy.mesh import place_microbatch, put, row_shards, shardings
from jaxmodpo.policy.preemption import stop_if_asked
from jaxmodpo.records import Pair
from jaxmodpo.schema import Fields
from jaxmodpo.training.cache import cached, examples_digest
from jaxmodpo.training.comparisons import compared, comparison_rows
from jaxmodpo.training.step import Batch, LossTerms


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["config"],
    meta_fields=["remat", "has_dropout", "mesh"],
)
@dataclass(frozen=True)
class RewardLoss:
    """The loss of a RoBERTa reward model: Bradley–Terry's, or Plackett–Luce's where the batch has
    ``ranks``.

    Attributes:
        config: the encoder's shape.
        remat: what the backward pass computes again instead of keeping it.
        has_dropout: without, no draws are made.
        mesh: the devices of the surrounding computation; None for one.
    """

    config: RobertaConfig
    remat: Remat = "none"
    has_dropout: bool = True
    mesh: Mesh | None = None

    def __call__(
        self, trainable: Parameters, frozen: Parameters, batch: Batch, dropout_key: Array | None
    ) -> LossTerms:
        key = dropout_key if self.has_dropout else None
        model = Roberta(self.config, trainable, Attention(mesh=self.mesh))
        rewards = compared(_rewards(model, batch, key, self.remat), batch)
        batch = comparison_rows(batch)
        weights = batch["row_weights"]
        chosen_rewards = rewards[:, 0]
        if "ranks" in batch:
            # Rankings are of different lengths: the worst reply stands in the last place that is
            # not empty.
            last = jnp.sum(batch["ranks"] > 0, axis=1) - 1
            rejected_rewards = jnp.take_along_axis(rewards, last[:, None], axis=1)[:, 0]
            losses = plackett_luce_loss(rewards, batch["ranks"])
        else:
            rejected_rewards = rewards[:, 1]
            losses = bradley_terry_loss(chosen_rewards, rejected_rewards)
        row_metrics = {
            "rewards/chosen": chosen_rewards,
            "rewards/rejected": rejected_rewards,
            "rewards/accuracies": (chosen_rewards > rejected_rewards).astype(jnp.float32),
            "rewards/margins": chosen_rewards - rejected_rewards,
        }
        return LossTerms.of_rows(losses, weights, row_metrics)


def _rewards(
    model: Roberta, batch: Batch, dropout_key: Array | None, remat: Remat = "none"
) -> Array:
    """Return the rewards ``[P, S]`` of a batch's examples, packed or padded."""
    # The encoder knows rows and their texts, and no examples.
    if "segments" in batch:
        outputs = model.packed(batch, dropout_key, remat, token_sequences(batch))
        rewards = outputs[..., 0].reshape(-1)
    else:
        rewards = model.rewards(
            batch["tokens"], batch["lengths"], dropout_key, remat, batch.get("sequence_numbers")
        )
    return rewards[batch["places"]]


@functools.partial(jax.jit, static_argnames=("config", "mesh"))
def _score(
    parameters: Parameters, batch: Batch, *, config: RobertaConfig, mesh: Mesh | None
) -> Array:
    """Return ``[P, S]`` rewards without dropout."""
    return _rewards(Roberta(config, parameters, Attention(mesh=mesh)), batch, None)


def score(
    config: RobertaConfig,
    parameters: Parameters,
    examples: Examples,
    rows: int,
    mesh: Mesh | None = None,
) -> np.ndarray:
    """Return the reward of every reply, ``[n, S]`` float32, without dropout. Of several processes
    all score the same, and end together where one of them is asked to.

    Args:
        config: the model's shape.
        parameters: its weights, on the mesh if there is one.
        examples: sequences.
        rows: examples at a time.
        mesh: devices among which rows are shared out; None for one device.
    """
    check_tokens(int(examples.tokens.max()), config.vocab_size)
    batches = Batches(
        examples,
        batch_size=rows,
        batching="packed",
        row_shards=row_shards(mesh) if mesh else 1,
        cost=functools.partial(flops.encoder_token_cost, config),
    )

    def compute(batch: dict[str, np.ndarray]) -> np.ndarray:
        # Which replies are compared would be another argument, and so another compilation.
        arrays = {name: array for name, array in batch.items() if name in SCORED_ARRAYS}
        microbatch: Mapping[str, np.ndarray | Array]
        if mesh:
            microbatch = place_microbatch(mesh, arrays, batches.by_rows)
        else:
            microbatch = {name: array[0] for name, array in arrays.items()}
        rewards = np.asarray(_score(parameters, microbatch, config=config, mesh=mesh))[None]
        stop_if_asked("while rewards were computed")
        return rewards

    return score_in_batches(batches, compute)


def load_reward_model(folder: Path, max_length: int | None = None) -> tuple[Roberta, RewardText]:
    """Load a reward model and the tokenization it was trained with.

    Raises:
        UserError: the folder is no reward model, or has no tokenizer.
    """
    model = load_roberta(folder)
    if model.config.num_labels != 1:
        raise UserError(f"{folder} is not a reward model: it has {model.config.num_labels} outputs")
    fields = Fields(read_model_config(folder), f"{folder}/config.json")
    trained = fields.integer("reward_max_length", 512, least=SHORTEST_REWARD_TEXT)
    if max_length is not None and max_length > model.config.max_length:
        raise UserError(
            f"--max-length {max_length} is more than the {model.config.max_length} tokens that"
            f" {folder} has positions for"
        )
    length = min(trained, model.config.max_length) if max_length is None else max_length
    return model, RewardText(load_tokenizer(folder), length, model.config.vocab_size)


def rewards_of_pairs(
    folder: Path,
    pairs: list[Pair],
    *,
    batch_size: int,
    max_length: int | None = None,
    cache_dir: Path | None = None,
    mesh: Mesh | None = None,
) -> np.ndarray:
    """Return ``[pairs, 2]`` rewards, chosen then rejected; computed once per model and data set.

    Args:
        folder: a reward model.
        pairs: what to score.
        batch_size: questions at a time; each of a question's replies is scored once.
        max_length: tokens; by default what the model was trained with, or can take.
        cache_dir: see ``training.cache``.
        mesh: of this process's devices; None for one of them.
    """
    model, text = load_reward_model(folder, max_length)
    questions = reward_pairs(pairs, text).by_question()
    examples = questions.examples
    text.cut.warn()
    check_tokens(int(examples.tokens.max()), model.config.vocab_size)
    parameters = {name: variable[...] for name, variable in model.parameters.items()}
    if mesh is not None:
        sharding_of = shardings(mesh)(parameter_table(model.config))
        parameters = {name: put(array, sharding_of[name]) for name, array in parameters.items()}
    depends_on = {
        "model": fingerprint(folder),
        "examples": examples_digest(examples),
        "rows": batch_size,
        "batching": "packed",
        "mesh": [int(size) for size in mesh.shape.values()] if mesh else [1, 1, 1],
    }
    rewards = cached(
        "rewards",
        depends_on,
        lambda: score(model.config, parameters, examples, batch_size, mesh),
        cache_dir,
    )
    return questions.of_comparisons(rewards)
