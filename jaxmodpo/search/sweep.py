"""``jaxmodpo sweep``: MODPO and soups over a grid of weights from one loaded base, and their
fronts.

References and margins are computed once for all weights, and the step is compiled once. When all
models are trained they are measured on replies sampled from them, several models in one run: each
objective's score, and the divergence from the base.
Since a method may score more only because it moved further, the fronts are also compared at matched
divergence: of two models with the same weights, the one that moved further is scaled back, its
adapter multiplied by a number below 1, until both diverge alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jax

from jaxmodpo.config import named_values
from jaxmodpo.errors import UserError
from jaxmodpo.evaluation.fronts import by_weights, front_figure
from jaxmodpo.files import atomic_path
from jaxmodpo.methods.dpo import DPOConfig, dpo
from jaxmodpo.methods.modpo import MODPOConfig, modpo
from jaxmodpo.methods.soup import SoupConfig, soup
from jaxmodpo.pages import png
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.policy.distributed import open_together
from jaxmodpo.policy.prompts import on_one_day
from jaxmodpo.ranges import values_of
from jaxmodpo.results.sweep import SWEEP, Measured
from jaxmodpo.results.versioned import write_result
from jaxmodpo.search.comparison import compare, sweep_table
from jaxmodpo.search.matching import match
from jaxmodpo.search.measuring import Measure, SweptModel, journal_path, make_scorer
from jaxmodpo.search.sweep_settings import (
    SweepConfig,
    check_soups,
    grid,
    is_adapter,
    objectives_and_scorers,
    point_name,
)
from jaxmodpo.training.session import Session
from jaxmodpo.training.settings import PreferenceTrainingConfig


@in_phase("sweep", open_together)
def sweep(config: SweepConfig, phase: Phase) -> None:
    """Run ``sweep``; models and measurements that are finished are not made again."""
    names, scorers = objectives_and_scorers(config)
    points = grid(config.weights, config.step, len(names))
    if jax.process_count() > 1:
        raise UserError(
            "sweep samples in one process; run it on one host, and 'align modpo' on several"
        )
    check_soups(config, all_inputs_exist=True)
    config = on_one_day(config, phase)
    session = Session()
    makers = {name: make_scorer(path, config) for name, path in scorers.items()}
    measure = Measure(config, makers, session)
    # First, since it shows within a minute whether sampling and scoring work, before hours of
    # training.
    (base,) = measure([SweptModel("base", None, None)])
    models = _train(config, points, session)
    fronts = {method: measure(of_method) for method, of_method in models.items()}
    matched: list[tuple[Measured, Measured]] = []
    if "soup" in fronts and config.match_kl:
        # In pairs of equal weights: only these aim at the same trade-off.
        pairs = by_weights([fronts["modpo"], fronts["soup"]])
        matched = match(measure, [(modpo_point, soup_point) for modpo_point, soup_point in pairs])
    results = compare(names, base, fronts, matched)
    write_result(config.output_dir / SWEEP, results)
    # Three objectives would need a third axis; their table says what a figure could not.
    if len(names) == 2:
        with atomic_path(config.output_dir / "fronts.png") as temporary:
            temporary.write_bytes(
                png(front_figure(results.fronts, (names[0], names[1]), results.base))
            )
    print(sweep_table(results))
    phase.finish(
        work=[journal_path(config)],
        points=len(points),
        objectives=results.objectives,
        hypervolume=results.hypervolume,
    )


def _train(
    config: SweepConfig, points: Sequence[tuple[float, ...]], session: Session
) -> dict[str, list[SweptModel]]:
    """Train MODPO and make a soup at each point; return the models, by method.

    What is finished is not made again, so that a sweep that is cut off loses one training at most.
    """
    soup_adapters = _soup_adapters(config, session)
    models: dict[str, list[SweptModel]] = {"modpo": []}
    if soup_adapters:
        models["soup"] = []
    for weights in points:
        name = point_name(weights)
        adapter = config.output_dir / "modpo" / name / "adapter"
        modpo(_modpo_settings(config, weights, adapter.parent), session)
        models["modpo"].append(SweptModel(f"modpo_{name}", adapter, weights))
        # A soup is made in seconds, of adapters that were trained once for all weights.
        if soup_adapters:
            adapter = config.output_dir / "soup" / name / "adapter"
            soup(
                SoupConfig(
                    adapters=tuple(soup_adapters),
                    weights=weights,
                    output_dir=adapter.parent,
                    model=config.model,
                )
            )
            models["soup"].append(SweptModel(f"soup_{name}", adapter, weights))
    return models


def _modpo_settings(
    config: SweepConfig, weights: tuple[float, ...], output_dir: Path
) -> MODPOConfig:
    """Return the settings of the training at one point of the grid."""
    training = values_of(config, PreferenceTrainingConfig)
    training["output_dir"] = output_dir
    return MODPOConfig(
        **training,
        pairs=config.pairs,
        pairs_per_question=config.pairs_per_question,
        margin=config.margin,
        weights=weights,
        margin_scale=config.margin_scale,
        margin_gain=config.margin_gain,
    )


def _dpo_settings(config: SweepConfig, pairs: Path, output_dir: Path) -> DPOConfig:
    """Return the settings of the training of one objective's adapter, for the soups."""
    training = values_of(config, PreferenceTrainingConfig)
    training["output_dir"] = output_dir
    return DPOConfig(**training, pairs=pairs, pairs_per_question=config.pairs_per_question)


def _soup_adapters(config: SweepConfig, session: Session) -> list[Path]:
    """Return the adapters to average, trained here where pairs were given; none without --soup."""
    adapters: list[Path] = []
    for name, path in named_values(config.soup, "--soup").items():
        if is_adapter(Path(path)):
            adapters.append(Path(path))
            continue
        folder = config.output_dir / "dpo" / name
        dpo(_dpo_settings(config, Path(path), folder), session)
        adapters.append(folder / "adapter")
    return adapters
