"""``bench scale``: how costs grow with the number of pairs, the length of sequences, the depth of
the model, the number of adapters and the number of devices.

The exponent says how: 1 is in proportion, 0 not at all. Layers are scanned, so that the time to
compile should hardly grow with the depth.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from jaxmodpo.bench.growth import fitted_exponent
from jaxmodpo.bench.machine import cores_and_load, this_machine
from jaxmodpo.bench.scale_costs import (
    PEAK,
    Costs,
    SamplingSize,
    StepSize,
    data_costs,
    emulated_step_costs,
    sampling_costs,
    step_costs,
)
from jaxmodpo.bench.table import text_table
from jaxmodpo.config import as_mapping
from jaxmodpo.errors import UserError
from jaxmodpo.files import Row, write_json
from jaxmodpo.flags.help_groups import HelpGroup
from jaxmodpo.models.shapes import decoder_shape
from jaxmodpo.ranges import Count, Probability, Seed, Unestimated

Axis = Literal["pairs", "lengths", "layers", "adapters", "devices"]
AXES: tuple[Axis, ...] = ("pairs", "lengths", "layers", "adapters", "devices")


@dataclass(frozen=True, kw_only=True)
class BenchScaleConfig(Unestimated, help_group="measurement"):
    """Measure data preparation, a training step and sampling at several sizes on this machine, and
    fit how their costs grow.
    """

    axes: tuple[Axis, ...] = AXES
    """What is made larger, one after the other, all else staying as it is."""
    pairs: tuple[Count, ...] = (1_000, 4_000, 16_000)
    """Numbers of pairs that are tokenized, put together by question, and packed into batches."""
    lengths: tuple[Count, ...] = (64, 128, 256, 512)
    """Numbers of tokens of both replies of a step's one pair."""
    layers: tuple[Count, ...] = (2, 4, 8, 16)
    """Numbers of layers of a step's model."""
    adapters: tuple[Count, ...] = (1, 2, 4, 8)
    """Numbers of adapters that are sampled side by side, with as many replies in all."""
    devices: tuple[Count, ...] = (1, 2, 4)
    """Numbers of devices that the CPU poses as, for one step of eight pairs."""
    model: Annotated[str, HelpGroup("model")] = "tiny-mistral"
    """Shape of the model: a published model's name, a config.json, or a model folder."""
    lora_rank: Annotated[Count, HelpGroup("model")] = 16
    """Rank of each adapter, which lies on all seven projections."""
    length: Annotated[Count, HelpGroup("batch")] = 64
    """Number of tokens of each reply of a step, where another size is made larger."""
    length_share: Annotated[Probability, HelpGroup("batch")] = 0.25
    """Share of real lengths that the texts of --pairs have."""
    seed: Annotated[Seed, HelpGroup("measurement")] = 0
    """Seed of the texts of --pairs."""
    json: Annotated[Path | None, HelpGroup("output")] = None
    """File for the figures and exponents with the machine, the versions and the settings."""

    def check(self) -> None:
        super().check()
        if not self.axes:
            raise UserError("bench scale needs one of --axes at least")
        for axis in self.axes:
            if not getattr(self, axis):
                raise UserError(f"--{axis} needs one number at least")


@dataclass(frozen=True)
class Growth:
    """How one cost grows along one axis.

    Attributes:
        axis: what is made larger.
        cost: what is measured.
        unit: of the costs: CPU seconds or bytes.
        sizes: along the axis.
        costs: at each of them.
        exponent: p of cost = c sizeᵖ; None of fewer than two sizes.
    """

    axis: Axis
    cost: str
    unit: Literal["CPU seconds", "bytes"]
    sizes: tuple[int, ...]
    costs: tuple[float, ...]
    exponent: float | None


def bench_scale(config: BenchScaleConfig) -> None:
    """Run ``bench scale``.

    Raises:
        UserError: settings out of range, or a step that failed in a process of its own.
    """
    config.check()
    # Refused before minutes have gone by.
    decoder_shape(config.model)
    growths: list[Growth] = []
    for axis in dict.fromkeys(config.axes):
        growths += growth_along(axis, getattr(config, axis), _MEASURES[axis], config)
    print(f"{config.model}, float32, rank {config.lora_rank}, {cores_and_load()}\n")
    print(table(growths))
    if config.json is not None:
        record: Row = {
            "machine": this_machine(),
            "settings": as_mapping(config),
            "growths": [asdict(growth) for growth in growths],
        }
        write_json(config.json, record)


Measure = Callable[[BenchScaleConfig, int], Costs]


def growth_along(
    axis: Axis, sizes: Sequence[int], measure: Measure, config: BenchScaleConfig
) -> Iterator[Growth]:
    """Measure all costs at every size, and yield how each grows."""
    costs_by_size: list[Costs] = []
    for size in sizes:
        print(f"bench scale: {size:,} {axis}", file=sys.stderr)
        costs_by_size.append(measure(config, size))
    for name in costs_by_size[0]:
        values = tuple(costs[name] for costs in costs_by_size)
        yield Growth(
            axis=axis,
            cost=name,
            unit="bytes" if name == PEAK else "CPU seconds",
            sizes=tuple(sizes),
            costs=values,
            exponent=fitted_exponent(sizes, values),
        )


def _pairs(config: BenchScaleConfig, pairs: int) -> Costs:
    return data_costs(pairs, config.model, config.length_share, config.seed)


def _lengths(config: BenchScaleConfig, length: int) -> Costs:
    return step_costs(StepSize(model=config.model, length=length, rank=config.lora_rank))


def _layers(config: BenchScaleConfig, layers: int) -> Costs:
    return step_costs(
        StepSize(model=config.model, layers=layers, length=config.length, rank=config.lora_rank)
    )


def _adapters(config: BenchScaleConfig, adapters: int) -> Costs:
    return sampling_costs(
        SamplingSize(model=config.model, adapters=adapters, rank=config.lora_rank)
    )


def _devices(config: BenchScaleConfig, devices: int) -> Costs:
    size = StepSize(model=config.model, length=config.length, pairs=8, rank=config.lora_rank)
    return emulated_step_costs(size, devices)


_MEASURES: Mapping[Axis, Measure] = {
    "pairs": _pairs,
    "lengths": _lengths,
    "layers": _layers,
    "adapters": _adapters,
    "devices": _devices,
}


def table(growths: Sequence[Growth]) -> str:
    """Return a row for each cost along each axis, with the fitted exponent."""
    rows: list[list[str]] = []
    for growth in growths:
        exponent = "" if growth.exponent is None else f"{growth.exponent:.2f}"
        costs = [_in_words(growth, cost) for cost in growth.costs]
        rows.append(
            [
                growth.axis,
                ", ".join(f"{size:,}" for size in growth.sizes),
                growth.cost,
                ", ".join(costs),
                "MiB" if growth.unit == "bytes" else growth.unit,
                exponent,
            ]
        )
    return text_table(["grows", "sizes", "cost", "at each size", "unit", "exponent"], rows)


def _in_words(growth: Growth, cost: float) -> str:
    if growth.unit == "bytes":
        return f"{cost / 2**20:,.0f}"
    return f"{cost:.3g}"
