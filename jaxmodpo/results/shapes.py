"""What the files hold that commands write and other commands read: figures, measurements and
manifests, as shapes.

Written by programs, they may come from another version, another tool, or an editor; whoever reads
one says with :func:`jaxmodpo.files.read_json` and a shape of this module what it relies on.
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
