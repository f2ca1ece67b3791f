"""How a phase ends: its figures in words."""

from __future__ import annotations

from typing import Any

import pytest

from jaxmodpo.phase import Phase


@pytest.mark.parametrize("key", ["held_out_rewards/accuracies", "held_out_accuracy"])
def test_a_training_ends_with_its_figures_in_words_whichever_key_holds_the_accuracy(tmp_path, key):
    phase = Phase(tmp_path, {}, False)
    results: dict[str, Any] = {"updates": 4, "examples": 9, key: 0.75}
    phase.finish(**results)
    assert phase.ending == f"finished: {tmp_path}; updates 4, held-out accuracy 0.75"
