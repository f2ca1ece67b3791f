"""What a planned evaluation can see, as ``evaluate --dry-run`` says it."""

from __future__ import annotations

import math

from jaxmodpo.statistics.power import (
    PERSONA_SPREAD,
    detectable_over_panels,
    detectable_over_questions,
)


def power_in_words(models: int, questions: int, personas: int) -> str:
    """Return which difference of a win rate from 50% would be seen with a probability of 80%."""
    pairs = math.comb(models, 2)
    alone = _points(detectable_over_questions(questions))
    strictest = _points(detectable_over_questions(questions, level=0.05 / pairs))
    of_panels = _points(detectable_over_panels(questions, personas))
    return (
        f"power: with {questions} questions, a win rate this far from 50% is seen four times of"
        f" five at p < 0.05: {alone} for the personas asked, {strictest} where it is the smallest p"
        f" of {pairs} adjusted by Holm, and {of_panels} over new personas as well ({personas} are"
        f" asked; one persona's taste is taken to move a win rate by {100 * PERSONA_SPREAD:.0f}"
        " points)"
    )


def _points(difference: float | None) -> str:
    if difference is None:
        return "none (there are too few)"
    return f"{100 * difference:.1f} points"
