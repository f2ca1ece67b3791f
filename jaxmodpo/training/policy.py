"""How a policy is trained: model and adapter, token log-probabilities, the cached reference.

The methods differ only in what they do with log-probabilities; everything up to there is here.
The reference is the same base with an adapter of zeros, through the same compiled function and
shapes: a fresh adapter gives the very same bits.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from jaxmodpo.config import named_values
from jaxmodpo.data.batches import PADDED_ARRAYS, ROW_ARRAYS, Batches, Batching, describe, scored
from jaxmodpo.data.examples import Examples, check_tokens, leave_out_equal_pairs, policy_chosen, policy_pairs
from jaxmodpo.data.pairs import held_out
from jaxmodpo.data.prompting import record_prompt
from jaxmodpo.data.text import PROMPT, PolicyText, PromptStyle, check_day, tokenizer_digest
from jaxmodpo.errors import UserError
from jaxmodpo.fingerprints import digest, fingerprint
from jaxmodpo.models import flops
from jaxmodpo.models.adapters import load_adapter, save_adapter
from jaxmodpo.models.attention import Attention, Backend
from jaxmodpo.models.axes import constrain
from jaxmodpo.models.decoder import Decoder, DecoderConfig, parameter_table
from jaxmodpo.models.files import load_decoder, read_decoder_config
from jaxmodpo.models.lora import PROJECTIONS, LoraConfig, adapter_table
from jaxmodpo.models.parameters import initialise
from jaxmodpo.models.quantised import BaseDtype
from jaxmodpo.models.remat import Remat
from jaxmodpo.phase import Phase
from jaxmodpo.ranges import Count, Incidental, NotNegative, Positive, ShareBelowOne
from jaxmodpo.records import Pair
from jaxmodpo.schema import Range
from jaxmodpo.training.cache import cached, cached_examples, examples_digest
from jaxmodpo.training.distributed import leads, on_host
from jaxmodpo.training.mesh import check_heads, make_mesh, place_batch, put, shardings, spread
from jaxmodpo.training.preemption import heed
from jaxmodpo.training.step import Batch, LossTerms, Parameters
from jaxmodpo.training.trainer import OnEvaluation, TrainingConfig, passing, train

logger = logging.getLogger(__name__)

SCORED_ARRAYS = (*ROW_ARRAYS, "places", "segment_numbers", *PADDED_ARRAYS)
"""what scoring needs of a batch"""


@dataclass(frozen=True, kw_only=True)
class PolicyTrainingConfig(TrainingConfig):
    """What every ``align`` command can be told."""

    model: Path
    """the base model's Hugging Face folder"""
    base_dtype: BaseDtype = "bfloat16"
    """of the frozen base weights; int8 and nf4 quantise the projections block by block"""
    lora_rank: Count = 64
    """r, the inner dimension of the adapter's matrices"""
    lora_alpha: Positive = 128.0
    """the adapter's scale is alpha / r"""
    lora_dropout: ShareBelowOne = 0.05
    """on the adapter's input"""
    lora_targets: tuple[str, ...] = PROJECTIONS
    """projections that get an adapter"""
    lora_rslora: bool = False
    """rank-stabilised: the scale is alpha / √r"""
    prompt_style: PromptStyle = "instruct"
    """instruct: the paper's prompt; chat: the tokenizer's template on the bare question"""
    prompt_date: str | None = None
    """YYYY-MM-DD, which a chat template takes for today; by default the day on which the run began"""
    max_prompt_length: Annotated[int, Range(least=2)] = 512
    """tokens; in a longer prompt the question loses its start"""
    max_length: Count = 1024
    """tokens of prompt and response; a longer response loses its end"""
    attention: Backend = "auto"
    """auto: splash on TPUs and cuDNN on GPUs where they can, XLA otherwise"""
    remat: Remat = "full"
    """what the backward pass computes again: whole layers, all but matrix products (dots are kept), or nothing"""
    batching: Batching = "packed"
    """packed: sequences end to end in rows, told apart by segments; padded: one a row"""
    reference: Literal["precomputed", "in_step"] = "precomputed"
    """the reference's log-probabilities once and kept on disk, or anew in every step"""
    cache_dir: Incidental[Path | None] = None
    """where reference log-probabilities and margins are kept; default $JAXMODPO_CACHE or ~/.cache/jaxmodpo"""

    def check(self) -> None:
        super().check()
        check_day(self.prompt_date)
        if self.max_prompt_length >= self.max_length:
            raise UserError(
                f"--max-prompt-length must be below --max-length, not {self.max_prompt_length} of {self.max_length}"
            )
        unknown = sorted(set(self.lora_targets) - set(PROJECTIONS))
        if unknown or not self.lora_targets:
            raise UserError(
                f"--lora-targets must be some of {', '.join(PROJECTIONS)}; got {', '.join(unknown) or 'none'}"
            )

    @property
    def lora(self) -> LoraConfig:
        # A whole number would be another type, and another compilation.
        alpha, dropout = float(self.lora_alpha), float(self.lora_dropout)
        return LoraConfig(self.lora_rank, alpha, dropout, self.lora_targets, self.lora_rslora)


@dataclass(frozen=True, kw_only=True)
class PreferenceTrainingConfig(PolicyTrainingConfig):
    """What every method that learns from preferences can be told besides."""

    beta: Positive = 0.1
    """strength of the pull towards the reference"""
    sft_weight: NotNegative = 0.0
    """adds this times the chosen responses' negative log-likelihood per token"""


class Method(Protocol):
    """What a method does with log-probabilities: a pytree, as :class:`jaxmodpo.training.step.Loss` is."""

    def __call__(self, logps: Array, tokens: Array, batch: Batch) -> LossTerms:
        """Return the loss of completions.

        Args:
            logps: ``[P, S]``, each completion's log-probability.
            tokens: ``[P, S]``, how many tokens it has.
            batch: the examples' other arrays, ``[P, …]``.
        """
        ...


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["lora", "method"],
    meta_fields=["config", "attention", "remat", "reference_in_step", "drops"],
)
@dataclass(frozen=True)
class PolicyLoss:
    """A method applied to a policy: the callable that the training step compiles.

    Attributes:
        config: the base model's shape.
        lora: the adapter's settings.
        method: what is done with log-probabilities.
        attention: which implementation, over which devices.
        remat: what the backward pass computes again.
        reference_in_step: compute the reference's log-probabilities here, with the adapter off, instead of
            reading them from the batch.
        drops: whether there is dropout at all; how much, ``lora`` says.
    """

    config: DecoderConfig
    lora: LoraConfig
    method: Method
    attention: Attention
    remat: Remat
    reference_in_step: bool = False
    drops: bool = True

    def __call__(self, trainable: Parameters, frozen: Parameters, batch: Batch, dropout_key: Array | None) -> LossTerms:
        if self.reference_in_step:
            reference, _ = completion_logps(Decoder(self.config, frozen, attention=self.attention), batch, None)
            batch = {**batch, "reference_logps": reference}
        model = Decoder(self.config, frozen, self.lora, trainable, self.attention)
        key = dropout_key if self.drops else None
        return self.method(*completion_logps(model, batch, key, remat=self.remat), batch)


def completion_logps(
    model: Decoder, batch: Batch, dropout_key: Array | None, *, remat: Remat = "none", chunk: int | None = 128
) -> tuple[Array, Array]:
    """Return each completion's log-probability, and how many tokens it has, both ``[P, S]`` float32.

    Args:
        model: the policy.
        batch: one microbatch of :class:`jaxmodpo.data.batches.Batches`, packed or padded.
        dropout_key: draws the adapter's dropout; None switches it off.
        remat: see :meth:`Decoder.hidden_states`.
        chunk: see :meth:`Decoder.token_logps`.
    """
    if "segments" not in batch:
        rows, sequences, time = batch["tokens"].shape
        logps = model.token_logps(
            batch["tokens"].reshape(rows * sequences, time), dropout_key, remat=remat, chunk=chunk
        ).reshape(rows, sequences, time)
        places = jnp.arange(time)
        mask = (places >= batch["prompt_lengths"][..., None]) & (places < batch["lengths"][..., None])
        return jnp.sum(jnp.where(mask, logps, 0.0), axis=-1), jnp.sum(mask, axis=-1, dtype=jnp.float32)
    logps = model.token_logps(
        batch["tokens"],
        dropout_key,
        remat=remat,
        chunk=chunk,
        segments_BT=batch["segments"],
        positions_BT=batch["positions"],
    )
    # A comparison and a sum, not a scatter, whose order of additions GPUs leave to chance.
    mine = batch["completions"][..., None] == batch["segment_numbers"]
    sums = jnp.stack(
        [jnp.sum(jnp.where(mine, logps[..., None], 0.0), axis=1), jnp.sum(mine, axis=1, dtype=jnp.float32)]
    )
    sums = constrain(sums, model.attention.mesh, None, None, None).reshape(2, -1)
    return sums[0][batch["places"]], sums[1][batch["places"]]


@functools.partial(jax.jit, static_argnames=("config", "attention"))
def sequence_logps(
    base: Parameters,
    adapter: Parameters,
    batch: Batch,
    *,
    config: DecoderConfig,
    lora: LoraConfig,
    attention: Attention,
) -> Array:
    """Return each completion's log-probability, ``[P, S]`` float32, without dropout; on every device."""
    logps, _ = completion_logps(Decoder(config, base, lora, adapter, attention), batch, None)
    return constrain(logps, attention.mesh, None, None)


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

    def logps(
        self, examples: Examples, rows: int, *, reference: bool = False, batching: Batching = "packed"
    ) -> np.ndarray:
        """Score every completion, ``[n, S]`` float32, ``rows`` examples at a time."""
        check_tokens(int(examples.tokens.max()), self.config.vocab_size)
        adapter = self.zero_adapter if reference else self.adapter
        settings: dict[str, Any] = {"config": self.config, "lora": self.lora, "attention": self.attention}
        batches = Batches(
            examples,
            batch_size=rows,
            batching=batching,
            spread=spread(self.mesh),
            cost=functools.partial(flops.token_cost, self.config),
        )

        def compute(batch: dict[str, np.ndarray]) -> np.ndarray:
            wanted = {n: a for n, a in batch.items() if n in SCORED_ARRAYS}
            placed = place_batch(self.mesh, wanted, batches.by_rows)
            scored = sequence_logps(self.base, adapter, {n: a[0] for n, a in placed.items()}, **settings)
            values = np.asarray(scored.addressable_data(0))[None]
            heed("while log-probabilities were computed")
            return values

        return scored(batches, compute)


def check_attention(attention: Attention, shape: DecoderConfig, base_dtype: BaseDtype) -> None:
    """Refuse attention that these devices or this model cannot have; see :meth:`Attention.check`."""
    attention.check(shape.head_dim, jnp.float32 if base_dtype == "float32" else jnp.bfloat16)


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
    shape = read_decoder_config(model)
    check_heads(shape, devices)
    # Read first: whether it fits is known before the base is loaded.
    ready = None if adapter is None else load_adapter(adapter, shape, model)
    check_attention(Attention(attention, devices), shape, base_dtype)
    loaded = load_decoder(model, base_dtype, place)
    base = {name: variable[...] for name, variable in loaded.base.items()}
    lora = fresh or LoraConfig(rank=1, alpha=1.0, dropout=0.0)
    bare = Policy(model, loaded.config, base, lora, {}, devices, Attention(attention, devices))
    return fresh_adapter(bare, lora, seed) if ready is None else _place_adapter(bare, *ready)


def fresh_adapter(policy: Policy, lora: LoraConfig, seed: int) -> Policy:
    """Return the same base with a fresh adapter."""
    table = adapter_table(parameter_table(policy.config), lora)
    return _place_adapter(policy, lora, initialise(table, jax.random.key(seed)))


def with_adapter(policy: Policy, folder: Path) -> Policy:
    """Return the same base with the adapter of a PEFT folder."""
    return _place_adapter(policy, *load_adapter(folder, policy.config, policy.folder))


def _place_adapter(policy: Policy, lora: LoraConfig, parameters: Parameters) -> Policy:
    placed = shardings(policy.mesh)(adapter_table(parameter_table(policy.config), lora))
    adapter = {name: put(array, placed[name]) for name, array in parameters.items()}
    return dataclasses.replace(policy, lora=lora, adapter=adapter)


def policy_examples(
    pair_sets: Sequence[Sequence[Pair]], text: PolicyText, config: PolicyTrainingConfig, *, chosen_only: bool = False
) -> Examples:
    """Tokenise aligned pair sets, or the first one's chosen responses; once, and then from the cache."""
    depends_on = {
        "pairs": [digest([dataclasses.asdict(pair) for pair in pairs]) for pairs in pair_sets],
        "tokenizer": tokenizer_digest(text.tokenizer),
        "text": [dataclasses.asdict(text.surroundings), text.max_prompt_length, text.max_length, list(text.end_tokens)],
        "prompt_style": text.prompt_style,
        "control_tokens": text.control_tokens,
        "chosen_only": chosen_only,
    }

    def tokenise() -> Examples:
        return policy_chosen(pair_sets[0], text) if chosen_only else policy_pairs(pair_sets, text)

    examples = cached_examples("tokens", depends_on, text.cut, tokenise, config.cache_dir)
    assert len(examples) == len(pair_sets[0])
    return examples


def with_reference(policy: Policy, examples: Examples, config: PolicyTrainingConfig) -> Examples:
    """Add ``reference_logps`` ``[n, S]``, computed once per model and data set and then kept on disk."""
    if config.reference == "in_step":
        return examples
    depends_on = {
        "model": fingerprint(config.model),
        "base_dtype": config.base_dtype,
        "examples": examples_digest(examples),
        "rows": config.batch_size,
        "batching": config.batching,
        "mesh": [int(size) for size in policy.mesh.shape.values()],
        "adapter_shape": [policy.lora.rank, list(policy.lora.targets)],
        "attention": config.attention,
    }
    logps = cached(
        "reference-logps",
        depends_on,
        lambda: policy.logps(examples, config.batch_size, reference=True, batching=config.batching),
        config.cache_dir,
    )
    return examples.with_fields(reference_logps=logps)


def preference_terms(
    losses: Array,
    policy_logps: Array,
    reference_logps: Array,
    row_weights: Array,
    beta: float,
    weighted_accuracies: Array | None = None,
) -> LossTerms:
    """Reduce per-pair losses, with TRL's metrics.

    Args:
        losses: ``[rows]``.
        policy_logps: ``[rows, 2 × objectives]``, chosen and rejected of each objective in turn.
        reference_logps: the same shape.
        row_weights: ``[rows]``, 0 for rows that only fill up the batch.
        beta: of the implicit rewards β (log π − log π_ref).
        weighted_accuracies: ``[rows]``, of several objectives: the weights' share of those whose preference the
            implicit rewards agree with.
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
    if weighted_accuracies is not None:
        rows["rewards/weighted_accuracies"] = jax.lax.stop_gradient(weighted_accuracies)
    total = jnp.sum(row_weights)
    return LossTerms(
        total=jnp.sum(losses * row_weights),
        denominator=total,
        metrics={name: jnp.sum(values * row_weights) for name, values in rows.items()},
        rows=total,
    )


def with_sft_term(
    terms: LossTerms,
    logps: Array,
    tokens: Array,
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
        logps: ``[rows, 2 × objectives]``, of completions.
        tokens: the same shape, how many tokens each has.
        row_weights: ``[rows]``, 0 for rows that only fill up the batch.
        weight: of the term; with 0 nothing is added.
        objectives: each objective's weight.

    References:
        Pang et al., *Iterative Reasoning Preference Optimization*, 2024; TRL's ``rpo_alpha``.
    """
    if weight == 0:
        return terms
    nll = -logps[:, 0::2] / jnp.maximum(tokens[:, 0::2], 1.0)
    rows = jnp.sum(nll * jnp.asarray(objectives, jnp.float32), axis=1)
    total = jnp.sum(rows * row_weights)
    metrics = {**terms.metrics, "nll_loss": jax.lax.stop_gradient(total)}
    return LossTerms(terms.total + weight * total, terms.denominator, metrics, terms.rows)


def train_policy(
    phase: Phase,
    policy: Policy,
    examples: Examples,
    questions: Sequence[str],
    method: Method,
    config: PolicyTrainingConfig,
    text: PolicyText,
    on_evaluation: OnEvaluation | None = None,
    **results: object,
) -> None:
    """Train the adapter and finish the phase: ``adapter/``, ``metrics.jsonl`` and the manifest's counts.

    Args:
        phase: the run's folder.
        policy: base and fresh adapter.
        examples: with everything that the method's batches need.
        questions: each example's question id; held-out ones share none with the others.
        method: what is done with log-probabilities.
        config: the run's settings.
        text: the tokenisation that made the examples; it counts what was cut.
        on_evaluation: see ``trainer.train``.
        results: further figures for the manifest.
    """
    assert len(examples) == len(questions)
    text.cut.warn()
    check_tokens(int(examples.tokens.max()), policy.config.vocab_size)
    if isinstance(config, PreferenceTrainingConfig):
        examples, equal = leave_out_equal_pairs(examples)
        questions = [question for question, out in zip(questions, equal, strict=True) if not out]
        results["equal_once_cut_left_out"] = int(equal.sum())
    if config.prompt_style == "instruct":
        logger.info(
            "every question is put to the model as the paper does: %r; --prompt-style chat takes the tokenizer's own "
            "template and no therapist",
            PROMPT,
        )
    in_step = config.reference == "in_step" and isinstance(config, PreferenceTrainingConfig)
    drops = policy.lora.dropout > 0
    loss = PolicyLoss(policy.config, policy.lora, method, policy.attention, config.remat, in_step, drops)
    batches, held_batches = _batches(examples, questions, policy, config)
    trained = train(
        loss,
        policy.adapter,
        policy.base,
        batches,
        config,
        policy.mesh,
        held_batches,
        lambda lengths: flops.training(policy.config, policy.lora, lengths, in_step),
        on_evaluation,
    )
    adapter = on_host(trained.parameters)
    if leads():
        save_adapter(config.output_dir / "adapter", adapter, policy.lora, policy.config, str(config.model))
        record_prompt(config.output_dir / "adapter", text)
    phase.finish(
        work=passing(config),
        examples=len(batches.examples),
        held_out_examples=len(held_batches.examples) if held_batches else 0,
        sequence_length=int(examples.tokens.shape[-1]),
        **describe(batches),
        **trained.report,
        **text.cut.as_dict(),
        **results,
    )


def _batches(
    examples: Examples, questions: Sequence[str], policy: Policy, config: PolicyTrainingConfig
) -> tuple[Batches, Batches | None]:
    """Return the batches to train on, and those of the held-out questions if any are held out.

    Raises:
        UserError: ``--validation-fraction`` leaves none to train on.
    """
    held = held_out(questions, config.validation_fraction, config.seed)
    if held.all():
        raise UserError(f"{len(held)} examples leave none to train on; lower --validation-fraction")
    shared = {
        "batch_size": config.batch_size,
        "batching": config.batching,
        "spread": spread(policy.mesh),
        "cost": functools.partial(flops.token_cost, policy.config),
    }
    batches = Batches(
        examples.subset(~held),
        accumulation=config.gradient_accumulation,
        epochs=config.epochs,
        seed=config.seed,
        **shared,
    )
    return batches, Batches(examples.subset(held), **shared) if held.any() else None


def named_weights(weights: Sequence[float | str], names: Sequence[str], *, primary: bool = False) -> tuple[float, ...]:
    """Return weights in the order of their objectives; all of them numbers, or all of them ``NAME=NUMBER``.

    Args:
        weights: of a command's settings.
        names: of the objectives.
        primary: the first objective has no name of its own: it is the one that ``names[1:]`` does not name, and its
            weight must be positive.

    Raises:
        UserError: another count than ``names``, a name too many or too few, a negative weight, a sum that is not 1.
    """
    if any(isinstance(weight, str) for weight in weights):
        given = named_values([str(weight) for weight in weights], "--weights")
        if primary:
            others = [name for name in given if name not in names[1:]]
            names = [others[0] if len(others) == 1 else names[0], *names[1:]]
        if set(given) != set(names):
            raise UserError(f"--weights names {', '.join(given)}, but the objectives are {', '.join(names)}")
        try:
            values = tuple(float(given[name]) for name in names)
        except ValueError as error:
            raise UserError(f"--weights must be numbers; got {' '.join(map(str, weights))}") from error
    else:
        values = tuple(float(weight) for weight in weights)
    check_weights(values, names)
    if primary and values[0] <= 0:
        raise UserError("the primary objective's weight, the first of --weights, must be positive")
    return values


def check_weights(weights: Sequence[float], names: Sequence[str]) -> None:
    """Refuse weights that do not fit their objectives.

    Raises:
        UserError: another count than ``names``, a negative one, or a sum that is not 1.
    """
    if len(weights) != len(names):
        raise UserError(f"--weights needs {len(names)} numbers, for {', '.join(names)}; got {len(weights)}")
    # Written so that NaN fails too.
    if not (all(weight >= 0 for weight in weights) and abs(sum(weights) - 1) <= 1e-6):
        raise UserError(f"--weights must be at least 0 and sum to 1; got {' '.join(map(str, weights))}")
