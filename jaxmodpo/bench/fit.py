"""``fit``: whether a step fits devices that are not here, how fast it can be at best, and what a
run would take.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from typing import Any

from jaxmodpo.bench.fit_sampling import described_sampling, fit_sampling
from jaxmodpo.bench.fit_search import search
from jaxmodpo.bench.fit_settings import DEFAULT_TOPOLOGY, FitConfig
from jaxmodpo.bench.fit_step import answer
from jaxmodpo.bench.fit_tables import compared, described
from jaxmodpo.errors import UserError
from jaxmodpo.models.shapes import decoder_shape, encoder_shape
from jaxmodpo.policy.mesh import make_mesh
from jaxmodpo.training.ahead import topology_devices
from jaxmodpo.training.fit import Answer

logger = logging.getLogger(__name__)


def fit(config: FitConfig) -> None:
    """Run ``fit``."""
    config.check()
    # A model that is not known is refused here, before the compiler is started.
    if config.step == "reward":
        encoder_shape(config.model)
    else:
        decoder_shape(config.model)
    devices = topology_devices(config.topology, config.target_config)
    logger.info(
        "compiling for %s, %d × %s%s",
        config.topology,
        len(devices),
        devices[0].device_kind,
        ", the default; --topology names others" if config.topology == DEFAULT_TOPOLOGY else "",
    )
    if config.step == "sample":
        print_sampling(config, devices)
        return
    try:
        answers, best = _answers(config, devices)
    except RuntimeError as error:
        if "cuDNN" not in str(error):
            raise
        raise UserError(
            f"{error} It comes with 'jaxmodpo[cuda]'; --attention xla does without"
        ) from error
    if config.json:
        print(json.dumps(dataclasses.asdict(best)))
        return
    if answers:
        print(compared(answers) + "\n")
    print(described(best, config.examples, config.epochs))


def print_sampling(config: FitConfig, devices: list[Any]) -> None:
    """Compile the sampler's loop and print what it needs."""
    sampling = fit_sampling(
        config.model,
        devices,
        topology=config.topology,
        mesh_shape=config.mesh,
        slots=config.batch_size,
        length=config.length,
        lora_rank=config.lora_rank,
        adapters=config.adapters,
        base_dtype=config.base_dtype,
    )
    print(json.dumps(dataclasses.asdict(sampling)) if config.json else described_sampling(sampling))


def _answers(config: FitConfig, devices: list[Any]) -> tuple[list[Answer], Answer]:
    """Return what a search found on each mesh, none without one, and the answer."""
    if not config.search:
        return [], answer(config, make_mesh(config.mesh, devices))
    answers = list(search(config, devices))
    # Where none fits, the fastest that does not still says what is missing.
    candidates = [answer for answer in answers if answer.fits] or answers
    best = max(candidates, key=lambda answer: (answer.questions_per_second, answer.batch_size))
    return answers, best
