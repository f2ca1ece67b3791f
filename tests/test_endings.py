"""How a phase ends: its figures in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from jaxmodpo.phase import Phase


@dataclass(frozen=True)
class NoSettings:
    """A command that has none."""


@pytest.mark.parametrize("key", ["held_out_rewards/accuracies", "held_out_accuracy"])
def test_a_training_ends_with_its_figures_in_words_whichever_key_holds_the_accuracy(tmp_path, key):
    phase = Phase.open("x", NoSettings(), tmp_path, {})
    results: dict[str, Any] = {"updates": 4, "examples": 9, key: 0.75}
    phase.finish(**results)
    assert phase.ending == f"finished: {tmp_path}; updates 4, held-out accuracy 0.75"


def test_an_accuracy_that_stands_under_both_keys_is_said_once_as_it_was_measured_of_the_outcome(
    tmp_path,
):
    phase = Phase.open("x", NoSettings(), tmp_path, {})
    results: dict[str, Any] = {"held_out_rewards/accuracies": 0.5, "held_out_accuracy": 0.75}
    phase.finish(**results)
    assert phase.ending == f"finished: {tmp_path}; held-out accuracy 0.75"


@pytest.mark.parametrize(
    ("results", "said"),
    [
        (
            {"responses": 12345, "cut_at_max_new_tokens": 2, "empty": 0},
            "replies 12,345, cut at --max-new-tokens 2, empty 0",
        ),
        (
            {"votes_asked": 96, "votes_valid": 90, "questions": 6},
            "questions 6, votes 96, valid votes 90",
        ),
        ({"kl": 1.23456, "standard_error": None, "replies": 4}, "KL in nats per reply 1.235"),
        (
            {"trials": 20, "best_trial": 3, "best_value": 0.71},
            "trials 20, best trial 3, its value 0.71",
        ),
        ({"rank": 64}, "rank 64"),
    ],
)
def test_other_phases_end_with_their_figures_too(tmp_path, results, said):
    phase = Phase.open("x", NoSettings(), tmp_path, {})
    phase.finish(**results)
    assert phase.ending == f"finished: {tmp_path}; {said}"
