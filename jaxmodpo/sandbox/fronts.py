"""The ``sandbox fronts`` command: MODPO's fronts against the soups' where the true rewards are
known, over seeds.

Each seed is a world of its own: the experiment file ``fronts`` trains both methods over a grid of
weights, once from best-worst pairs and once from all pairs of the same rankings.
:mod:`jaxmodpo.sandbox.front_comparison` puts the seeds together,
:mod:`jaxmodpo.sandbox.front_report` shows them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jaxmodpo.config import builtin
from jaxmodpo.experiment import run_experiment
from jaxmodpo.files import atomic_path
from jaxmodpo.pages import png
from jaxmodpo.ranges import Count, Seed, Unestimated
from jaxmodpo.results.fronts import FRONTS
from jaxmodpo.results.sweep import SWEEP, Sweep
from jaxmodpo.results.versioned import read_result, write_result
from jaxmodpo.sandbox.front_comparison import combine
from jaxmodpo.sandbox.front_report import ARMS, figure, fronts_table


@dataclass(frozen=True, kw_only=True)
class FrontsConfig(Unestimated, help_group="world"):
    """Compare MODPO's and soups' fronts from best-worst and from all pairs, over several synthetic
    worlds.
    """

    output_dir: Path = Path("out/fronts")
    """Folder of the worlds, seed_0, seed_1 and so on, and of the results over all of them,
    fronts.json and fronts.png."""
    seed: Seed = 0
    """Seed of the first world; each further world has the next number."""
    seeds: Count = 3
    """Number of worlds that are made, one after the other."""


def fronts(config: FrontsConfig) -> None:
    """Run ``sandbox fronts``; about half an hour a world on two cores, and what is finished is
    kept.
    """
    config.check()
    seeds = range(config.seed, config.seed + config.seeds)
    folders = [config.output_dir / f"seed_{seed}" for seed in seeds]
    for seed, folder in zip(seeds, folders, strict=True):
        run_experiment(builtin(".", "fronts"), folder, seed)
    # By arm and then by seed. All arms have the seeds in one order, since differences are taken
    # within a seed.
    sweeps: dict[str, list[Sweep]] = {}
    for arm in ARMS:
        sweeps[arm] = [read_result(folder / arm / SWEEP, Sweep) for folder in folders]
    results = combine(sweeps)
    write_result(config.output_dir / FRONTS, results)
    with atomic_path(config.output_dir / "fronts.png") as temporary:
        temporary.write_bytes(png(figure(results)))
    print(fronts_table(results))
