"""Joint-Loss DPO: the pairs of several objectives for the same question in one sigmoid."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
from jax import Array

from jaxmodpo.config import named_values
from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.data.pairs import load_pairs
from jaxmodpo.errors import UserError
from jaxmodpo.flags.help_groups import HelpGroup
from jaxmodpo.losses import joint_dpo_loss
from jaxmodpo.methods.align import PolicyRun
from jaxmodpo.methods.terms import preference_terms, with_sft_term
from jaxmodpo.methods.weights import named_weights
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.policy.distributed import open_together
from jaxmodpo.ranges import CommandSettings
from jaxmodpo.rankings import LeftOut, PairsPerQuestion
from jaxmodpo.records import Pair
from jaxmodpo.training.session import Session
from jaxmodpo.training.settings import PreferenceTrainingConfig
from jaxmodpo.training.step import Batch, LossTerms

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class JointConfig(PreferenceTrainingConfig, CommandSettings, help_group="objective"):
    """Align an adapter to several objectives' pairs with one loss.

    Only questions that have a pair for every objective can be used, and of those only as many pairs
    as every objective has; the others are counted.
    """

    pairs: tuple[str, ...]
    """File of each objective's preference pairs or rankings, as in empathy=P.json safety=Q.json."""
    pairs_per_question: Annotated[PairsPerQuestion, HelpGroup("data")] = "best-worst"
    """Pairs that are made of each ranking. best-worst: its two ends; all: every two replies; a
    number: that many pairs, the widest gaps first."""
    weights: tuple[float | str, ...]
    """Weights of the objectives, at least 0 and with the sum 1, in the same order or as
    NAME=NUMBER."""

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
        files = list(self.files().values())
        return estimator.training(self, estimator.replies(files, self.pairs_per_question))

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
    """:func:`jaxmodpo.losses.joint_dpo_loss` on comparisons of ``2 × objectives`` replies."""

    beta: float
    weights: tuple[float, ...]
    sft_weight: float = 0.0

    def __call__(self, logps: Array, tokens: Array, batch: Batch) -> LossTerms:
        reference = batch["reference_logps"]
        # Replies alternate: chosen and rejected of the first objective, then of the second. The
        # loss takes objectives first.
        losses = joint_dpo_loss(
            logps[:, 0::2].T,
            logps[:, 1::2].T,
            reference[:, 0::2].T,
            reference[:, 1::2].T,
            beta=self.beta,
            weights=self.weights,
        )
        # An objective's own pair says what it prefers: the first of its two replies.
        ratios = logps - reference
        prefers_chosen = ratios[:, 0::2] > ratios[:, 1::2]  # [rows, objectives]
        agreement = prefers_chosen @ jnp.asarray(self.weights)
        terms = preference_terms(
            losses, logps, reference, batch["row_weights"], self.beta, agreement
        )
        return with_sft_term(
            terms, logps, tokens, batch["row_weights"], self.sft_weight, self.weights
        )


@dataclass(frozen=True)
class AlignedPairs:
    """The objectives' pairs, brought together by their questions.

    Attributes:
        pair_sets: a list for each objective; the pairs that share a place are of one question.
        lacking: by objective, how many pairs were left out because their question has no pair of
            another objective.
        surplus: by objective, how many were left out because their question has fewer of another.
    """

    pair_sets: list[list[Pair]]
    lacking: dict[str, int]
    surplus: dict[str, int]

    def log(self) -> None:
        """Say how many comparisons there are, and which pairs did not become one."""
        logger.info(
            "joint: %d comparisons of a pair per objective; pairs left out because their question has"
            " none of another objective: %s; because it has fewer of another: %s",
            len(self.pair_sets[0]),
            _listed(self.lacking),
            _listed(self.surplus),
        )


def align_pairs(pair_sets: Mapping[str, Sequence[Pair]]) -> AlignedPairs:
    """Bring the objectives' pairs for the same question together.

    Where a question has several pairs per objective, the first of each go together, then the
    second, as far as all objectives have one. The order is the first objective's.

    Args:
        pair_sets: each objective's pairs.

    Raises:
        UserError: no question has a pair for every objective.
    """
    by_question = {name: _grouped(pairs) for name, pairs in pair_sets.items()}
    first_objective, *other_objectives = by_question.values()
    shared_questions: list[str] = []
    for question in first_objective:
        if all(question in pairs_of for pairs_of in other_objectives):
            shared_questions.append(question)
    aligned: list[list[Pair]] = [[] for _ in by_question]
    for question in shared_questions:
        pairs_by_objective = [pairs_of[question] for pairs_of in by_question.values()]
        # The objective with the fewest pairs of a question says how many examples it gives.
        count = min(len(pairs) for pairs in pairs_by_objective)
        for column, pairs in zip(aligned, pairs_by_objective, strict=True):
            column += pairs[:count]
    if not aligned[0]:
        raise UserError(f"no question has a pair for each of {', '.join(pair_sets)}")
    lacking: dict[str, int] = {}
    surplus: dict[str, int] = {}
    for name, pairs_of in by_question.items():
        of_shared_questions = sum(len(pairs_of[question]) for question in shared_questions)
        lacking[name] = len(pair_sets[name]) - of_shared_questions
        surplus[name] = of_shared_questions - len(aligned[0])
    return AlignedPairs(aligned, lacking, surplus)


def _grouped(pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    """Return an objective's pairs by question, in their order."""
    by_question: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_question.setdefault(pair.question_id, []).append(pair)
    return by_question


def _listed(counts: Mapping[str, int]) -> str:
    """Return counts as a sentence has them: ``empathy 3, safety 0``."""
    phrases = [f"{name} {count}" for name, count in counts.items()]
    return ", ".join(phrases)


@in_phase("align joint", open_together)
def joint(config: JointConfig, phase: Phase, session: Session | None = None) -> None:
    """Run ``align joint``."""
    run = PolicyRun.begin(config, phase, session)
    left_out = LeftOut()
    with run.startup.part("data"):
        pair_sets: dict[str, list[Pair]] = {}
        for name, file in config.files().items():
            pair_sets[name] = load_pairs(file, config.pairs_per_question, left_out)
        aligned = align_pairs(pair_sets)
    aligned.log()
    run.train(
        JointDPO(float(config.beta), config.objective_weights(), config.sft_weight),
        run.tokenize(aligned.pair_sets, left_out),
        pairs_without_partners=aligned.lacking,
        pairs_beyond_partners=aligned.surplus,
    )
