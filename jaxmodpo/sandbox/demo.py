"""The ``demo`` command: the sandbox's experiment, its results in one file, and what they should show.

The sandbox's ground truth is known, so the outcome can be checked: :func:`expectations` lists what the
methods must deliver there. Whether they did is reported, never assumed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jaxmodpo.artifacts import read_json, write_json
from jaxmodpo.config import builtin
from jaxmodpo.experiment import run_experiment
from jaxmodpo.ranges import Count, Seed, Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DemoConfig(Settings):
    """Run the whole flow in a small synthetic world: seven models, judged head to head."""

    output_dir: Path = Path("out/demo")
    """everything is written here; results.json and report/report.html are the end of it"""
    seed: Seed = 0
    """the first world's seed"""
    seeds: Count = 1
    """worlds, one after the other, with seeds seed, seed + 1, …"""


class Expectation(NamedTuple):
    """One statement about the outcome, and whether it holds."""

    statement: str
    holds: bool


def demo(config: DemoConfig) -> None:
    """Run ``demo``."""
    config.check()
    started = time.monotonic()
    experiment = builtin(".", "demo")
    results = []
    for seed in range(config.seed, config.seed + config.seeds):
        out = config.output_dir if config.seeds == 1 else config.output_dir / f"seed_{seed}"
        run_experiment(experiment, out, seed)
        results.append(collect_results(out, seed))
        print(table(results[-1]))
    if config.seeds > 1:
        write_json(config.output_dir / "results.json", mean_of(results))
        print(table(mean_of(results)))
    logger.info("%.0f s in all; open %s", time.monotonic() - started, _report(config))


def _report(config: DemoConfig) -> Path:
    folder = config.output_dir if config.seeds == 1 else config.output_dir / f"seed_{config.seed}"
    return folder / "report" / "report.html"


def collect_results(out: Path, seed: int) -> dict[str, Any]:
    """Put win rates, KL and malformed rates of one finished world into ``results.json``."""
    results = read_json(out / "evaluation" / "results.json")
    names = list(results["models"])
    results["seed"] = seed
    results["kl"] = {name: 0.0 if name == "base" else read_json(out / "kl" / name / "kl.json")["kl"] for name in names}
    results["malformed"] = {name: read_json(out / "check" / name / "malformed.json")["malformed"] for name in names}
    results["expectations"] = [e._asdict() for e in expectations(results)]
    write_json(out / "results.json", results)
    return results


def expectations(results: Mapping[str, Any]) -> list[Expectation]:
    """State what a working system shows in this world.

    Intervals are 95% bootstrap intervals over test questions; "apart" means that they do not overlap. Of a single
    question there is none: the rate may be anything from 0 to 1.
    """
    rates = results["models"]
    intervals = {
        name: {criterion: ends or [0.0, 1.0] for criterion, ends in by_criterion.items()}
        for name, by_criterion in results["intervals"].items()
    }

    def empathy(name: str) -> float:
        return rates[name]["empathy"]

    def apart(better: str, worse: str) -> bool:
        return intervals[better]["safety"][0] > intervals[worse]["safety"][1]

    def between(criterion: str) -> bool:
        ends = sorted(rates[name][criterion] for name in ("dpo_empathy", "dpo_safety"))
        return ends[0] <= rates["dpo_soup"][criterion] <= ends[1]

    others = [name for name in rates if name not in ("dpo_empathy", "modpo_empathy")]
    tie = intervals["modpo_empathy"]["empathy"][0] <= intervals["dpo_empathy"]["empathy"][1]
    aligned = [name for name in rates if name not in ("base", "dpo_safety")]
    return [
        Expectation(
            "dpo_empathy is best on empathy (modpo_empathy may tie it)",
            all(empathy("dpo_empathy") > empathy(name) for name in others)
            and (empathy("dpo_empathy") > empathy("modpo_empathy") or tie),
        ),
        Expectation(
            "modpo_empathy is above dpo_empathy on safety, intervals apart", apart("modpo_empathy", "dpo_empathy")
        ),
        Expectation(
            "joint_loss_dpo is above dpo_empathy on safety, intervals apart", apart("joint_loss_dpo", "dpo_empathy")
        ),
        Expectation(
            "every aligned model but dpo_safety is above base on empathy",
            all(empathy(name) > empathy("base") for name in aligned),
        ),
        Expectation("dpo_soup lies between the two DPOs on both criteria", between("empathy") and between("safety")),
    ]


def mean_of(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Average win rates, KL and malformed rates over seeds; the intervals span the seeds' lowest and highest rates."""

    def over(values: list[Any]) -> Any:
        if isinstance(values[0], Mapping):
            return {key: over([value[key] for value in values]) for key in values[0]}
        return sum(values) / len(values)

    def span(values: list[Any]) -> Any:
        if isinstance(values[0], Mapping):
            return {key: span([value[key] for value in values]) for key in values[0]}
        return [min(values), max(values)]

    of_seeds = [{said["statement"]: said["holds"] for said in result["expectations"]} for result in results]
    return {
        "seeds": [result["seed"] for result in results],
        "models": over([result["models"] for result in results]),
        "intervals": span([result["models"] for result in results]),
        "pairwise": over([result["pairwise"] for result in results]),
        "kl": over([result["kl"] for result in results]),
        "malformed": over([result["malformed"] for result in results]),
        "expectations": [
            Expectation(statement, all(holds[statement] for holds in of_seeds))._asdict() for statement in of_seeds[0]
        ],
    }


def table(results: Mapping[str, Any]) -> str:
    """Lay out win rates, KL, malformed rates and the expectations as text."""
    seeds = results.get("seeds", [results.get("seed")])
    lines = [
        "",
        f"Average win rates in the sandbox, seed {', '.join(map(str, seeds))} (rubric judge: no clinical meaning)",
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
    lines.append("")
    lines += [f"  {'yes' if e['holds'] else 'NO '}  {e['statement']}" for e in results["expectations"]]
    return "\n".join(lines)
