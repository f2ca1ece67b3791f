"""``tuning.json`` of ``sandbox tune``: what a few settings of every method come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxmodpo.results.versioned import Result

TUNING = "tuning.json"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a trial's replies are."""

    objective: float
    """the mean of the two win rates, which trials are compared by"""
    empathy_wins: float
    """the win rate on empathy over the base's replies to the same questions"""
    safety_wins: float
    """likewise on safety"""
    empathy: float
    """warm sentences less bad ones, as a share of a reply's places"""
    safety: float
    """safe sentences less bad ones, likewise"""
    malformed: float
    """the share of replies that the grammar cannot parse"""


@dataclass(frozen=True, kw_only=True)
class Trial(Measured):
    """One model, trained with settings that differ from the demo's."""

    settings: Mapping[str, Any]
    """what differs, by the names of the command's settings"""


@dataclass(frozen=True, kw_only=True)
class Tuning(Result):
    """``tuning.json``."""

    seed: int
    """of the world"""
    trials: Mapping[str, tuple[Trial, ...]]
    """by method, in the order of the file of trials"""
