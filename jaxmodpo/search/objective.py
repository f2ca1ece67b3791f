"""What trials are compared by: a number that does not depend on the settings that vary.

Held-out preference accuracy means the same whatever β or learning rate a trial has. A loss does
not: losses of different β are different quantities, and a search for the lowest would merely find
the smallest β.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jaxmodpo.errors import UserError

TIE_BREAK = 1e-4
"""what a margin can add to an accuracy at most"""


def objective(values: Mapping[str, float], beta: float = 1.0) -> float:
    """Return what a trial is compared by, higher is better; NaN where a figure is not finite, which
    is never the best.

    Args:
        values: of a held-out evaluation.
        beta: that the margins were multiplied by.
    """
    accuracy = values.get("rewards/weighted_accuracies", values.get("rewards/accuracies"))
    if accuracy is None:
        # SFT compares nothing; its loss is a log-likelihood, which has no constants.
        return -values["loss"]
    margin = values.get("rewards/margins", math.nan) / beta
    # Small held-out sets give many trials one accuracy. margin / (1 + |margin|) lies between -1 and
    # 1, so the margin can decide between equals and never outweighs a single pair.
    return accuracy + TIE_BREAK * margin / (1 + abs(margin))


def best_evaluation(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the best evaluation of a run, from its results.

    Raises:
        UserError: there is none to compare the run by.
    """
    values: dict[str, Any] = {}
    for name, value in results.items():
        if name.startswith("held_out_"):
            values[name.removeprefix("held_out_")] = value
    if "best_epoch" not in results:
        raise UserError(
            "nothing was held out: there are too few questions for this --validation-fraction"
        )
    if "loss" not in values:
        raise UserError("no evaluation was finite")
    return values
