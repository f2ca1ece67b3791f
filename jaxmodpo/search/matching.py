"""How a sweep brings two models to one divergence from the base: of each pair the one that moved
further is scaled back by bisection, its adapter multiplied by a number below 1.

All pairs are bisected together. Each step measures a model of every pair, so that they share a
sampling run::

    matched = match(measure, [(modpo, soup), …])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxmodpo.results.sweep import Measured
from jaxmodpo.search.measuring import SweptModel
from jaxmodpo.search.sweep_settings import BISECTIONS

CLOSE = 0.05
"""divergences that differ by less than this share count as matched"""

Pair = tuple[Measured, Measured]


def match(
    measure: Callable[[Sequence[SweptModel]], Sequence[Measured]],
    pairs: Sequence[Pair],
    bisections: int = BISECTIONS,
) -> list[Pair]:
    """Return each pair with the model that moved further scaled back, until both diverge alike.

    Args:
        measure: measures models, or reads what was measured of them.
        pairs: of measured models.
        bisections: steps at most.
    """
    searches = [_Bisection(first, second) for first, second in pairs]
    for number in range(bisections):
        if all(search.is_close for search in searches):
            break
        # A pair that is matched already keeps its place, with a model that has its measurement:
        # with one adapter less the run would have another shape and be compiled again.
        results = measure([search.next_model(number) for search in searches])
        for search, measured in zip(searches, results, strict=True):
            search.narrow(measured)
    return [search.pair for search in searches]


@dataclass
class _Bisection:
    """The search for the scale at which one of two models diverges as the other does.

    The divergence grows with the adapter's scale: 0 at scale 0, the model's own at scale 1.

    Attributes:
        first: of the pair.
        second: of the pair.
        low: the largest scale known to diverge less.
        high: the smallest scale known to diverge more.
        scaled: the newest measurement of the model that is scaled back.
    """

    first: Measured
    second: Measured
    low: float = 0.0
    high: float = 1.0
    scaled: Measured | None = None

    @property
    def _is_first_scaled(self) -> bool:
        return self.first.kl > self.second.kl

    @property
    def _far(self) -> Measured:
        return self.first if self._is_first_scaled else self.second

    @property
    def _near(self) -> Measured:
        return self.second if self._is_first_scaled else self.first

    @property
    def _newest(self) -> Measured:
        return self.scaled or self._far

    @property
    def is_close(self) -> bool:
        """Whether both diverge alike."""
        # Near the base a share of the divergence is less than its sampling error; 0.02 nats are
        # matched closely enough by one thousandth.
        difference = abs(self._newest.kl - self._near.kl)
        tolerance = CLOSE * max(self._near.kl, 0.02)
        return difference <= tolerance

    @property
    def pair(self) -> Pair:
        """The pair, as it stands."""
        if self._is_first_scaled:
            return self._newest, self.second
        return self.first, self._newest

    def next_model(self, number: int) -> SweptModel:
        """Return the model to measure in the step of this number; the newest one again where both
        diverge alike.
        """
        far = self._far
        assert far.adapter is not None, far.label
        if self.is_close:
            newest = self._newest
            return SweptModel(newest.label, Path(far.adapter), newest.weights, newest.scale)
        middle = (self.low + self.high) / 2
        return SweptModel(f"{far.label}_scaled_{number}", Path(far.adapter), far.weights, middle)

    def narrow(self, measured: Measured) -> None:
        """Take the measurement of :meth:`next_model`."""
        if self.is_close:
            return
        if measured.kl < self._near.kl:
            self.low = measured.scale
        else:
            self.high = measured.scale
        self.scaled = measured
