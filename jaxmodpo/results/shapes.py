"""What the files hold that commands write and other commands read: figures, measurements and
manifests, as shapes.

Written by programs, they may come from another version, another tool, or an editor; whoever reads
one says with :func:`jaxmodpo.files.read_json` and a shape of this module what it relies on.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

from jaxmodpo.ranges import Tally

Interval = tuple[float, float] | None
"""both ends; null where there is none"""


# --------------------------------------------------------------------------- results.json of
# evaluate


class Test(TypedDict):
    """McNemar's test of two models; what a file of an earlier version lacks is computed from the
    counts.
    """

    a: str
    b: str
    wins: Tally
    losses: Tally
    ties: NotRequired[Tally]
    statistic: NotRequired[float]
    p_value: NotRequired[float]
    p_value_corrected: NotRequired[float]
    p_value_exact: NotRequired[float]
    decisive: NotRequired[Literal["p_value", "p_value_exact"]]
    average_difference: NotRequired[float]
    average_difference_interval: NotRequired[Interval]


class Judged(TypedDict):
    """How many questions one comparison has."""

    criterion: str
    a: str
    b: str
    judged: Tally


class Results(TypedDict):
    """``results.json``."""

    models: dict[str, dict[str, float]]
    intervals: dict[str, dict[str, Interval]]
    pairwise: dict[str, dict[str, dict[str, float]]]
    tests: dict[str, list[Test]]
    counts: dict[str, Any]
    criteria: list[str]
    questions: Tally
    questions_judged: NotRequired[Tally]
    questions_judged_by_comparison: NotRequired[list[Judged]]
    empty_replies: NotRequired[dict[str, Tally]]
    replies_per_question: Tally
    judge: str
    note: NotRequired[str]
    kl: NotRequired[dict[str, float]]
    malformed: NotRequired[dict[str, float]]


class OfModels(TypedDict):
    """What any ``results.json`` may say of models besides an evaluation's figures."""

    kl: NotRequired[dict[str, float]]
    malformed: NotRequired[dict[str, float]]


class Divergence(TypedDict):
    """``kl.json``: nats per reply."""

    model: NotRequired[str]
    kl: float


class Malformed(TypedDict):
    """``malformed.json``: a share of replies."""

    malformed: float


# --------------------------------------------------------------------------- validation.json of
# reward


class Bin(TypedDict):
    """Pairs of which the model is about equally sure."""

    pairs: Tally
    probability: float
    agreement: float


class Calibration(TypedDict):
    """How often pairs agree that the model is this sure of."""

    bins: list[Bin]
    expected_calibration_error: float


class Histogram(TypedDict):
    """Rewards of one kind of reply, by bin."""

    histogram: list[float]


class Rewards(TypedDict):
    """How rewards are distributed."""

    histogram_edges: list[float]
    best: Histogram
    worst: Histogram


class Accuracy(TypedDict):
    """Of pairs of every two replies."""

    pairs: Tally
    accuracy: float


class Validation(TypedDict):
    """``validation.json``."""

    pairs: Tally
    accuracy: float
    accuracy_interval: Interval
    all_pairs: NotRequired[Accuracy]
    calibration: Calibration
    rewards: Rewards
    measured_in: NotRequired[str]


# --------------------------------------------------------------------------- sweep.json and its
# points


class Point(TypedDict):
    """One model of a sweep, measured."""

    weights: list[float]
    scores: dict[str, float]
    kl: float


class Base(TypedDict):
    """The base model, measured."""

    scores: dict[str, float]
    kl: NotRequired[float]


class Hypervolume(TypedDict):
    """Of one method's front."""

    value: float
    interval: tuple[float, float]


class Sweep(TypedDict):
    """``sweep.json``."""

    objectives: list[str]
    base: Base
    fronts: dict[str, list[Point]]
    hypervolume: dict[str, Hypervolume]


class Measured(TypedDict):
    """A file below ``points/``, kept so that no model is measured twice."""

    label: str
    adapter: str | None
    scale: float
    weights: list[float] | None
    scores: dict[str, float]
    kl: float
    # By score and question; early versions wrote the values alone, which are measured again.
    per_question: dict[str, dict[str, float] | list[float]]


# --------------------------------------------------------------------------- judges.json


class Estimate(TypedDict):
    """A value with its interval; null where it is undefined."""

    value: float | None
    interval: Interval
    undefined: NotRequired[str]


class Mean(TypedDict):
    """A value that is always there, with its interval."""

    value: float
    interval: Interval


class Row(TypedDict):
    """Whose votes a row counts."""

    judge: str
    shown: Tally
    criterion: str


class ComparedPosition(Row):
    """What being shown first does to comparisons."""

    kind: Literal["compare"]
    votes: Tally
    first_share: Estimate
    effect: Estimate


class RankedPosition(Row):
    """What the position shown does to rankings."""

    kind: Literal["rank"]
    votes: Tally
    units: Tally
    units_in_one_order: Tally
    mean_ranks: list[Mean]
    p_value: float | None


class BothOrders(Row):
    """Whether personas kept to their verdicts."""

    kind: Literal["compare"]
    consistent: Estimate


class ComparedAgain(Row):
    """Comparisons asked twice."""

    kind: Literal["compare"]
    same: Estimate


class RankedAgain(Row):
    """Rankings asked twice."""

    kind: Literal["rank"]
    tau: Estimate


class Personas(Row):
    """How far personas agree."""

    kind: Literal["compare", "rank"]
    alpha: Estimate


class ComparedVotes(TypedDict):
    """Comparisons that two judges share."""

    shared: Tally
    raw: Estimate
    agreement: Estimate
    kappa: Estimate
    ac1: Estimate


class RankedVotes(TypedDict):
    """Rankings that two judges share."""

    shared: Tally
    tau: Estimate
    same_best: Estimate


class Compared(TypedDict):
    """Two judges' comparisons."""

    a: str
    b: str
    kind: Literal["compare"]
    shown: Tally
    criterion: str
    votes: ComparedVotes
    majorities: ComparedVotes


class Ranked(TypedDict):
    """Two judges' rankings."""

    a: str
    b: str
    kind: Literal["rank"]
    shown: Tally
    criterion: str
    votes: RankedVotes
    majorities: RankedVotes


class Judge(TypedDict):
    """A judge, and how many of its votes are valid."""

    name: str
    identity: str
    valid_votes: Tally


class Failed(TypedDict):
    """Failed votes of a judge by a criterion."""

    judge: str
    criterion: str
    votes: Tally
    failed: Tally
    failed_share: Estimate
    statuses: dict[str, Tally]


class Affected(TypedDict):
    """Failed votes of a model or a persona."""

    name: str
    votes: Tally
    failed: Tally


class Missing(TypedDict):
    """What became of the votes without an answer."""

    failed: Tally
    statuses: dict[str, Tally]
    by_criterion: list[Failed]
    by_model: list[Affected]
    personas_most_affected: list[Affected]


class Judges(TypedDict):
    """``judges.json``."""

    judges: list[Judge]
    counts: dict[str, Any]
    position: list[ComparedPosition | RankedPosition]
    both_orders: list[BothOrders]
    repeats: list[ComparedAgain | RankedAgain]
    personas: list[Personas]
    judges_compared: list[Compared | Ranked]
    missing: Missing
