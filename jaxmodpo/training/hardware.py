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
        kinds: as JAX says it, which has several names for some, depending on its version and on
            whether the device is there.
        flops: dense bfloat16 operations a second.
        hbm_gib: memory, GiB.
        bandwidth: memory bytes a second.
        network: bytes a second from other chips, all links together.
        topology: how TPU topologies of it begin, such as ``v5e``; empty for GPUs.
    """

    name: str
    kinds: list[str]
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
    """Return the chip that JAX calls ``kind``, or None.

    Names are compared whole, whatever their capitals and spaces, and with or without the vendor,
    which old drivers leave out. A name that only begins like a known one is another chip: an
    ``NVIDIA H200 NVL`` has other figures, and an ``NVIDIA H100 80GB HBM3 MIG 1g.10gb`` is an eighth
    of one.
    """
    return _chips_by_kind().get(_normalized(kind))


@functools.cache
def _chips_by_kind() -> dict[str, Chip]:
    return {_normalized(kind): chip for chip in chips() for kind in chip.kinds}


def _normalized(kind: str) -> str:
    words = kind.casefold().split()
    if words[:1] == ["nvidia"]:
        words = words[1:]
    return " ".join(words)


def peak_flops(kind: str) -> float | None:
    """Return the bfloat16 operations a second of what JAX calls ``kind``; None where that is not
    known.
    """
    chip = chip_of(kind)
    return chip.flops if chip else None
