"""Which settings a trial tries: a function of its place in the search and of the trials that ended
before it.

A trial's number will not do for its place, since each kill adds a number: the cut-off trial keeps
its own, and what goes on with it has the next. Its place counts the trials that were begun before
it, each once, however often it was cut off. So a search that was killed tries what an undisturbed
one does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna

from jaxmodpo.search.space import Space, Value

SEEDS_APART = 100_003
"""between the seeds of two searches' first trials: more trials than any search has"""


def place(study: optuna.Study, number: int) -> int:
    """Return how many trials were begun before this one, without those that go on with an earlier
    one.
    """
    trials = study.get_trials(deepcopy=False)
    first = _chain(trials, number)[-1]
    return sum("continues" not in trial.user_attrs for trial in trials[:first])


def propose(
    trial: optuna.Trial, space: Space, seed: int, own: Mapping[str, Any]
) -> dict[str, Value]:
    """Return a trial's settings, and record them in the study.

    Args:
        trial: asked for; one that was queued again keeps the settings that it was queued with.
        space: what varies.
        seed: the search's.
        own: the settings given; the first trial's, where they lie in the space.
    """
    number = place(trial.study, trial.number)
    sampler: optuna.samplers.BaseSampler = optuna.samplers.TPESampler(
        seed=seed * SEEDS_APART + number
    )
    if number == 0 and all(space[name].holds(value) for name, value in own.items()):
        sampler = optuna.samplers.PartialFixedSampler(dict(own), sampler)
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
    chain = [number]
    while (before := trials[chain[-1]].user_attrs.get("continues")) is not None:
        chain.append(before)
    return chain
