"""``bench coverage``: how often nominal 95% intervals of win rates hold the true rate.

Personas who do not exist vote on questions that do not exist, so that the truth is known. The table
is in docs/statistics.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from jaxmodpo.bench.table import text_table
from jaxmodpo.ranges import Count, Seed, Unestimated
from jaxmodpo.statistics.panels import PanelVotes, bootstrap_panel, recentered_interval
from jaxmodpo.statistics.win_rates import estimate_win_rate


class World(NamedTuple):
    """A persona votes for the first model with the probability Φ(mean + question + persona)."""

    questions: int
    personas: int
    mean: float
    question_deviation: float
    persona_deviation: float


WORLDS = (
    World(50, 10, 0.2, 0.7, 0.5),
    World(100, 20, 0.2, 0.7, 0.0),
    World(100, 20, 0.2, 0.7, 0.5),
    World(100, 50, 0.2, 0.7, 0.5),
    World(300, 12, 0.1, 0.5, 0.6),
    World(300, 50, 0.5, 1.0, 0.3),
)

_PANELS_OF_TRUTH = 1000
_QUESTIONS_OF_TRUTH = 2000
_HEADS = (
    "questions",
    "personas",
    "mean",
    "sd of questions' effects",
    "sd of personas' effects",
    "over questions",
    "over both",
)


@dataclass(frozen=True, kw_only=True)
class BenchCoverageConfig(Unestimated, help_group="measurement"):
    """Simulate evaluations whose true win rate is known, and count how many of their 95% intervals
    hold it: those over questions, and those over questions and personas.
    """

    draws: Count = 300
    """Simulated evaluations of each row of the table."""
    bootstrap: Count = 400
    """How many times each of them is resampled."""
    seed: Seed = 11
    """Seed of the simulated questions, personas and votes."""


def bench_coverage(config: BenchCoverageConfig) -> None:
    """Run ``bench coverage``."""
    config.check()
    rows: list[list[str]] = []
    for world in WORLDS:
        shares = coverage(world, config.draws, config.bootstrap, config.seed)
        world_cells = [str(value) for value in world]
        share_cells = [f"{share:.0%}" for share in shares]
        rows.append(world_cells + share_cells)
    print(text_table(_HEADS, rows))


def draw(world: World, random: np.random.Generator) -> np.ndarray:
    """Draw new questions, new personas and their votes: ``[questions, personas]`` of ±1."""
    by_question = random.normal(0, world.question_deviation, world.questions)
    by_persona = random.normal(0, world.persona_deviation, world.personas)
    # A probit model: question and persona each shift how likely the first model is to win.
    leaning = world.mean + by_question[:, None] + by_persona[None, :]
    probability = norm.cdf(leaning)
    draws = random.random(probability.shape)
    return np.where(draws < probability, 1, -1)


def panel_votes(verdicts: np.ndarray) -> PanelVotes:
    """Return a table of ±1 as the votes of one pair of models."""
    personas = verdicts.shape[1]
    unit, persona = np.indices(verdicts.shape)
    outcomes = (np.sign(verdicts.sum(axis=1)) + 1) / 2
    return PanelVotes(
        unit.ravel(), persona.ravel(), verdicts.ravel(), personas, outcomes[None, :, None]
    )


def true_rate(world: World, random: np.random.Generator) -> float:
    """Return the mean win rate over many panels of as many personas, with many questions each."""
    many = world._replace(questions=_QUESTIONS_OF_TRUTH)
    rates: list[float] = []
    for _ in range(_PANELS_OF_TRUTH):
        rates.append(panel_votes(draw(many, random)).outcomes.mean())
    return float(np.mean(rates))


class Coverage(NamedTuple):
    """Shares of 95% intervals that hold the true rate."""

    over_questions: float
    over_both: float


def coverage(world: World, draws: int = 300, resamples: int = 400, seed: int = 11) -> Coverage:
    """Return how often intervals over questions, and over both, hold a world's true rate."""
    random = np.random.default_rng(seed)
    truth = true_rate(world, random)
    over_questions = 0
    over_both = 0
    for number in range(draws):
        votes = panel_votes(draw(world, random))
        estimate = estimate_win_rate(votes.outcomes[0], resamples=resamples, seed=number)
        over_questions += bool(estimate.low <= truth <= estimate.high)
        samples = bootstrap_panel(votes, resamples=resamples, seed=number)[:, 0]
        low, high = recentered_interval(
            estimate.value,
            samples,
            bounds=(0, 1),
            fewest=min(world.questions, world.personas),
        )
        over_both += bool(low <= truth <= high)
    return Coverage(over_questions / draws, over_both / draws)
