"""When what happens in a run: each update's learning rate, and the updates between evaluations."""

from __future__ import annotations

import math

import numpy as np
import optax

from jaxmodpo.data.batches import Batches
from jaxmodpo.training.settings import LoopSettings


def learning_rates(settings: LoopSettings, updates: int) -> np.ndarray:
    """Return every update's learning rate, ``[updates]`` float32: a linear rise, then a cosine.

    All of them are computed before the first update. In the loop, each would be a computation on
    the devices that the host has to wait for.
    """
    warmup = min(updates, max(1, math.ceil(settings.warmup_ratio * updates)))
    # Optax's schedule begins with a rate of 0, with which the first update would change nothing.
    # Updates count from 1 here, so that this one is left out.
    schedule = optax.schedules.warmup_cosine_decay_schedule(
        0.0, settings.learning_rate, warmup, max(updates, warmup + 1)
    )
    return np.asarray(schedule(np.arange(1, updates + 1)), np.float32)


def updates_between_evaluations(settings: LoopSettings, batches: Batches) -> int:
    """Return how many updates lie between two evaluations, at least one."""
    if settings.evaluations_per_epoch is None:
        return settings.eval_every
    return max(1, batches.steps_per_epoch // settings.evaluations_per_epoch)
