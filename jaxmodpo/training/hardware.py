"""What chips can do: ``configs/hardware/chips.yaml``."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from jaxmodpo.config import builtin, load_yaml
from jaxmodpo.ranges import Positive
from jaxmodpo.schema import read_as


@dataclass(frozen=True)
class Chip:
    """One kind of device.

    Attributes:
        name: as people say it.
        kind: as JAX says it.
        flops: dense bfloat16 operations a second.
        hbm_gib: memory, GiB.
        bandwidth: memory bytes a second.
        network: bytes a second from other chips, all links together.
        topology: how TPU topologies of it begin, such as ``v5e``; empty for GPUs.
    """

    name: str
    kind: str
    flops: Positive
    hbm_gib: Positive
    bandwidth: Positive
    network: Positive
    topology: str = ""


@dataclass(frozen=True)
class ChipsFile:
    """A table of chips.

    Attributes:
        chips: one for each kind of device.
    """

    chips: list[Chip]


@functools.cache
def chips() -> tuple[Chip, ...]:
    """Return every chip that is known."""
    path = builtin("hardware", "chips")
    return tuple(read_as(load_yaml(path), ChipsFile, str(path)).chips)


def chip_of(kind: str) -> Chip | None:
    """Return the chip that JAX calls ``kind``, or None."""
    return next((chip for chip in chips() if chip.kind == kind), None)


def peak_flops(kind: str) -> float | None:
    """Return the bfloat16 operations a second of what JAX calls ``kind``; None where that is not
    known.
    """
    chip = chip_of(kind)
    return chip.flops if chip else None
