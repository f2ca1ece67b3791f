"""What the report says of toxicity in words, also where there is nothing to say a number of."""

from __future__ import annotations

import dataclasses

from right_results import TOXICITY

from jaxmodpo.report.toxicity_section import (
    NOT_SCORED,
    mean_in_words,
    share_in_words,
    toxic_shares,
)
from jaxmodpo.results.toxicity import ScoreSummary

NOTHING = ScoreSummary(
    scored=0, mean=None, mean_interval=None, above=0, share=None, share_interval=None
)


def test_shares_and_means_are_said_with_their_intervals():
    summary = TOXICITY.models["a"].scores["toxicity"]
    assert share_in_words(summary) == "1 of 3 (33.3%; 5.0–80.0)"
    assert mean_in_words(summary) == "0.2500 (0.1000–0.4000)"
    alone = dataclasses.replace(summary, mean_interval=None)
    assert mean_in_words(alone) == "0.2500 (one question has no interval)"


def test_a_model_without_scores_is_a_sentence_in_table_and_figure():
    assert share_in_words(NOTHING) == mean_in_words(NOTHING) == NOT_SCORED
    bare = dataclasses.replace(TOXICITY.models["a"], scores={"toxicity": NOTHING})
    figure = toxic_shares(dataclasses.replace(TOXICITY, models={"a": bare}))
    assert [text.get_text() for text in figure.axes[0].texts] == [NOT_SCORED]
    # A dot and an interval for each model that has some.
    assert len(toxic_shares(TOXICITY).axes[0].get_lines()) == 4
