"""How a policy is trained: model and adapter, token log-probabilities, the cached reference.

The methods differ only in what they do with log-probabilities; everything up to there is here.
The reference is the same base with an adapter of zeros, through the same compiled function and
shapes: a fresh adapter gives the very same bits.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from jaxmodpo.artifacts import Phase, fingerprint
from jaxmodpo.data import examples as examples_module
from jaxmodpo.data.examples import Examples
from jaxmodpo.data.text import PolicyText, PromptStyle, load_tokenizer
from jaxmodpo.errors import UserError
from jaxmodpo.models.adapters import load_adapter, save_adapter
from jaxmodpo.models.attention import Attention, Backend
from jaxmodpo.models.decoder import Decoder, DecoderConfig, parameter_table
from jaxmodpo.models.files import load_decoder
from jaxmodpo.models.lora import PROJECTIONS, LoraConfig, adapter_table
from jaxmodpo.models.parameters import initialise
from jaxmodpo.models.quantised import BaseDtype
from jaxmodpo.training.cache import cached, examples_digest
from jaxmodpo.training.mesh import batch_sharding, make_mesh, shardings
from jaxmodpo.training.step import Batch, LossTerms, Parameters
from jaxmodpo.training.trainer import TrainingConfig, discard_checkpoints, train

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PolicyTrainingConfig(TrainingConfig):
    """What every ``align`` command can be told."""

    model: Path
    """the base model's Hugging Face folder"""
    base_dtype: BaseDtype = "bfloat16"
    """of the frozen base weights; int8 and nf4 quantise the projections block by block"""
    lora_rank: int = 64
    """r"""
    lora_alpha: float = 128.0
    """the adapter's scale is alpha / r"""
    lora_dropout: float = 0.05
    """on the adapter's input"""
    lora_targets: tuple[str, ...] = PROJECTIONS
    """projections that get an adapter"""
    lora_rslora: bool = False
    """rank-stabilised: the scale is alpha / √r"""
    prompt_style: PromptStyle = "instruct"
    """instruct: the paper's prompt; chat: the tokenizer's template on the bare question"""
    max_prompt_length: int = 512
    """tokens; a longer prompt loses its start"""
    max_length: int = 1024
    """tokens of prompt and response; a longer response loses its end"""
    attention: Backend = "auto"
    """auto: splash on TPUs and cuDNN on GPUs where they can, XLA otherwise"""
    remat: bool = True
    """recompute activations in the backward pass: slower, far less memory"""
    cache_dir: Path | None = None
    """where reference log-probabilities and margins are kept; default $JAXMODPO_CACHE or ~/.cache/jaxmodpo"""

    @property
    def lora(self) -> LoraConfig:
        return LoraConfig(self.lora_rank, self.lora_alpha, self.lora_dropout, self.lora_targets, self.lora_rslora)


@dataclass(frozen=True, kw_only=True)
class PreferenceTrainingConfig(PolicyTrainingConfig):
    """What every method that learns from preferences can be told besides."""

    beta: float = 0.1
    """strength of the pull towards the reference"""
    sft_weight: float = 0.0
    """adds this times the chosen responses' negative log-likelihood per token"""

    def check(self) -> None:
        super().check()
        if not self.beta > 0 or not self.sft_weight >= 0:
            raise UserError(f"--beta must be positive and --sft-weight at least 0; got {self.beta}, {self.sft_weight}")


class Method(Protocol):
    """What a method does with log-probabilities; hashable."""

    def __call__(self, token_logps: Array, completion_mask: Array, batch: Batch) -> LossTerms:
        """Return the loss of ``[rows, S, T]`` log-probabilities, of which the mask marks completions."""
        ...

    def __hash__(self) -> int: ...


@dataclass(frozen=True)
class PolicyLoss:
    """A method applied to a policy: the callable that the training step compiles."""

    config: DecoderConfig
    lora: LoraConfig
    method: Method
    attention: Attention
    remat: bool

    def __call__(self, trainable: Parameters, frozen: Parameters, batch: Batch, dropout_key: Array | None) -> LossTerms:
        model = Decoder(self.config, frozen, self.lora, trainable, self.attention)
        logps, mask = token_logps(model, batch, dropout_key, remat=self.remat)
        return self.method(logps, mask, batch)


def token_logps(
    model: Decoder, batch: Batch, dropout_key: Array | None, *, remat: bool, chunk: int | None = 128
) -> tuple[Array, Array]:
    """Return log-probabilities and the completion mask, each ``[rows, S, T]`` float32."""
    tokens = batch["tokens"]
    rows, sequences, time = tokens.shape
    logps = model.token_logps(tokens.reshape(rows * sequences, time), dropout_key, remat=remat, chunk=chunk)
    places = jnp.arange(time)
    mask = (places >= batch["prompt_lengths"][..., None]) & (places < batch["lengths"][..., None])
    return logps.reshape(rows, sequences, time), mask.astype(jnp.float32)


def completion_logps(token_logps: Array, completion_mask: Array) -> Array:
    """Sum token log-probabilities over each completion: ``[rows, S, T]`` to ``[rows, S]``."""
    return jnp.sum(jnp.where(completion_mask > 0, token_logps, 0.0), axis=-1)


@functools.partial(jax.jit, static_argnames=("config", "lora", "attention"))
def sequence_logps(
    base: Parameters,
    adapter: Parameters,
    batch: Batch,
    *,
    config: DecoderConfig,
    lora: LoraConfig,
    attention: Attention,
) -> Array:
    """Return each completion's log-probability, ``[rows, S]`` float32, without dropout."""
    model = Decoder(config, base, lora, adapter, attention)
    return completion_logps(*token_logps(model, batch, None, remat=False))


@dataclass(frozen=True)
class Policy:
    """A loaded base model with one adapter, both placed on a mesh."""

    folder: Path
    config: DecoderConfig
    base: Parameters
    lora: LoraConfig
    adapter: Parameters
    mesh: Mesh
    attention: Attention

    @property
    def zero_adapter(self) -> Parameters:
        """The adapter that makes the policy its own reference."""
        return jax.tree.map(jnp.zeros_like, self.adapter)

    def logps(self, examples: Examples, rows: int, *, reference: bool = False) -> np.ndarray:
        """Score every completion, ``[n, S]`` float32, ``rows`` examples at a time."""
        adapter = self.zero_adapter if reference else self.adapter
        sharding = batch_sharding(self.mesh, rows)
        scored = []
        for batch, real in examples_module.in_order(examples, rows):
            placed = {n: jax.device_put(batch[n], sharding) for n in ("tokens", "prompt_lengths", "lengths")}
            logps = sequence_logps(
                self.base, adapter, placed, config=self.config, lora=self.lora, attention=self.attention
            )
            scored.append(np.asarray(logps)[:real])
        return np.concatenate(scored)


def load_policy(
    model: Path,
    *,
    base_dtype: BaseDtype,
    mesh: tuple[int, int, int] | None = None,
    adapter: Path | None = None,
    fresh: LoraConfig | None = None,
    seed: int = 0,
    attention: Backend = "auto",
) -> Policy:
    """Load a base model with an adapter from a folder, a fresh one, or (neither given) one of rank 1 that is 0.

    Raises:
        UserError: the model or adapter folder is not one, or they do not fit each other or the mesh.
    """
    devices = make_mesh(mesh)
    place = shardings(devices)
    loaded = load_decoder(model, base_dtype, place)
    base = {name: variable[...] for name, variable in loaded.base.items()}
    if adapter is not None:
        lora, parameters = load_adapter(adapter, loaded.config)
    else:
        lora = fresh or LoraConfig(rank=1, alpha=1.0, dropout=0.0)
        parameters = initialise(adapter_table(parameter_table(loaded.config), lora), jax.random.key(seed))
    placed = place(adapter_table(parameter_table(loaded.config), lora))
    parameters = {name: jax.device_put(array, placed[name]) for name, array in parameters.items()}
    return Policy(model, loaded.config, base, lora, parameters, devices, Attention(attention, devices))


def fresh_policy(config: PolicyTrainingConfig) -> Policy:
    """Load what a training command's settings name, with a fresh adapter."""
    return load_policy(
        config.model,
        base_dtype=config.base_dtype,
        mesh=config.mesh,
        fresh=config.lora,
        seed=config.seed,
        attention=config.attention,
    )


def policy_text(config: PolicyTrainingConfig) -> PolicyText:
    """Return the tokenisation that a training command's settings name."""
    return PolicyText(load_tokenizer(config.model), config.prompt_style, config.max_prompt_length, config.max_length)


def with_reference(policy: Policy, examples: Examples, config: PolicyTrainingConfig) -> Examples:
    """Add ``reference_logps`` ``[n, S]``, computed once per model and data set and then kept on disk."""
    depends_on = {
        "model": fingerprint(config.model),
        "base_dtype": config.base_dtype,
        "examples": examples_digest(examples),
        "rows": config.batch_size,
        "mesh": [int(size) for size in policy.mesh.shape.values()],
        "adapter_shape": [policy.lora.rank, list(policy.lora.targets)],
        "attention": config.attention,
    }
    logps = cached(
        "reference-logps",
        depends_on,
        lambda: policy.logps(examples, config.batch_size, reference=True),
        config.cache_dir,
    )
    return examples.with_fields(reference_logps=logps)


def preference_terms(
    losses: Array, policy_logps: Array, reference_logps: Array, row_weights: Array, beta: float
) -> LossTerms:
    """Reduce per-pair losses, with TRL's metrics.

    Args:
        losses: ``[rows]``.
        policy_logps: ``[rows, 2 × objectives]``, chosen and rejected of each objective in turn.
        reference_logps: the same shape.
        row_weights: ``[rows]``, 0 for rows that only fill up the batch.
        beta: of the implicit rewards β (log π − log π_ref).
    """
    assert losses.ndim == 1 and policy_logps.shape == reference_logps.shape
    rewards = jax.lax.stop_gradient(beta * (policy_logps - reference_logps))
    chosen, rejected = rewards[:, 0::2], rewards[:, 1::2]
    rows = {
        "rewards/chosen": chosen.mean(1),
        "rewards/rejected": rejected.mean(1),
        "rewards/accuracies": (chosen > rejected).mean(1, dtype=jnp.float32),
        "rewards/margins": (chosen - rejected).mean(1),
        "logps/chosen": jax.lax.stop_gradient(policy_logps[:, 0::2].mean(1)),
        "logps/rejected": jax.lax.stop_gradient(policy_logps[:, 1::2].mean(1)),
    }
    total = jnp.sum(row_weights)
    return LossTerms(
        total=jnp.sum(losses * row_weights),
        denominator=total,
        metrics={name: jnp.sum(values * row_weights) for name, values in rows.items()},
        rows=total,
    )


def with_sft_term(
    terms: LossTerms,
    token_logps: Array,
    completion_mask: Array,
    row_weights: Array,
    weight: float,
    objectives: Sequence[float] = (1.0,),
) -> LossTerms:
    """Add the chosen completions' negative log-likelihood, so that alignment does not make them less likely.

    A preference loss cares for differences alone and may lower chosen and rejected together, moving
    probability to texts that nobody wrote. Per row the term is
    ``weight × Σ_k objectives_k × mean over tokens of −log π(chosen_k)``.

    Args:
        terms: of the preference loss.
        token_logps: ``[rows, 2 × objectives, T]``.
        completion_mask: the same shape.
        row_weights: ``[rows]``, 0 for rows that only fill up the batch.
        weight: of the term; with 0 nothing is added.
        objectives: each objective's weight.

    References:
        Pang et al., *Iterative Reasoning Preference Optimization*, 2024; TRL's ``rpo_alpha``.
    """
    if weight == 0:
        return terms
    mask = completion_mask[:, 0::2]
    nll = -jnp.sum(jnp.where(mask > 0, token_logps[:, 0::2], 0.0), -1) / jnp.maximum(jnp.sum(mask, -1), 1.0)
    rows = jnp.sum(nll * jnp.asarray(objectives, jnp.float32), axis=1)
    total = jnp.sum(rows * row_weights)
    metrics = {**terms.metrics, "nll_loss": jax.lax.stop_gradient(total)}
    return LossTerms(terms.total + weight * total, terms.denominator, metrics, terms.rows)


def train_policy(
    phase: Phase,
    policy: Policy,
    examples: Examples,
    method: Method,
    config: PolicyTrainingConfig,
    text: PolicyText,
    **results: object,
) -> None:
    """Train the adapter and finish the phase: ``adapter/``, ``metrics.jsonl`` and the manifest's counts."""
    if text.cut.prompts or text.cut.responses:
        logger.warning("texts cut to fit: %s", text.cut.as_dict())
    loss = PolicyLoss(policy.config, policy.lora, method, policy.attention, config.remat)
    adapter = train(loss, policy.adapter, policy.base, examples, config, policy.mesh)
    save_adapter(config.output_dir / "adapter", adapter, policy.lora, policy.config, str(config.model))
    discard_checkpoints(config)
    phase.finish(
        examples=len(examples), sequence_length=int(examples.tokens.shape[-1]), **text.cut.as_dict(), **results
    )


def check_weights(weights: Sequence[float], names: Sequence[str]) -> None:
    """Refuse weights that do not fit their objectives.

    Raises:
        UserError: another count than ``names``, a negative one, or a sum that is not 1.
    """
    if len(weights) != len(names):
        raise UserError(f"--weights needs {len(names)} numbers, for {', '.join(names)}; got {len(weights)}")
    if min(weights) < 0 or abs(sum(weights) - 1) > 1e-6:
        raise UserError(f"--weights must be at least 0 and sum to 1; got {' '.join(map(str, weights))}")
