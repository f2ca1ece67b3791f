"""Multi-Objective DPO: pairs of the primary objective, rewards of the others as margins."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
from jax import Array

from jaxmodpo.config import named_values
from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.data.prompting import warn_of_other_prompt
from jaxmodpo.flags.help_groups import HelpGroup
from jaxmodpo.losses import modpo_loss
from jaxmodpo.methods.align import PolicyRun
from jaxmodpo.methods.margins import MarginSource, Scaling, margin_sources, read_margins
from jaxmodpo.methods.terms import preference_terms, with_sft_term
from jaxmodpo.methods.weights import named_weights
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.policy.distributed import open_together
from jaxmodpo.ranges import CommandSettings, Positive
from jaxmodpo.rankings import PairsPerQuestion
from jaxmodpo.training.session import Session
from jaxmodpo.training.settings import PreferenceTrainingConfig
from jaxmodpo.training.step import Batch, LossTerms

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class MODPOConfig(PreferenceTrainingConfig, CommandSettings, help_group="objective"):
    """Align an adapter to a primary objective's pairs and to other objectives' rewards."""

    pairs: Path
    """File of preference pairs or rankings of the primary objective."""
    pairs_per_question: Annotated[PairsPerQuestion, HelpGroup("data")] = "all"
    """Pairs that are made of each ranking. all: every two replies, since the ends alone leave MODPO
    little to reweigh; best-worst: the two ends, as in the paper; a number: that many pairs, the
    widest gaps first. A file of pairs is taken as it is."""
    margin: tuple[str, ...]
    """Source of each further objective's margins, as NAME=SOURCE. A source is a reward model's
    folder, adapter:FOLDER for an implicit reward, or column:MARGIN or column:CHOSEN,REJECTED for
    numbers beside the pairs."""
    weights: tuple[float | str, ...]
    """Weights of the objectives, at least 0 and with the sum 1: the primary objective's, then one
    for each margin in the same order, or all of them as NAME=NUMBER."""
    margin_scale: Literal["none", "std"] = "none"
    """Scale of the rewards. none: as they are; std: each is divided by its standard deviation over
    the training pairs' responses."""
    margin_gain: Positive = 1.0
    """Factor of every margin, after its scale."""

    def check(self) -> None:
        super().check()
        self.objective_weights()

    def input_paths(self) -> dict[str, Path]:
        folders = {f"margin {name}": source.folder for name, source in self.sources().items()}
        return super().input_paths() | {
            name: folder for name, folder in folders.items() if folder is not None
        }

    def cost(self, estimator: Estimates) -> Cost:
        return estimator.training(self, estimator.replies([self.pairs], self.pairs_per_question))

    def sources(self) -> dict[str, MarginSource]:
        """Return where the margins come from, by objective."""
        return margin_sources(named_values(self.margin, "--margin"))

    def objective_weights(self) -> tuple[float, ...]:
        """Return the weights, the primary objective's first."""
        return named_weights(self.weights, ["the primary", *self.sources()], primary=True)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["beta", "weights"], meta_fields=["sft_weight"]
)
@dataclass(frozen=True)
class MODPO:
    """:func:`jaxmodpo.losses.modpo_loss` on pairs, which must bring their margins."""

    beta: float
    weights: tuple[float, ...]
    sft_weight: float = 0.0

    def __call__(self, logps: Array, tokens: Array, batch: Batch) -> LossTerms:
        reference = batch["reference_logps"]
        # A batch without margins fails here: taken for zeros, they would train plain DPO.
        margins = batch["reward_margins"]
        losses = modpo_loss(
            logps[:, 0],
            logps[:, 1],
            reference[:, 0],
            reference[:, 1],
            margins.T,
            beta=self.beta,
            weights=self.weights,
        )
        ratios = logps - reference
        implicit_margin = ratios[:, :1] - ratios[:, 1:]
        # The primary prefers the chosen response of every pair, another objective the one that its
        # margin says.
        agrees = jnp.concatenate([implicit_margin > 0, implicit_margin * margins > 0], axis=1)
        agreement = agrees @ jnp.asarray(self.weights)
        terms = preference_terms(
            losses, logps, reference, batch["row_weights"], self.beta, agreement
        )
        return with_sft_term(terms, logps, tokens, batch["row_weights"], self.sft_weight)


@in_phase("align modpo", open_together)
def modpo(config: MODPOConfig, phase: Phase, session: Session | None = None) -> None:
    """Run ``align modpo``."""
    run = PolicyRun.begin(config, phase, session)
    sources = config.sources()
    for source in sources.values():
        if source.kind == "adapter":
            warn_of_other_prompt(source.folder, run.text)
    data = run.read_pairs(config.pairs, config.pairs_per_question)
    scaling = Scaling(config.margin_scale == "std", config.margin_gain)
    with run.startup.part("margins"):
        margins = read_margins(sources, config.pairs, data, run, scaling, beta=config.beta)
    logger.info("%s", margins.rewards_table())
    method = MODPO(float(config.beta), config.objective_weights(), config.sft_weight)
    data = data.with_fields(reward_margins=margins.values)
    run.train(method, data, margins=margins.description)
