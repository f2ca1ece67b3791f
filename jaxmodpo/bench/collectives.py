"""What devices send each other in a compiled program, counted in its text.

A loop's body stands in the text once, however often it runs. So what stands in loops is counted by
how deep: once a run of the program, once a turn of the outermost loops (a token, for the sampler),
once a turn of the loops within (a layer), and so on. A collective that is done in pieces between
other work stands there once a piece, under one number of a channel, and counts once::

    by_depth(program)      # [{}, {"all-reduce": 5}, {"all-reduce": 2}]: 5 a token, and 2 a layer
"""

from __future__ import annotations

import collections
import re
from collections.abc import Mapping, Sequence

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")
_CALLED = re.compile(r"(?:body|to_apply|calls|branch_computations)=\{?%?([\w.\-]+)")
_OPERATION = re.compile(rf"= .*?\b({'|'.join(KINDS)})(?:-start)?\(.*?channel_id=(\d+)")


def by_depth(program: str) -> list[dict[str, int]]:
    """Count the collectives of a program, outside its loops and within them.

    Args:
        program: the compiled program's text, as XLA prints it.

    Returns:
        How many of each of :data:`KINDS` stand outside all loops, in the outermost ones, in the
        loops within those, and so on; depths without any at the end are left out.
    """
    lines_of = _computations(program)
    # By channel: a collective that is done in pieces has one, and counts once.
    kinds_and_depths: dict[str, tuple[str, int]] = {}
    _note_channels(lines_of.get("ENTRY", []), 0, lines_of, kinds_and_depths)
    counts: list[collections.Counter[str]] = []
    for kind, depth in kinds_and_depths.values():
        # A loop may hold collectives only in the loops within it, so that depths come in any order.
        while len(counts) <= depth:
            counts.append(collections.Counter())
        counts[depth][kind] += 1
    return [dict(counter) for counter in counts]


def _computations(program: str) -> dict[str, list[str]]:
    """Return the lines of every computation by its name; the program's own is ``ENTRY``."""
    lines_of: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in program.splitlines():
        head = _COMPUTATION.match(line)
        if head:
            current = []
            lines_of[head.group(1)] = current
            if line.startswith("ENTRY"):
                lines_of["ENTRY"] = current
        elif line.startswith("}"):
            current = None
        elif current is not None:
            current.append(line)
    return lines_of


def _note_channels(
    lines: Sequence[str],
    depth: int,
    lines_of: Mapping[str, Sequence[str]],
    kinds_and_depths: dict[str, tuple[str, int]],
) -> None:
    """Note the kind and depth of each channel that a computation uses, or what it calls."""
    for line in lines:
        operation = _OPERATION.search(line)
        if operation is not None:
            kind, channel = operation.groups()
            kinds_and_depths[channel] = (kind, depth)
            continue
        # A call of another kind, such as a fusion or a branch, leads no deeper.
        inner_depth = depth + 1 if " while(" in line else depth
        for computation in _CALLED.findall(line):
            _note_channels(lines_of.get(computation, []), inner_depth, lines_of, kinds_and_depths)
