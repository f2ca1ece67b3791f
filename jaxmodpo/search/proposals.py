"""Which settings a trial tries: a function of its position in the search and of the trials that
ended before it.

A trial's number will not do for its position, since each kill adds a number: the cut-off trial
keeps its own, and what goes on with it has the next. Its position counts the trials that were begun
before it, each once, however often it was cut off. So a search that was killed tries what an
undisturbed one does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna

from jaxmodpo.search.space import Space, Value

SEEDS_APART = 100_003
"""between the seeds of two searches' first trials: more trials than any search has"""


def position(study: optuna.Study, number: int) -> int:
    """Return how many trials were begun before this one, without those that go on with an earlier
    one.
    """
    trials = study.get_trials(deepcopy=False)
    first = _chain(trials, number)[-1]
    earlier = [trial for trial in trials[:first] if "continues" not in trial.user_attrs]
    return len(earlier)


def propose(
    trial: optuna.Trial, space: Space, seed: int, config_values: Mapping[str, Any]
) -> dict[str, Value]:
    """Return a trial's settings, and record them in the study.

    Args:
        trial: asked for; one that was queued again keeps the settings that it was queued with.
        space: what varies.
        seed: the search's.
        config_values: the search's own values of what varies. The first trial tries them, where
            they lie in the space, so that a search is never worse than what one began with.
    """
    number = position(trial.study, trial.number)
    # A sampler of its own for each trial: one that goes through the whole search would have drawn
    # otherwise after a restart.
    sampler: optuna.samplers.BaseSampler = optuna.samplers.TPESampler(
        seed=seed * SEEDS_APART + number
    )
    lie_in_space = all(space[name].holds(value) for name, value in config_values.items())
    if number == 0 and lie_in_space:
        sampler = optuna.samplers.PartialFixedSampler(dict(config_values), sampler)
    # Univariate sampling draws at each suggestion: sorted, so that the order of the file's lines
    # does not matter.
    trial.study.sampler = sampler
    return {name: space[name].suggest(trial, name) for name in sorted(space)}


def evaluations_before(study: optuna.Study, number: int) -> dict[int, float]:
    """Return the evaluations, by step, of the trials that this one goes on with."""
    trials = study.get_trials(deepcopy=False)
    values: dict[int, float] = {}
    for earlier in reversed(_chain(trials, number)[1:]):
        values |= trials[earlier].intermediate_values
    return values


def _chain(trials: list[optuna.trial.FrozenTrial], number: int) -> list[int]:
    """Return a trial's number and those of the trials that it goes on with, back to the first."""
    chain: list[int] = []
    earlier: int | None = number
    while earlier is not None:
        chain.append(earlier)
        earlier = trials[earlier].user_attrs.get("continues")
    return chain
