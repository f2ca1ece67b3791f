"""Multi-Objective DPO: pairs of the primary objective, reward models of the others as margins."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jax import Array

from jaxmodpo.artifacts import Pair, Phase
from jaxmodpo.config import named_values
from jaxmodpo.data.pairs import load_pairs
from jaxmodpo.errors import UserError
from jaxmodpo.losses import modpo_loss
from jaxmodpo.methods.reward import rewards_of_pairs
from jaxmodpo.training.distributed import open_phase
from jaxmodpo.training.policy import (
    PreferenceTrainingConfig,
    check_weights,
    fresh_policy,
    policy_examples,
    policy_text,
    preference_terms,
    train_policy,
    with_reference,
    with_sft_term,
)
from jaxmodpo.training.step import Batch, LossTerms

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class MODPOConfig(PreferenceTrainingConfig):
    """Align an adapter to a primary objective's pairs and to other objectives' reward models."""

    pairs: Path
    """preference pairs of the primary objective"""
    margin: tuple[str, ...]
    """NAME=FOLDER of a reward model for each further objective, as in safety=out/reward_safety"""
    weights: tuple[float, ...]
    """on the simplex: the primary objective's, then one per margin in the same order"""
    margin_scale: Literal["none", "std"] = "none"
    """std divides each reward by its standard deviation over the training pairs' responses"""
    margin_gain: float = 1.0
    """multiplies every margin after that"""


@dataclass(frozen=True)
class MODPO:
    """:func:`jaxmodpo.losses.modpo_loss` on a batch, which must bring its margins."""

    beta: float
    weights: tuple[float, ...]
    sft_weight: float = 0.0

    def __call__(self, logps: Array, tokens: Array, batch: Batch) -> LossTerms:
        reference = batch["reference_logps"]
        losses = modpo_loss(
            logps[:, 0],
            logps[:, 1],
            reference[:, 0],
            reference[:, 1],
            batch["reward_margins"].T,
            beta=self.beta,
            weights=self.weights,
        )
        terms = preference_terms(losses, logps, reference, batch["row_weights"], self.beta)
        return with_sft_term(terms, logps, tokens, batch["row_weights"], self.sft_weight)


def reward_margins(
    pairs: list[Pair], folders: dict[str, Path], config: MODPOConfig
) -> tuple[np.ndarray, dict[str, dict[str, float]]]:
    """Return margins ``[pairs, margins]``, chosen minus rejected, and what each objective's look like.

    Raises:
        UserError: a folder is no reward model, or a reward is not finite.
    """
    columns, description = [], {}
    for name, folder in folders.items():
        rewards = rewards_of_pairs(folder, pairs, batch_size=config.batch_size, cache_dir=config.cache_dir)
        if not np.isfinite(rewards).all():
            raise UserError(f"the reward model {folder} gives rewards that are not finite")
        spread = float(rewards.std())
        if config.margin_scale == "std" and spread == 0:
            raise UserError(f"the reward model {folder} gives every response the same reward")
        scale = config.margin_gain / (spread if config.margin_scale == "std" else 1.0)
        margins = scale * (rewards[:, 0] - rewards[:, 1])
        columns.append(margins)
        description[name] = {
            "reward_std": spread,
            "scale": scale,
            "margin_mean": float(margins.mean()),
            "margin_std": float(margins.std()),
            "agrees_with_primary": float((margins > 0).mean()),
        }
        logger.info(
            "margin %s: mean %.3f, standard deviation %.3f; agrees with the primary preference on %.0f%% of pairs",
            name,
            margins.mean(),
            margins.std(),
            100 * (margins > 0).mean(),
        )
    return np.stack(columns, axis=1).astype(np.float32), description


def modpo(config: MODPOConfig) -> Phase:
    """Run ``align modpo``."""
    config.check()
    folders = {name: Path(folder) for name, folder in named_values(config.margin, "--margin").items()}
    if not folders:
        raise UserError("align modpo needs at least one --margin NAME=FOLDER")
    check_weights(config.weights, ["the primary", *folders])
    if config.weights[0] <= 0:
        raise UserError("the primary objective's weight, the first of --weights, must be positive")
    inputs = {"model": config.model, "pairs": config.pairs} | {f"margin {n}": f for n, f in folders.items()}
    phase = open_phase("align modpo", config, inputs)
    if phase.finished:
        return phase
    text = policy_text(config)
    pairs = load_pairs(config.pairs)
    margins, description = reward_margins(pairs, folders, config)
    policy = fresh_policy(config)
    examples = with_reference(policy, policy_examples([pairs], text, config), config).with_fields(
        reward_margins=margins
    )
    method = MODPO(config.beta, tuple(config.weights), config.sft_weight)
    questions = [pair.question_id for pair in pairs]
    train_policy(phase, policy, examples, questions, method, config, text, margins=description)
    return phase
