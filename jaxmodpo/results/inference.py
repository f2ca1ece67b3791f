"""Parts of ``results.json`` of ``evaluate`` that say how far its win rates can be believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxmodpo.schema import Tally

Interval = tuple[float, float] | None
"""both ends of a 95% interval; None where there is none"""


@dataclass(frozen=True, kw_only=True)
class PanelIntervals:
    """95% intervals of one criterion's win rates over questions and personas at once."""

    personas: Tally
    """how many voted"""
    models: Mapping[str, Interval]
    """of average win rates"""
    pairwise: Mapping[str, Mapping[str, Interval]]
    """of the win rate of the first model over the second"""
    differences: Mapping[str, Mapping[str, Interval]]
    """of the average win rate of the first model minus that of the second"""
    undefined: str = ""
    """why there are no intervals; empty where there are"""


@dataclass(frozen=True, kw_only=True)
class ModelRating:
    """One model's Bradley-Terry rating on one criterion, and the ranks that it may have."""

    rating: float | None
    """in logits over the average model; None where no finite ratings fit"""
    interval: Interval
    """95%, over questions"""
    best_rank: Tally
    """1 is the first; the ranks of all models lie in their sets with 95% confidence"""
    worst_rank: Tally
    probability_of_best: float | None
    """share of resampled questions in which it is first; None where no resample has all rates"""


@dataclass(frozen=True, kw_only=True)
class Ratings:
    """How models rank on one criterion, and how sure that is."""

    models: Mapping[str, ModelRating]
    first: str
    """the model with the highest average win rate"""
    challenger: str | None
    """who would be first if few questions went; None where nobody would"""
    questions_to_turn: Tally | None
    """how many questions would have to go for that; None where no number turns the first place"""
    undefined: str = ""
    """why there are no ratings; empty where there are"""


@dataclass(frozen=True, kw_only=True)
class LengthControlledRate:
    """The win rate of one model over another as if their replies were equally long."""

    a: str
    b: str
    win_rate: float | None
    """of ``a``; None where it is undefined"""
    interval: Interval = None
    """95%, over questions; None where too few resamples have a fit"""
    slope: float | None
    """what a longer reply adds, in logits: positive where longer replies win"""
    undefined: str = ""
    """why there is none; empty where there is"""


@dataclass(frozen=True, kw_only=True)
class LengthBin:
    """How often the longer of two replies wins, of those that are longer by so many tokens."""

    low: float
    """tokens, inclusive"""
    high: float | None
    """tokens, exclusive; None of the last bin, which has no end"""
    units: Tally
    """of all pairs of models together"""
    rate: float | None
    """share that the longer reply wins, a tie counting half; None of fewer than five units"""
    interval: Interval
    """95%, over questions"""


@dataclass(frozen=True, kw_only=True)
class GroupRates:
    """What one group of personas thinks of one model, against all others."""

    dimension: str
    """what the group is of, such as age"""
    group: str
    model: str
    personas: Tally
    votes: Tally
    rate: float | None
    """share of the votes for the model, a tie counting half; None where nothing is shown"""
    interval: Interval
    """95%, over the personas of the group"""
    hidden: str = ""
    """why nothing is shown; empty where something is"""
