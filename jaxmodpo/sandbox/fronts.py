"""The ``sandbox fronts`` command: MODPO's fronts against the soups' where the true rewards are
known, over seeds.

Each seed is a world of its own: the experiment file ``fronts`` trains both methods over a grid of
weights, once from best-worst pairs and once from all pairs of the same rankings. Here their figures
are put together.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from jaxmodpo.config import builtin
from jaxmodpo.evaluation.fronts import by_weights, hypervolume
from jaxmodpo.experiment import run_experiment
from jaxmodpo.files import atomic_path, read_json, write_json
from jaxmodpo.pages import MARKERS, PALETTE, STYLE, png
from jaxmodpo.ranges import Count, Seed, Unestimated

logger = logging.getLogger(__name__)

LABELS = {"modpo": "MODPO", "soup": "soups"}
ARMS = {"best_worst": "best-worst pairs", "all_pairs": "all pairs"}
KINDS = {"fronts": "equal weights", "matched_fronts": "matched KL"}


@dataclass(frozen=True, kw_only=True)
class FrontsConfig(Unestimated, help_group="world"):
    """Compare MODPO's and soups' fronts from best-worst and from all pairs, over several synthetic
    worlds.
    """

    output_dir: Path = Path("out/fronts")
    """worlds are made in seed_0, seed_1 and so on; fronts.json and fronts.png are the end of it"""
    seed: Seed = 0
    """Seed of the first world; each further world has the next number."""
    seeds: Count = 3
    """Number of worlds that are made, one after the other."""


def fronts(config: FrontsConfig) -> None:
    """Run ``sandbox fronts``; about half an hour a world on two cores, and what is finished is
    kept.
    """
    config.check()
    folders = [
        config.output_dir / f"seed_{seed}"
        for seed in range(config.seed, config.seed + config.seeds)
    ]
    for seed, folder in enumerate(folders, config.seed):
        run_experiment(builtin(".", "fronts"), folder, seed)
    sweeps = {arm: [read_json(folder / arm / "sweep.json") for folder in folders] for arm in ARMS}
    results = combine(sweeps)
    write_json(config.output_dir / "fronts.json", results)
    with atomic_path(config.output_dir / "fronts.png") as temporary:
        temporary.write_bytes(png(figure(results)))
    print(table(results))


def combine(sweeps: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Put the sweeps of several seeds together: means with 95% t intervals over seeds.

    The arms of a seed share their reference point, the lowest score of each objective in any of
    them, so that hypervolumes of different arms can be compared.

    Args:
        sweeps: of two arms, by seed in the same order and over the same weights.

    Returns:
        ``arms``, by name: fronts at equal weights and at matched KL, hypervolumes, and MODPO minus
        soup at either. ``between``: MODPO of the second arm minus either method of the first, by
        hypervolume and weighted score.
    """
    first, second = sweeps
    names = sweeps[first][0]["objectives"]
    places = sweeps[first][0]["fronts"]["modpo"]
    weights = [point["weights"] for point in places]
    scores = {
        (arm, method): [
            [
                [point["scores"][n] for n in names]
                for _, point in by_weights([places, sweep["fronts"][method]])
            ]
            for sweep in of_arm
        ]
        for arm, of_arm in sweeps.items()
        for method in LABELS
    }
    references = [
        [min(sweep["reference_point"][n] for sweep in seed) for n in names]
        for seed in zip(*sweeps.values(), strict=True)
    ]
    volumes = {
        key: [
            hypervolume(front, reference)
            for front, reference in zip(of_seeds, references, strict=True)
        ]
        for key, of_seeds in scores.items()
    }
    weighted = {
        key: np.einsum("spo,po->ps", fronts, weights).tolist() for key, fronts in scores.items()
    }
    ours = (second, "modpo")
    return {
        "arms": {
            arm: _arm(of_arm, {m: volumes[arm, m] for m in LABELS})
            for arm, of_arm in sweeps.items()
        },
        "between": {
            method: {
                "hypervolume": _difference(volumes[ours], volumes[first, method]),
                "weighted": [
                    _difference(own, other)
                    for own, other in zip(weighted[ours], weighted[first, method], strict=True)
                ],
            }
            for method in LABELS
        },
    }


def _arm(
    sweeps: Sequence[Mapping[str, Any]], volumes: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    """Return one arm's figures."""
    names = sweeps[0]["objectives"]
    said: dict[str, Any] = {"objectives": names, "seeds": len(sweeps)}
    said["base"] = {name: _over([s["base"]["scores"][name] for s in sweeps]) for name in names}
    matched = [matched_fronts(sweep) for sweep in sweeps]
    said["fronts"] = {
        method: _front([s["fronts"][method] for s in sweeps], names) for method in LABELS
    }
    said["matched_fronts"] = {
        method: _front([fronts[method] for fronts in matched], names) for method in LABELS
    }
    said["hypervolume"] = {method: _over(values) for method, values in volumes.items()} | {
        "modpo - soup": _difference(volumes["modpo"], volumes["soup"])
    }
    for kind in ("equal_weights", "matched_kl"):
        said[kind] = [
            {
                "weights": rows[0]["weights"],
                "weighted": _over([r["modpo - soup"]["weighted"]["value"] for r in rows]),
                **{name: _over([r["modpo - soup"][name]["value"] for r in rows]) for name in names},
                "kl": {m: _over([r["kl"][m] for r in rows]) for m in LABELS},
            }
            for rows in by_weights([sweep[kind] for sweep in sweeps])
        ]
    return said


def _front(
    of_seeds: Sequence[Sequence[Mapping[str, Any]]], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the mean of each point over seeds."""
    return [
        {
            "weights": points[0]["weights"],
            "scores": {name: _over([p["scores"][name] for p in points]) for name in names},
            "kl": _over([p["kl"] for p in points]),
        }
        for points in by_weights(of_seeds)
    ]


def matched_fronts(sweep: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return both methods' points at matched KL: ``weights``, ``scores`` and ``kl``, in the
    weights' order.

    A sweep keeps what two models differ by once the one that moved further is scaled back. The
    other one is where it was, so that the scaled one's scores follow from the difference.
    """
    fronts: dict[str, list[dict[str, Any]]] = {"modpo": [], "soup": []}
    for row, modpo, soup in by_weights(
        [sweep["matched_kl"], sweep["fronts"]["modpo"], sweep["fronts"]["soup"]]
    ):
        scores = {"modpo": dict(modpo["scores"]), "soup": dict(soup["scores"])}
        for name in sweep["objectives"]:
            apart = row["modpo - soup"][name]["value"]
            if row["scale"]["modpo"] < 1:
                scores["modpo"][name] = scores["soup"][name] + apart
            else:
                scores["soup"][name] = scores["modpo"][name] - apart
        for method, points in fronts.items():
            points.append(
                {"weights": row["weights"], "scores": scores[method], "kl": row["kl"][method]}
            )
    return fronts


def _difference(ours: Iterable[float], theirs: Iterable[float]) -> dict[str, Any]:
    """Return the mean difference over seeds, and on how many it is positive."""
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    return _over(differences) | {"seeds_above": sum(difference > 0 for difference in differences)}


def _over(values: Sequence[float]) -> dict[str, Any]:
    """Return the mean and its t interval."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return {"mean": mean, "interval": None}
    half = float(
        stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    )
    return {"mean": mean, "interval": [mean - half, mean + half]}


def table(results: Mapping[str, Any]) -> str:
    """Lay out hypervolumes and the differences at each weight, as Markdown."""
    lines = []
    for arm, said in results["arms"].items():
        volume = said["hypervolume"]
        lines += [
            "",
            (
                f"{ARMS[arm]}, {said['seeds']} seeds: hypervolume MODPO"
                f" {volume['modpo']['mean']:.4f}, soups {volume['soup']['mean']:.4f}, difference"
                f" {_shown(volume['modpo - soup'], 4)}; MODPO above on"
                f" {volume['modpo - soup']['seeds_above']} seeds"
            ),
            "",
            "| weights | MODPO - soup, weighted score | KL, nats | at matched KL | KL, nats |",
            "|---|---|---|---|---|",
        ]
        for equal, matched in by_weights([said["equal_weights"], said["matched_kl"]]):
            cells = ["/".join(f"{w:.1f}" for w in equal["weights"])]
            for row in (equal, matched):
                cells += [
                    _shown(row["weighted"], 3),
                    f"{row['kl']['modpo']['mean']:.2f} and {row['kl']['soup']['mean']:.2f}",
                ]
            lines.append("| " + " | ".join(cells) + " |")
    first, second = results["arms"]
    rows = results["arms"][second]["equal_weights"]
    heads = ["hypervolume", *("/".join(f"{w:.1f}" for w in row["weights"]) for row in rows)]
    lines += [
        "",
        f"| MODPO from {ARMS[second]} | " + " | ".join(heads) + " |",
        "|---" * (1 + len(heads)) + "|",
    ]
    for method, row in results["between"].items():
        cells = [_shown(row["hypervolume"], 4), *(_shown(value, 3) for value in row["weighted"])]
        lines.append(f"| - {LABELS[method]} from {ARMS[first]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _shown(value: Mapping[str, Any], digits: int) -> str:
    if value["interval"] is None:
        return f"{value['mean']:+.{digits}f}"
    low, high = value["interval"]
    return f"{value['mean']:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


def figure(results: Mapping[str, Any]) -> Figure:
    """Draw the mean fronts of both arms with intervals over seeds: above at equal weights, below at
    matched KL.
    """
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(9.6, 8.4), layout="constrained")
        rows = drawn.subplots(2, len(results["arms"]), sharex=True, sharey=True)
        for axes_of_row, (kind, title) in zip(rows, KINDS.items(), strict=True):
            for axes, (arm, said) in zip(axes_of_row, results["arms"].items(), strict=True):
                _draw(axes, said, kind)
                axes.set_title(f"{ARMS[arm]}, {title}")
        return drawn


def _draw(axes: Axes, said: Mapping[str, Any], kind: str) -> None:
    """Draw both methods' fronts of an arm."""
    x, y = said["objectives"]
    for n, (method, points) in enumerate(said[kind].items()):
        middle = {name: [p["scores"][name]["mean"] for p in points] for name in (x, y)}
        half = {name: [_half(p["scores"][name]) for p in points] for name in (x, y)}
        look = {
            "marker": MARKERS[n],
            "color": PALETTE[n],
            "markersize": 5,
            "linewidth": 1.2,
            "elinewidth": 0.6,
        }
        axes.errorbar(
            middle[x], middle[y], xerr=half[x], yerr=half[y], label=LABELS[method], **look
        )
        for point, px, py in zip(points, middle[x], middle[y], strict=True):
            axes.annotate(
                f"{point['weights'][0]:.1f}",
                (px, py),
                (4, 4),
                textcoords="offset points",
                fontsize=6,
            )
    axes.plot(said["base"][x]["mean"], said["base"][y]["mean"], "kx", label="base")
    axes.set(xlabel=f"true {x}", ylabel=f"true {y}")
    axes.legend(fontsize=7)


def _half(value: Mapping[str, Any]) -> float:
    """Return half an interval's width; 0 where one seed gives none."""
    return value["interval"][1] - value["mean"] if value["interval"] else 0.0
