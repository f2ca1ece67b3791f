"""The ``demo`` command: the sandbox's experiment, its results in one file, and what they show.

The sandbox's ground truth is known, so the outcome can be checked:
:mod:`jaxmodpo.sandbox.expectations` lists what the methods must deliver there, and what the paper
found. Whether they did is reported, never assumed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxmodpo.config import builtin
from jaxmodpo.experiment import run_experiment
from jaxmodpo.files import read_json, write_json
from jaxmodpo.ranges import Count, Seed, Unestimated
from jaxmodpo.sandbox.expectations import figure_2, required

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DemoConfig(Unestimated, help_group="world"):
    """Run the whole flow in a small synthetic world: seven models, judged head to head."""

    output_dir: Path = Path("out/demo")
    """Folder of everything that is made; the results are results.json and report/report.html."""
    seed: Seed = 0
    """Seed of the first world; each further world has the next number."""
    seeds: Count = 1
    """Number of worlds that are made, one after the other, with the seeds seed, seed + 1, …"""


def demo(config: DemoConfig) -> None:
    """Run ``demo``.

    Raises:
        SystemExit: with code 1 where something that must hold in this world does not.
    """
    config.check()
    started = time.monotonic()
    experiment = builtin(".", "demo")
    results = []
    for seed in range(config.seed, config.seed + config.seeds):
        folder = _world_folder(config, seed)
        run_experiment(experiment, folder, seed)
        results.append(collect_results(folder, seed))
        print(table(results[-1]))
    if config.seeds > 1:
        write_json(config.output_dir / "results.json", mean_of(results))
        print(table(mean_of(results)))
    report = _world_folder(config, config.seed) / "report" / "report.html"
    logger.info("%.0f s in all; open %s", time.monotonic() - started, report)
    required_rows = [row for result in results for row in result["required"]]
    if not all(row["holds"] for row in required_rows):
        raise SystemExit(1)


def _world_folder(config: DemoConfig, seed: int) -> Path:
    """Return the folder of one world: the output folder itself where there is one world alone."""
    return config.output_dir if config.seeds == 1 else config.output_dir / f"seed_{seed}"


def collect_results(out: Path, seed: int) -> dict[str, Any]:
    """Put win rates, KL and malformed rates of one finished world into ``results.json``."""
    results = read_json(out / "evaluation" / "results.json")
    names = list(results["models"])
    results["seed"] = seed
    results["kl"] = {
        name: 0.0 if name == "base" else read_json(out / "kl" / name / "kl.json")["kl"]
        for name in names
    }
    results["malformed"] = {
        name: read_json(out / "check" / name / "malformed.json")["malformed"] for name in names
    }
    results["required"] = [e._asdict() for e in required(results)]
    results["figure_2"] = [e._asdict() for e in figure_2(results)]
    write_json(out / "results.json", results)
    return results


def mean_of(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Average win rates, KL and malformed rates over seeds; the intervals span the seeds' lowest
    and highest rates.
    """

    rates = [result["models"] for result in results]
    return {
        "seeds": [result["seed"] for result in results],
        "models": _per_leaf(rates, _mean),
        "intervals": _per_leaf(rates, _span),
        "pairwise": _per_leaf([result["pairwise"] for result in results], _mean),
        "kl": _per_leaf([result["kl"] for result in results], _mean),
        "malformed": _per_leaf([result["malformed"] for result in results], _mean),
        "required": _expectations_over_seeds([result["required"] for result in results]),
        "figure_2": _expectations_over_seeds([result["figure_2"] for result in results]),
    }


def _per_leaf(trees: list[Any], combine: Callable[[list[float]], Any]) -> Any:
    """Combine the numbers at equal places of nested mappings, one mapping for each seed."""
    if not isinstance(trees[0], Mapping):
        return combine(trees)
    return {key: _per_leaf([tree[key] for tree in trees], combine) for key in trees[0]}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _span(values: list[float]) -> list[float]:
    return [min(values), max(values)]


def _expectations_over_seeds(by_seed: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Put every expectation of several seeds together, by its statement: it holds where it does on
    all of them.
    """
    holds_by_seed = [{row["statement"]: row["holds"] for row in rows} for rows in by_seed]
    rows: list[dict[str, Any]] = []
    for statement in holds_by_seed[0]:
        count = sum(holds[statement] for holds in holds_by_seed)
        figures = f"on {count} of {len(by_seed)} seeds"
        row = {"statement": statement, "holds": count == len(by_seed), "figures": figures}
        rows.append(row)
    return rows


def table(results: Mapping[str, Any]) -> str:
    """Lay out win rates, KL, malformed rates and what they were held against as text."""
    seeds = results.get("seeds", [results.get("seed")])
    lines = [
        "",
        (
            f"Average win rates in the sandbox, seed {', '.join(map(str, seeds))} (rubric judge: no"
            " clinical meaning)"
        ),
        f"{'':<16}{'empathy':>22}{'safety':>22}{'KL, nats':>10}{'malformed':>11}",
    ]
    ordered = sorted(results["models"], key=lambda name: -results["models"][name]["empathy"])
    for name in ordered:
        cells = []
        for criterion in ("empathy", "safety"):
            ends = results["intervals"][name][criterion]
            width = f" [{100 * ends[0]:4.1f}, {100 * ends[1]:4.1f}]" if ends else ""
            cells.append(f"{100 * results['models'][name][criterion]:5.1f}%{width}")
        moved, broken = results["kl"][name], 100 * results["malformed"][name]
        lines.append(f"{name:<16}{cells[0]:>22}{cells[1]:>22}{moved:>10.2f}{broken:>10.1f}%")
    lines += ["", "What a working system shows here:"]
    lines += [_line(e) for e in results["required"]]
    held = sum(e["holds"] for e in results["figure_2"])
    lines += [
        "",
        (
            f"The paper's Figure 2, of which {held} of {len(results['figure_2'])} comparisons hold"
            " here:"
        ),
    ]
    lines += [_line(e) for e in results["figure_2"]]
    return "\n".join(lines)


def _line(expectation: Mapping[str, Any]) -> str:
    figures = f" ({expectation['figures']})" if expectation["figures"] else ""
    return f"  {'holds' if expectation['holds'] else 'does not hold here':<20}{expectation['statement']}{figures}"
