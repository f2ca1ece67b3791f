"""The ``demo`` command: the sandbox's experiment, its results in one file, and what they show.

The sandbox's ground truth is known, so the outcome can be checked:
:mod:`jaxmodpo.sandbox.expectations` lists what the methods must deliver there, and what the paper
found. Whether they did is reported, never assumed.
"""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxmodpo.config import builtin
from jaxmodpo.experiment import run_experiment
from jaxmodpo.ranges import Count, Seed, Unestimated
from jaxmodpo.results.demo import Expectation, WorldMeans, WorldResults
from jaxmodpo.results.evaluation import RESULTS, EvaluationResults
from jaxmodpo.results.measures import DIVERGENCE, MALFORMED, Divergence, Malformed
from jaxmodpo.results.versioned import read_result, write_result
from jaxmodpo.sandbox.expectations import CRITERIA, figure_2, required

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
    _compile_briefly()
    experiment = builtin(".", "demo")
    results: list[WorldResults] = []
    for seed in range(config.seed, config.seed + config.seeds):
        folder = _world_folder(config, seed)
        run_experiment(experiment, folder, seed)
        world = collect_results(folder, seed)
        results.append(world)
        print(demo_table(world))
    if config.seeds > 1:
        means = mean_of(results)
        write_result(config.output_dir / RESULTS, means)
        print(demo_table(means))
    report = _world_folder(config, config.seed) / "report" / "report.html"
    logger.info("%.0f s in all; open %s", time.monotonic() - started, report)
    # Only what must hold ends the demo with an error, and only once everything has been shown. What
    # the paper found elsewhere may come out otherwise in this world.
    if not all(_as_required(world) for world in results):
        raise SystemExit(1)


def _compile_briefly() -> None:
    """Have XLA optimize less, unless the user has said how much.

    Compiling takes a third of a small world's time. At this level it takes two thirds as long, and
    an update of these models takes no longer. Heard of only where no program has been compiled yet.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_backend_optimization_level" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_backend_optimization_level=1".strip()


def _world_folder(config: DemoConfig, seed: int) -> Path:
    """Return the folder of one world: the output folder itself where there is one world alone."""
    return config.output_dir if config.seeds == 1 else config.output_dir / f"seed_{seed}"


def _as_required(results: WorldResults) -> bool:
    return all(expectation.holds for expectation in results.required)


def collect_results(out: Path, seed: int) -> WorldResults:
    """Put win rates, KL and malformed rates of one finished world into ``results.json``."""
    evaluation = read_result(out / "evaluation" / RESULTS, EvaluationResults)
    divergences: dict[str, float] = {}
    malformed: dict[str, float] = {}
    for name in evaluation.models:
        # The base is what divergences are measured from, so the experiment has no file of its own.
        divergences[name] = 0.0
        if name != "base":
            divergences[name] = read_result(out / "kl" / name / DIVERGENCE, Divergence).kl
        malformed[name] = read_result(out / "check" / name / MALFORMED, Malformed).malformed
    results = WorldResults(
        **vars(evaluation),
        seed=seed,
        kl=divergences,
        malformed=malformed,
        required=tuple(required(evaluation, malformed)),
        figure_2=tuple(figure_2(evaluation)),
    )
    write_result(out / RESULTS, results)
    return results


# --------------------------------------------------------------------------- over seeds


def mean_of(results: Sequence[WorldResults]) -> WorldMeans:
    """Average win rates, KL and malformed rates over seeds; the intervals span the seeds' lowest
    and highest rates.
    """
    rates = [world.models for world in results]
    return WorldMeans(
        seeds=tuple(world.seed for world in results),
        models=_combine(rates, _mean),
        intervals=_combine(rates, _span),
        pairwise=_combine([world.pairwise for world in results], _mean),
        kl=_combine([world.kl for world in results], _mean),
        malformed=_combine([world.malformed for world in results], _mean),
        required=_over_seeds([world.required for world in results]),
        figure_2=_over_seeds([world.figure_2 for world in results]),
    )


def _combine(trees: Sequence[Any], combine: Callable[[Sequence[float]], Any]) -> Any:
    """Combine the numbers at equal places of nested mappings, one mapping for each seed."""
    # Where the first seed has a number all have one: worlds of one experiment have the same models
    # and criteria.
    if not isinstance(trees[0], Mapping):
        return combine(trees)
    combined: dict[str, Any] = {}
    for key in trees[0]:
        combined[key] = _combine([tree[key] for tree in trees], combine)
    return combined


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _span(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _over_seeds(by_seed: Sequence[Sequence[Expectation]]) -> tuple[Expectation, ...]:
    """Put every expectation of several seeds together, by its statement: it holds where it does on
    all of them.
    """
    seeds_that_hold: dict[str, int] = {}
    for expectation in itertools.chain.from_iterable(by_seed):
        earlier = seeds_that_hold.get(expectation.statement, 0)
        seeds_that_hold[expectation.statement] = earlier + expectation.holds
    combined: list[Expectation] = []
    for statement, count in seeds_that_hold.items():
        # The figures of single seeds stand in the files of their worlds.
        figures = f"on {count} of {len(by_seed)} seeds"
        holds_everywhere = count == len(by_seed)
        combined.append(Expectation(statement=statement, holds=holds_everywhere, figures=figures))
    return tuple(combined)


# --------------------------------------------------------------------------- the table


def demo_table(results: WorldResults | WorldMeans) -> str:
    """Lay out win rates, KL, malformed rates and what they were held against as text."""
    seeds = ", ".join(map(str, results.seeds))
    heads = "".join(f"{criterion:>22}" for criterion in CRITERIA)
    lines = [
        "",
        f"Average win rates in the sandbox, seed {seeds} (rubric judge: no clinical meaning)",
        f"{'':<16}{heads}{'KL, nats':>10}{'malformed':>11}",
    ]
    for name in _by_empathy(results):
        lines.append(_model_line(results, name))
    lines += ["", "What a working system shows here:"]
    lines += map(_line, results.required)
    comparisons = len(results.figure_2)
    count = sum(expectation.holds for expectation in results.figure_2)
    lines += [
        "",
        f"The paper's Figure 2, of which {count} of {comparisons} comparisons hold here:",
    ]
    lines += map(_line, results.figure_2)
    return "\n".join(lines)


def _by_empathy(results: WorldResults | WorldMeans) -> list[str]:
    """Return the models' names, the one that wins most by empathy first."""

    def losses(name: str) -> float:
        return -results.models[name]["empathy"]

    return sorted(results.models, key=losses)


def _model_line(results: WorldResults | WorldMeans, name: str) -> str:
    """Return a model's win rates with their intervals, its divergence and its malformed rate."""
    cells: list[str] = []
    for criterion in CRITERIA:
        interval = results.intervals[name][criterion]
        width = ""
        if interval is not None:
            low, high = interval
            width = f" [{100 * low:4.1f}, {100 * high:4.1f}]"
        rate = f"{100 * results.models[name][criterion]:5.1f}%{width}"
        cells.append(f"{rate:>22}")
    malformed = 100 * results.malformed[name]
    return f"{name:<16}{''.join(cells)}{results.kl[name]:>10.2f}{malformed:>10.1f}%"


def _line(expectation: Expectation) -> str:
    verdict = "holds" if expectation.holds else "does not hold here"
    figures = f" ({expectation.figures})" if expectation.figures else ""
    return f"  {verdict:<20}{expectation.statement}{figures}"
