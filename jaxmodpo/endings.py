"""A command's last words: the figures among its results, in words.

Example: ``figures_in_words({"updates": 4, "held_out_accuracy": 0.75, "examples": 9})`` returns
``updates 4, held-out accuracy 0.75``; what has no name here stays in the manifest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FIGURES = {
    "train": "training questions",
    "test": "test questions",
    "participants": "participants",
    "good": "of good quality",
    "pairs": "pairs",
    "responses": "replies",
    "cut_at_max_new_tokens": "cut at --max-new-tokens",
    "cut_by_filter": "cut by a filter",
    "empty": "empty",
    "questions": "questions",
    "questions_judged": "questions judged",
    "votes_asked": "votes",
    "votes_valid": "valid votes",
    "valid": "valid votes",
    "points": "weights",
    "trials": "trials",
    "best_trial": "best trial",
    "best_value": "its value",
    "updates": "updates",
    "held_out_loss": "held-out loss",
    "held_out_rewards/accuracies": "held-out accuracy",
    "held_out_rewards/weighted_accuracies": "weighted held-out accuracy",
    "held_out_accuracy": "held-out accuracy",
    "held_out_rewards/margins": "held-out margin",
    "kl": "KL in nats per reply",
    "standard_error": "standard error",
    "rank": "rank",
    "tensors": "tensors",
    "merged": "of them merged",
    "malformed": "share of malformed replies",
    "hypervolume": "hypervolume",
    "runs": "runs",
    "figures": "figures",
}
"""results that a command ends with, and their names in words"""


def figures_in_words(results: Mapping[str, Any]) -> str:
    """Return a phase's figures in words, or nothing where there are none."""
    # Two keys share a name: where a command has both, what it measured of the outcome stands for
    # the training's own.
    values_by_name: dict[str, Any] = {}
    for key, name in FIGURES.items():
        if _is_figure(results.get(key)):
            values_by_name[name] = results[key]
    return ", ".join(f"{name} {_in_words(value)}" for name, value in values_by_name.items())


def _is_figure(value: Any) -> bool:
    """Return whether a result is a number, or a number for each of several names."""
    if isinstance(value, Mapping):
        return bool(value) and all(isinstance(number, int | float) for number in value.values())
    return isinstance(value, int | float) and not isinstance(value, bool)


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_in_words(number)}" for name, number in value.items())
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
