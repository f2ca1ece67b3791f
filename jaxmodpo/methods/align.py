"""What the ``align`` methods share: from pairs to examples with a reference, and from examples to a
finished adapter.

A method's command reads its pairs and then goes::

    examples = policy_examples([pairs], text, config)
    examples = with_reference(policy, examples, config)
    train_policy(phase, policy, examples, questions, DPO(beta=0.1), config, text)

where the method (here ``DPO``) reduces its losses with :func:`preference_terms` and, where it is
asked to, :func:`with_sft_term`.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from jaxmodpo.data.batches import Batches, describe
from jaxmodpo.data.examples import (
    Examples,
    check_tokens,
    leave_out_equal_pairs,
    policy_chosen,
    policy_pairs,
)
from jaxmodpo.data.prompting import record_prompt
from jaxmodpo.data.text import PROMPT, PolicyText, tokenizer_digest
from jaxmodpo.errors import UserError
from jaxmodpo.fingerprints import digest, fingerprint
from jaxmodpo.models import flops
from jaxmodpo.models.adapters import save_adapter
from jaxmodpo.phase import Phase
from jaxmodpo.policy.distributed import leads, on_host
from jaxmodpo.policy.loaded import Policy
from jaxmodpo.policy.mesh import row_shards
from jaxmodpo.records import Pair
from jaxmodpo.training.cache import cached, cached_examples, examples_digest
from jaxmodpo.training.policy_loss import Method, PolicyLoss
from jaxmodpo.training.settings import PolicyTrainingConfig, PreferenceTrainingConfig
from jaxmodpo.training.step import LossTerms
from jaxmodpo.training.trainer import OnEvaluation, passing, train

logger = logging.getLogger(__name__)


def policy_examples(
    pair_sets: Sequence[Sequence[Pair]],
    text: PolicyText,
    config: PolicyTrainingConfig,
    *,
    chosen_only: bool = False,
) -> Examples:
    """Tokenize aligned pair sets, or the first one's chosen responses; once, and then from the
    cache.
    """
    depends_on = {
        "pairs": [digest([dataclasses.asdict(pair) for pair in pairs]) for pairs in pair_sets],
        "tokenizer": tokenizer_digest(text.tokenizer),
        "text": [
            dataclasses.asdict(text.surroundings),
            text.max_prompt_length,
            text.max_length,
            list(text.end_tokens),
        ],
        "prompt_style": text.prompt_style,
        "control_tokens": text.control_tokens,
        "chosen_only": chosen_only,
    }

    def tokenize() -> Examples:
        return policy_chosen(pair_sets[0], text) if chosen_only else policy_pairs(pair_sets, text)

    examples = cached_examples("tokens", depends_on, text.cut, tokenize, config.cache_dir)
    assert len(examples) == len(pair_sets[0])
    return examples


def with_reference(policy: Policy, examples: Examples, config: PolicyTrainingConfig) -> Examples:
    """Add ``reference_logps`` ``[n, S]``, computed once per model and data set and then kept on
    disk.
    """
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
        weighted_accuracies: ``[rows]``, of several objectives: the weights' share of those whose
            preference the implicit rewards agree with.
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
    """Add the chosen completions' negative log-likelihood, so that alignment does not make them
    less likely.

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
    """Train the adapter and finish the phase: ``adapter/``, ``metrics.jsonl`` and the manifest's
    counts.

    Args:
        phase: the run's folder.
        policy: base and fresh adapter.
        examples: with everything that the method's batches need.
        questions: each example's question id; held-out ones share none with the others.
        method: what is done with log-probabilities.
        config: the run's settings.
        text: the tokenization that made the examples; it counts what was cut.
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
            "every question is put to the model as the paper does: %r; --prompt-style chat takes"
            " the tokenizer's own template and no therapist",
            PROMPT,
        )
    in_step = config.reference == "in_step" and isinstance(config, PreferenceTrainingConfig)
    has_dropout = policy.lora.dropout > 0
    loss = PolicyLoss(
        policy.config, policy.lora, method, policy.attention, config.remat, in_step, has_dropout
    )
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
        save_adapter(
            config.output_dir / "adapter", adapter, policy.lora, policy.config, str(config.model)
        )
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
    held = config.held_out(questions)
    if held.all():
        raise UserError(f"{len(held)} examples leave none to train on; lower --validation-fraction")
    shared = {
        "batch_size": config.batch_size,
        "batching": config.batching,
        "row_shards": row_shards(policy.mesh),
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
