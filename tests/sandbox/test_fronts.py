"""``sandbox fronts``: what it makes of several worlds' sweeps.

The experiment itself trains some twenty models a world, half an hour's work; with everything cut
down it still compiles for more than a minute, as the demo's and the sweep's own tests do. Here its
sweeps are made up.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jaxmodpo.errors import UserError
from jaxmodpo.results.fronts import Fronts
from jaxmodpo.results.sweep import Measured, Method, Sweep
from jaxmodpo.results.versioned import read_result, write_result
from jaxmodpo.sandbox.front_comparison import combine, matched_fronts
from jaxmodpo.sandbox.front_report import figure
from jaxmodpo.sandbox.fronts import FrontsConfig, fronts
from jaxmodpo.search.comparison import compare

WEIGHTS = ((0.7, 0.3), (0.3, 0.7))


def point(
    weights: tuple[float, ...] | None, a: float, b: float, kl: float, scale: float = 1.0
) -> Measured:
    questions = ("q0", "q1", "q2")
    return Measured(
        label="x",
        adapter=None,
        scale=scale,
        weights=weights,
        scores={"a": a, "b": b},
        kl=kl,
        kl_standard_error=0.1,
        per_question={"a": dict.fromkeys(questions, a), "b": dict.fromkeys(questions, b)},
    )


def swept(shift: float = 0.0) -> Sweep:
    """MODPO moved further at the first weights, the soup at the second: each is scaled back in its
    turn.
    """
    modpo = [point(WEIGHTS[0], 1.0 + shift, 0.4, 4.0), point(WEIGHTS[1], 0.4, 1.0, 1.0)]
    soup = [point(WEIGHTS[0], 0.9, 0.3, 1.0), point(WEIGHTS[1], 0.3, 0.9, 3.0)]
    matched = [
        (point(WEIGHTS[0], 0.8 + shift, 0.2, 1.02, scale=0.4), soup[0]),
        (modpo[1], point(WEIGHTS[1], 0.25, 0.7, 0.98, scale=0.5)),
    ]
    return compare(["a", "b"], point(None, 0.0, 0.0, 0.0), {"modpo": modpo, "soup": soup}, matched)


def test_points_at_matched_divergence_are_those_that_were_measured():
    points = matched_fronts(swept())
    expected: dict[Method, list[tuple[float, float, float]]] = {
        "modpo": [(0.8, 0.2, 1.02), (0.4, 1.0, 1.0)],
        "soup": [(0.9, 0.3, 1.0), (0.25, 0.7, 0.98)],
    }
    for method, rows in expected.items():
        np.testing.assert_allclose(
            [(p.scores["a"], p.scores["b"], p.kl) for p in points[method]], rows
        )
        assert [p.weights for p in points[method]] == list(WEIGHTS)


def test_fronts_are_drawn_at_equal_weights_and_at_matched_divergence():
    results = combine({"best_worst": [swept(), swept(0.1)], "all_pairs": [swept(0.2), swept(0.3)]})
    arm = results.arms["best_worst"]
    assert arm.fronts["modpo"][0].scores["a"].mean == pytest.approx(1.05)
    assert arm.matched_fronts["modpo"][0].scores["a"].mean == pytest.approx(0.85)
    panels = figure(results).axes
    assert [axes.get_title() for axes in panels] == [
        "best-worst pairs, equal weights", "all pairs, equal weights",
        "best-worst pairs, matched KL", "all pairs, matched KL",
    ]  # fmt: skip
    positions = [axes.containers[0].lines[0].get_xdata().tolist() for axes in panels]  # type: ignore[attr-defined]
    assert positions == [
        pytest.approx(x) for x in ([1.05, 0.4], [1.25, 0.4], [0.85, 0.4], [1.05, 0.4])
    ]


def reordered(sweep: Sweep) -> Sweep:
    """Put every list of a sweep's rows the other way round."""
    assert sweep.equal_weights is not None and sweep.matched_kl is not None
    return replace(
        sweep,
        fronts={method: points[::-1] for method, points in sweep.fronts.items()},
        equal_weights=sweep.equal_weights[::-1],
        matched_kl=sweep.matched_kl[::-1],
    )


def test_sweeps_are_put_together_by_their_weights_and_not_by_their_places():
    straight = combine({"best_worst": [swept(), swept(0.1)], "all_pairs": [swept(0.2), swept(0.3)]})
    turned = combine(
        {
            "best_worst": [swept(), reordered(swept(0.1))],
            "all_pairs": [reordered(swept(0.2)), swept(0.3)],
        }
    )
    assert turned.arms["best_worst"] == straight.arms["best_worst"]
    assert turned.between == straight.between
    whole = swept()
    assert whole.matched_kl is not None
    lacking = replace(whole, matched_kl=whole.matched_kl[:-1])
    second_soup = whole.fronts["soup"][1]
    doubled = replace(whole, fronts={**whole.fronts, "soup": (second_soup, second_soup)})
    for other in (lacking, doubled):
        with pytest.raises(
            UserError, match="compared at equal weights were made at different ones"
        ):
            combine({"best_worst": [swept(), other], "all_pairs": [swept(), swept()]})


def test_the_command_runs_a_world_per_seed_and_puts_them_together(tmp_path, monkeypatch, capsys):
    run: list[tuple[str, str, int]] = []

    def run_experiment(path: Path, folder: Path, seed: int) -> None:
        run.append((path.name, folder.name, seed))
        for arm, shift in (("best_worst", 0.0), ("all_pairs", 0.2)):
            write_result(folder / arm / "sweep.json", swept(shift + seed / 100))

    monkeypatch.setattr("jaxmodpo.sandbox.fronts.run_experiment", run_experiment)
    fronts(FrontsConfig(output_dir=tmp_path, seed=3, seeds=2))
    assert run == [("fronts.yaml", "seed_3", 3), ("fronts.yaml", "seed_4", 4)]
    first, *_ = (
        read_result(tmp_path / "fronts.json", Fronts).arms["all_pairs"].matched_fronts["modpo"]
    )
    assert first.scores["a"].mean == pytest.approx(0.8 + 0.2 + 0.035)
    assert (tmp_path / "fronts.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "all pairs, 2 seeds: hypervolume MODPO" in printed and "| 0.7/0.3 | " in printed
    with pytest.raises(UserError, match="--seeds must be at least 1"):
        fronts(FrontsConfig(output_dir=tmp_path, seeds=0))
