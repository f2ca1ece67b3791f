"""Votes of made-up personas on made-up questions, whose true win rate is known.

``python tests/statistics/simulated_panels.py`` prints how often intervals cover the true rate, the
table in docs/statistics.md.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from jaxmodpo.statistics.panels import PanelVotes, bootstrap_panel, recentered_interval
from jaxmodpo.statistics.win_rates import estimate_win_rate


class World(NamedTuple):
    """A persona votes for the first model with the probability Φ(mean + question + persona)."""

    questions: int
    personas: int
    mean: float
    question_deviation: float
    persona_deviation: float


WORLDS = [
    World(50, 10, 0.2, 0.7, 0.5),
    World(100, 20, 0.2, 0.7, 0.0),
    World(100, 20, 0.2, 0.7, 0.5),
    World(100, 50, 0.2, 0.7, 0.5),
    World(300, 12, 0.1, 0.5, 0.6),
    World(300, 50, 0.5, 1.0, 0.3),
]


def draw(world: World, random: np.random.Generator) -> np.ndarray:
    """Draw new questions, new personas and their votes: ``[questions, personas]`` of ±1."""
    by_question = random.normal(0, world.question_deviation, world.questions)
    by_persona = random.normal(0, world.persona_deviation, world.personas)
    probability = norm.cdf(world.mean + by_question[:, None] + by_persona[None, :])
    return np.where(random.random(probability.shape) < probability, 1, -1)


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
    many = world._replace(questions=2000)
    return float(np.mean([panel_votes(draw(many, random)).outcomes.mean() for _ in range(1000)]))


def coverage(world: World, draws: int = 300, resamples: int = 400) -> tuple[float, float]:
    """Return the shares of 95% intervals that hold the true rate: over questions, over both."""
    random = np.random.default_rng(11)
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
    return over_questions / draws, over_both / draws


if __name__ == "__main__":
    for simulated in WORLDS:
        of_questions, of_both = coverage(simulated)
        parameters = " | ".join(map(str, simulated))
        print(f"| {parameters} | {100 * of_questions:.0f}% | {100 * of_both:.0f}% |")
