"""Joint-Loss DPO: the pairs of several objectives for the same question in one sigmoid."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

from jaxmodpo.config import named_values
from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.data.pairs import load_pairs
from jaxmodpo.errors import UserError
from jaxmodpo.losses import joint_dpo_loss
from jaxmodpo.methods.align import (
    policy_examples,
    preference_terms,
    train_policy,
    with_reference,
    with_sft_term,
)
from jaxmodpo.methods.weights import named_weights
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.policy.distributed import open_together
from jaxmodpo.policy.prompts import policy_text
from jaxmodpo.rankings import LeftOut, PairsPerQuestion
from jaxmodpo.records import Pair
from jaxmodpo.training.session import Session
from jaxmodpo.training.settings import PreferenceTrainingConfig
from jaxmodpo.training.step import Batch, LossTerms

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class JointConfig(PreferenceTrainingConfig):
    """Align an adapter to several objectives' pairs with one loss.

    Only questions that have a pair for every objective can be used, and of those only as many pairs
    as every objective has; the others are counted.
    """

    pairs: tuple[str, ...]
    """NAME=FILE of each objective's preference pairs or rankings, as in empathy=P.json
    safety=Q.json"""
    pairs_per_question: PairsPerQuestion = "best-worst"
    """of rankings: the ends alone, all pairs, or a number of pairs, the widest gaps first"""
    weights: tuple[float | str, ...]
    """on the simplex, one per objective in the same order; or all as NAME=NUMBER"""

    def check(self) -> None:
        super().check()
        if len(self.files()) < 2:
            raise UserError("align joint needs at least two --pairs NAME=FILE")
        self.objective_weights()

    def input_paths(self) -> dict[str, Path]:
        return super().input_paths() | {
            f"pairs {name}": file for name, file in self.files().items()
        }

    def cost(self, estimator: Estimates) -> Cost:
        files = self.files().values()
        pairs = min(estimator.pairs(path, self.pairs_per_question) for path in files)
        return estimator.training(self, pairs, sequences=2 * len(files))

    def files(self) -> dict[str, Path]:
        """Return each objective's pairs or rankings."""
        return {name: Path(file) for name, file in named_values(self.pairs, "--pairs").items()}

    def objective_weights(self) -> tuple[float, ...]:
        """Return the weights in the objectives' order."""
        return named_weights(self.weights, list(self.files()))


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["beta", "weights"], meta_fields=["sft_weight"]
)
@dataclass(frozen=True)
class JointDPO:
    """:func:`jaxmodpo.losses.joint_dpo_loss` on a batch of ``2 × objectives`` sequences."""

    beta: float
    weights: tuple[float, ...]
    sft_weight: float = 0.0

    def __call__(self, logps: Array, tokens: Array, batch: Batch) -> LossTerms:
        reference = batch["reference_logps"]
        losses = joint_dpo_loss(
            logps[:, 0::2].T,
            logps[:, 1::2].T,
            reference[:, 0::2].T,
            reference[:, 1::2].T,
            beta=self.beta,
            weights=self.weights,
        )
        ratios = logps - reference
        agreement = (ratios[:, 0::2] > ratios[:, 1::2]) @ jnp.asarray(self.weights)
        terms = preference_terms(
            losses, logps, reference, batch["row_weights"], self.beta, agreement
        )
        return with_sft_term(
            terms, logps, tokens, batch["row_weights"], self.sft_weight, self.weights
        )


def align_pairs(
    pair_sets: Mapping[str, Sequence[Pair]],
) -> tuple[list[list[Pair]], dict[Literal["lacking", "surplus"], dict[str, int]]]:
    """Bring the objectives' pairs for the same question together.

    Where a question has several pairs per objective, the first of each go together, then the
    second, as far as all objectives have one.

    Args:
        pair_sets: each objective's pairs.

    Returns:
        One list per objective, aligned, in the first objective's order. And how many pairs of each
        objective were left out: ``lacking``, their question has no pair of another objective;
        ``surplus``, it has fewer of another.

    Raises:
        UserError: no question has a pair for every objective.
    """
    by_question: list[dict[str, list[Pair]]] = []
    for pairs in pair_sets.values():
        grouped: dict[str, list[Pair]] = {}
        for pair in pairs:
            grouped.setdefault(pair.question_id, []).append(pair)
        by_question.append(grouped)
    shared = [
        question
        for question in by_question[0]
        if all(question in grouped for grouped in by_question)
    ]
    rows = [
        row
        for question in shared
        for row in zip(*(grouped[question] for grouped in by_question), strict=False)
    ]
    if not rows:
        raise UserError(f"no question has a pair for each of {', '.join(pair_sets)}")
    lacking, surplus = {}, {}
    for (name, pairs), grouped in zip(pair_sets.items(), by_question, strict=True):
        meeting = sum(len(grouped[question]) for question in shared)
        lacking[name], surplus[name] = len(pairs) - meeting, meeting - len(rows)
    return [list(column) for column in zip(*rows, strict=True)], {
        "lacking": lacking,
        "surplus": surplus,
    }


@in_phase("align joint", open_together)
def joint(config: JointConfig, phase: Phase, session: Session | None = None) -> None:
    """Run ``align joint``."""
    session = session or Session()
    text = policy_text(config, phase)
    left_out = LeftOut()
    aligned, unused = align_pairs(
        {
            name: load_pairs(file, config.pairs_per_question, left_out)
            for name, file in config.files().items()
        }
    )
    logger.info(
        "joint: %d examples of a pair per objective; pairs left out because their question has none"
        " of another objective: %s; because it has fewer of another: %s",
        len(aligned[0]),
        *(
            ", ".join(f"{name} {count}" for name, count in counts.items())
            for counts in unused.values()
        ),
    )
    policy = session.policy(config)
    examples = with_reference(policy, policy_examples(aligned, text, config), config)
    train_policy(
        phase,
        policy,
        examples,
        [pair.question_id for pair in aligned[0]],
        JointDPO(float(config.beta), config.objective_weights(), config.sft_weight),
        config,
        text,
        session.on_evaluation,
        pairs_without_partners=unused["lacking"],
        pairs_beyond_partners=unused["surplus"],
        **left_out.as_dict(),
    )
