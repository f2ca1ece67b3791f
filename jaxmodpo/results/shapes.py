"""What the files hold that commands write and other commands read: figures, measurements and
manifests, as shapes.

Written by programs, they may come from another version, another tool, or an editor; whoever reads
one says with :func:`jaxmodpo.files.read_json` and a shape of this module what it relies on.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict

from jaxmodpo.ranges import Tally

Interval = tuple[float, float] | None
"""both ends; null where there is none"""


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
