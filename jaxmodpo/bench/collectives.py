"""What devices send each other in a compiled program, counted in its text.

A loop's body stands in the text once, however often it runs. Loops whose number of turns the
compiler knows, such as the one over layers, count so many times; the outermost loop, of tokens or
updates, is what is counted for one turn of.
"""

from __future__ import annotations

import collections
import re

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")
_CALLED = re.compile(r"(?:body|to_apply|calls|branch_computations)=\{?%?([\w.\-]+)")
_TURNS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_OPERATION = re.compile(rf"= .*?\b({'|'.join(KINDS)})(-start)?\(")


def per_turn(program: str) -> dict[str, int]:
    """Count the collectives of one turn of a program's outermost loops.

    Args:
        program: the compiled program's text, as XLA prints it.

    Returns:
        How many of each of :data:`KINDS` there are, those of none left out.
    """
    lines_of = _computations(program)
    entry = lines_of.get("ENTRY", [])
    counts: collections.Counter[str] = collections.Counter()
    for line in entry:
        if " while(" in line and (body := _CALLED.search(line)):
            counts += _counted(body.group(1), lines_of)
    return dict(counts)


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


def _counted(name: str, lines_of: dict[str, list[str]]) -> collections.Counter[str]:
    """Count what a computation and those that it calls send."""
    counts: collections.Counter[str] = collections.Counter()
    for line in lines_of.get(name, []):
        operation = _OPERATION.search(line)
        if operation:
            counts[operation.group(1)] += 1
            continue
        turns = 1
        if " while(" in line and (known := _TURNS.search(line)):
            turns = int(known.group(1))
        for called in _CALLED.findall(line):
            for kind, count in _counted(called, lines_of).items():
                counts[kind] += turns * count
    return counts
