"""Bringing pairs of models to one divergence, with a measure in the sampler's place."""

from __future__ import annotations

from collections.abc import Sequence

from jaxmodpo.results.sweep import Measured
from jaxmodpo.search.matching import match
from jaxmodpo.search.measuring import SweptModel


def measured(label: str, kl: float, scale: float = 1.0) -> Measured:
    return Measured(
        label=label,
        adapter=f"folder/{label}",
        scale=scale,
        weights=(0.5, 0.5),
        scores={},
        kl=kl,
        kl_standard_error=None,
        per_question={},
    )


class Measurements:
    """Measures models whose divergence is their own times the square of the scale."""

    def __init__(self, kl_of_adapter: dict[str, float]):
        self.kl_of_adapter = kl_of_adapter
        self.runs: list[list[str]] = []

    def __call__(self, models: Sequence[SweptModel]) -> list[Measured]:
        self.runs.append([model.label for model in models])
        return [
            measured(
                model.label,
                self.kl_of_adapter[str(model.adapter)] * model.scale**2,
                model.scale,
            )
            for model in models
        ]


def test_pairs_are_bisected_together_and_each_as_if_it_were_alone():
    kl_of_adapter = {"folder/a": 4.0, "folder/b": 1.0, "folder/c": 1.0, "folder/d": 1.9}
    pairs = [
        (measured("a", 4.0), measured("b", 1.0)),
        (measured("c", 1.0), measured("d", 1.9)),
    ]
    together = Measurements(kl_of_adapter)
    matched = match(together, pairs)
    for pair, result in zip(pairs, matched, strict=True):
        assert match(Measurements(kl_of_adapter), [pair]) == [result]
    # The first is matched at one half. It keeps its place, with the model that is measured.
    (first, near_first), (near_second, second) = matched
    assert (first.label, first.scale, first.kl) == ("a_scaled_0", 0.5, 1.0)
    assert (near_first.label, near_second.label) == ("b", "c")
    assert abs(second.kl - 1.0) <= 0.05 and second.label.startswith("d_scaled_")
    assert together.runs[0] == ["a_scaled_0", "d_scaled_0"]
    assert together.runs[1:] == [["a_scaled_0", f"d_scaled_{n}"] for n in range(1, 5)]


def test_pairs_that_diverge_alike_are_left_as_they_are():
    pairs = [(measured("a", 1.0), measured("b", 1.02))]
    measurements = Measurements({})
    assert match(measurements, pairs) == pairs and measurements.runs == []


def test_a_bisection_ends_after_its_last_step():
    measurements = Measurements({"folder/a": 4.0})
    pairs = [(measured("a", 4.0), measured("b", 3.3))]
    ((scaled, _),) = match(measurements, pairs, bisections=2)
    assert scaled.scale == 0.75 and len(measurements.runs) == 2
