"""What ``sweep.json`` and the points of a sweep hold, as shapes.

Other results are dataclasses with a version (:mod:`jaxmodpo.results.versioned`). A sweep's are read
with :func:`~jaxmodpo.files.read_json` and a shape of this module, which checks the keys that a
reader relies on.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict

Interval = tuple[float, float] | None
"""both ends; null where there is none"""


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
