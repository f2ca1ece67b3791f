"""Bradley-Terry ratings and ranks of models, as ``results.json`` has them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxmodpo.evaluation.contest import Contest
from jaxmodpo.evaluation.outcomes import Outcomes, interval_of, under_ties_rule
from jaxmodpo.results.evaluation import TiesRule
from jaxmodpo.results.inference import ModelRating, Ratings
from jaxmodpo.statistics.arrays import Array
from jaxmodpo.statistics.bradley_terry import estimate_ratings, groups_without_upsets, win_counts
from jaxmodpo.statistics.intervals import Estimate
from jaxmodpo.statistics.ranking import probability_of_best, rank_sets, turn_first_place
from jaxmodpo.statistics.win_rates import (
    average_win_rates,
    bootstrap_win_rates,
    win_rate,
)


def rate_models(
    contest: Contest, table: Outcomes, *, ties: TiesRule, resamples: int, seed: int
) -> dict[str, Ratings]:
    """Return ratings and ranks by criterion."""
    ratings: dict[str, Ratings] = {}
    for criterion, outcomes in table.items():
        rated_outcomes = under_ties_rule(outcomes, ties)
        samples = average_win_rates(
            bootstrap_win_rates(rated_outcomes, resamples=resamples, seed=seed)
        )
        ratings[criterion] = _rate(contest.models, rated_outcomes, samples)
    return ratings


def _rate(names: Sequence[str], outcomes: Array, samples: Array) -> Ratings:
    """Return one criterion's ratings.

    Args:
        names: of the models.
        outcomes: ``[models, models, questions, replies]``.
        samples: average win rates under resampled questions, ``[resamples, models]``.
    """
    groups = groups_without_upsets(win_counts(outcomes))
    nothing = np.full(len(names), np.nan)
    estimate = Estimate(nothing, nothing, nothing)
    if len(groups) == 1:
        estimate = estimate_ratings(outcomes)
    averages = average_win_rates(win_rate(outcomes))
    ranks = rank_sets(averages, samples, outcomes.shape[2])
    chances = probability_of_best(samples)
    models: dict[str, ModelRating] = {}
    for number, name in enumerate(names):
        models[name] = ModelRating(
            rating=_finite(estimate.value[number]),
            interval=interval_of(estimate.low[number], estimate.high[number]),
            best_rank=int(ranks.best[number]),
            worst_rank=int(ranks.worst[number]),
            probability_of_best=_finite(chances[number]),
        )
    overtaking = turn_first_place(outcomes)
    return Ratings(
        models=models,
        first=names[overtaking.first],
        challenger=None if overtaking.challenger is None else names[overtaking.challenger],
        questions_to_turn=overtaking.questions,
        undefined=_why_none(names, groups),
    )


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _why_none(names: Sequence[str], groups: Sequence[Sequence[int]]) -> str:
    """Return why no finite ratings fit, in a sentence; empty where some do."""
    if len(groups) == 1:
        return ""
    winners = [names[number] for number in groups[0]]
    others = [names[number] for group in groups[1:] for number in group]
    verb = "loses" if len(winners) == 1 else "lose"
    return (
        f"{' and '.join(winners)} never {verb} to {' or '.join(others)}, so that no finite rating"
        " fits"
    )
