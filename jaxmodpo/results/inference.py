"""Parts of ``results.json`` of ``evaluate`` that say how far its win rates can be believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxmodpo.ranges import Tally

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
