"""``judges.json`` of ``judges``: how far each judge can be believed, by criterion.

Every row says whose votes it counts: one judge's, of one kind (comparisons of two responses, or
rankings of several), with one number of responses shown, by one criterion or by all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from jaxmodpo.results.evaluation import Interval
from jaxmodpo.results.versioned import Result
from jaxmodpo.schema import Tally

JUDGES = "judges.json"

Kind = Literal["compare", "rank"]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its 95% interval; without a value it says why there is none."""

    value: float | None
    interval: Interval
    undefined: str | None = None


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A value that is always there, with its 95% interval."""

    value: float
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class VotesOf:
    """Whose votes a row counts."""

    judge: str
    kind: Kind
    shown: Tally
    criterion: str
    questions: Tally
    personas: Tally


@dataclass(frozen=True, kw_only=True)
class ComparedPosition(VotesOf):
    """What being shown first does to comparisons."""

    kind: Literal["compare"]
    votes: Tally
    units: Tally
    units_in_one_order: Tally
    first: Tally
    """comparisons that the first shown won"""
    second: Tally
    ties: Tally
    first_share: Estimate
    wilson: Interval
    effect: Estimate
    """what being first adds to a response's chance of winning"""


@dataclass(frozen=True, kw_only=True)
class RankedPosition(VotesOf):
    """What the position shown does to rankings."""

    kind: Literal["rank"]
    votes: Tally
    units: Tally
    units_in_one_order: Tally
    mean_ranks: tuple[Mean, ...]
    """by position shown"""
    first_places: tuple[Estimate, ...]
    friedman: float | None
    p_value: float | None


@dataclass(frozen=True, kw_only=True)
class BothOrders(VotesOf):
    """Whether personas that saw a pair in both orders kept to their verdicts."""

    kind: Literal["compare"]
    pairs: Tally
    consistent: Estimate
    first_both_times: Tally
    second_both_times: Tally
    tie_once: Tally


@dataclass(frozen=True, kw_only=True)
class ComparedAgain(VotesOf):
    """Comparisons asked more than once."""

    kind: Literal["compare"]
    votes: Tally
    requests: Tally
    pairs: Tally
    same: Estimate


@dataclass(frozen=True, kw_only=True)
class RankedAgain(VotesOf):
    """Rankings asked more than once."""

    kind: Literal["rank"]
    votes: Tally
    requests: Tally
    pairs: Tally
    same: Estimate
    same_best: Estimate
    tau: Estimate


@dataclass(frozen=True, kw_only=True)
class PersonaAgreement(VotesOf):
    """How far personas agree."""

    votes: Tally
    units: Tally
    units_with_one_vote: Tally
    level: Literal["nominal", "ordinal"]
    alpha: Estimate
    agreement: Estimate


@dataclass(frozen=True, kw_only=True)
class SharedComparisons:
    """Comparisons that two judges share, vote by vote or by their majorities."""

    shared: Tally
    questions: Tally
    decided: Tally
    raw: Estimate
    agreement: Estimate
    kappa: Estimate
    ac1: Estimate


@dataclass(frozen=True, kw_only=True)
class SharedRankings:
    """Rankings that two judges share, vote by vote or by their majorities."""

    shared: Tally
    questions: Tally
    tau: Estimate
    same_best: Estimate


@dataclass(frozen=True, kw_only=True)
class JudgesOfComparisons:
    """How far two judges' comparisons agree."""

    a: str
    b: str
    kind: Literal["compare"]
    shown: Tally
    criterion: str
    votes: SharedComparisons
    majorities: SharedComparisons


@dataclass(frozen=True, kw_only=True)
class JudgesOfRankings:
    """How far two judges' rankings agree."""

    a: str
    b: str
    kind: Literal["rank"]
    shown: Tally
    criterion: str
    votes: SharedRankings
    majorities: SharedRankings


@dataclass(frozen=True, kw_only=True)
class Judge:
    """A judge, and how many of its votes are valid."""

    name: str
    ledger: str
    identity: str
    model: str
    valid_votes: Tally


@dataclass(frozen=True, kw_only=True)
class FailedOfJudge:
    """Failed votes of a judge by a criterion."""

    judge: str
    criterion: str
    votes: Tally
    failed: Tally
    statuses: Mapping[str, Tally]
    failed_share: Estimate


@dataclass(frozen=True, kw_only=True)
class FailedOf:
    """Failed votes of a model or a persona."""

    name: str
    votes: Tally
    failed: Tally


@dataclass(frozen=True, kw_only=True)
class Missing:
    """What became of the votes without an answer."""

    votes: Tally
    valid: Tally
    failed: Tally
    statuses: Mapping[str, Tally]
    by_criterion: tuple[FailedOfJudge, ...]
    by_model: tuple[FailedOf, ...]
    personas_most_affected: tuple[FailedOf, ...]


@dataclass(frozen=True, kw_only=True)
class VoteCounts:
    """How many votes were counted."""

    votes: Tally
    valid: Tally
    failed: Tally
    superseded: Tally
    """votes under whose key a newer one counts"""


@dataclass(frozen=True, kw_only=True)
class Judges(Result):
    """``judges.json``."""

    judges: tuple[Judge, ...]
    ledgers: tuple[str, ...]
    run: str | None
    """the run whose votes alone were counted"""
    counts: VoteCounts
    position: tuple[ComparedPosition | RankedPosition, ...]
    both_orders: tuple[BothOrders, ...]
    repeats: tuple[ComparedAgain | RankedAgain, ...]
    personas: tuple[PersonaAgreement, ...]
    judges_compared: tuple[JudgesOfComparisons | JudgesOfRankings, ...]
    missing: Missing
    resamples: Tally
    seed: int
