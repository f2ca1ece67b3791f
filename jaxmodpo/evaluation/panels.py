"""Intervals of win rates over questions and personas at once, as ``results.json`` has them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from jaxmodpo.evaluation.ballot_box import BallotBox
from jaxmodpo.evaluation.contest import Contest
from jaxmodpo.evaluation.outcomes import Outcomes, interval_of, under_ties_rule
from jaxmodpo.results.evaluation import TiesRule
from jaxmodpo.results.inference import Interval, PanelIntervals
from jaxmodpo.statistics.arrays import Array
from jaxmodpo.statistics.intervals import Estimate
from jaxmodpo.statistics.panels import (
    PanelVotes,
    bootstrap_panel,
    recentered_interval,
    square_of_pairs,
)
from jaxmodpo.statistics.win_rates import (
    average_win_rates,
    fewest_questions,
    questions_judged,
    widened,
    win_rate,
)


def panel_intervals(
    contest: Contest,
    table: Outcomes,
    ballots: BallotBox,
    *,
    ties: TiesRule,
    resamples: int,
    seed: int,
) -> dict[str, PanelIntervals]:
    """Return intervals over questions and personas by criterion."""
    of_criterion: dict[str, PanelIntervals] = {}
    for criterion, outcomes in table.items():
        votes = ballots.votes(contest, criterion, outcomes)
        reason = _why_none(votes)
        if reason:
            of_criterion[criterion] = _without_intervals(contest.models, votes.personas, reason)
            continue
        rates = bootstrap_panel(
            votes, ties_count_half=ties == "half", resamples=resamples, seed=seed
        )
        rated_outcomes = under_ties_rule(outcomes, ties)
        samples = square_of_pairs(rates, len(contest.models))
        of_criterion[criterion] = _intervals(
            contest.models, votes.personas, rated_outcomes, samples
        )
    return of_criterion


def _why_none(votes: PanelVotes) -> str:
    """Return why there can be no interval over personas, in a sentence; empty where there can."""
    if not len(votes.unit):
        return "nobody was asked, since all replies are identical"
    if votes.personas < 2:
        return "one persona says nothing of others"
    if votes.outcomes.shape[1] < 2:
        return "one question says nothing of others"
    return ""


def _without_intervals(names: Sequence[str], personas: int, reason: str) -> PanelIntervals:
    nothing: dict[str, Mapping[str, Interval]] = {}
    for name in names:
        nothing[name] = {opponent: None for opponent in names if opponent != name}
    return PanelIntervals(
        personas=personas,
        models=dict.fromkeys(names),
        pairwise=nothing,
        differences=nothing,
        undefined=reason,
    )


def _intervals(
    names: Sequence[str], personas: int, outcomes: Array, samples: Array
) -> PanelIntervals:
    """Return the intervals of one criterion.

    Args:
        names: of the models.
        personas: how many voted.
        outcomes: ``[models, models, questions, replies]``.
        samples: win rates under resampling, ``[resamples, models, models]``.
    """
    rates = win_rate(outcomes)
    averages = average_win_rates(rates)
    sampled_averages = average_win_rates(samples)
    # Where no resample differs, such as of a model that wins everything, the interval is Wilson's
    # of as many trials as there are questions, or personas where those are fewer.
    trials = np.minimum(questions_judged(outcomes), personas)
    fewest = min(outcomes.shape[-2], personas)
    pairs = _estimate(rates, samples, trials, fewest)
    trials_of_average = np.minimum(fewest_questions(outcomes), personas)
    models = _estimate(averages, sampled_averages, trials_of_average, fewest)
    differences = averages[:, None] - averages[None, :]
    sampled_differences = sampled_averages[:, :, None] - sampled_averages[:, None, :]
    low, high = recentered_interval(differences, sampled_differences, bounds=(-1, 1), fewest=fewest)
    pairwise: dict[str, dict[str, Interval]] = {name: {} for name in names}
    between: dict[str, dict[str, Interval]] = {name: {} for name in names}
    for (i, name), (j, opponent) in itertools.permutations(enumerate(names), 2):
        pairwise[name][opponent] = interval_of(pairs.low[i, j], pairs.high[i, j])
        between[name][opponent] = interval_of(low[i, j], high[i, j])
    of_models: dict[str, Interval] = {}
    for number, name in enumerate(names):
        of_models[name] = interval_of(models.low[number], models.high[number])
    return PanelIntervals(
        personas=personas,
        models=of_models,
        pairwise=pairwise,
        differences=between,
    )


def _estimate(values: Array, samples: Array, trials: np.ndarray, fewest: int) -> Estimate:
    low, high = recentered_interval(values, samples, bounds=(0, 1), fewest=fewest)
    return widened(Estimate(values, low, high), trials, 0.95)
