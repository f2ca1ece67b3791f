"""Tables that benchmarks print: Markdown, so that they go into documents as they are."""

from __future__ import annotations

from collections.abc import Sequence


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose columns line up."""
    widths: list[int] = []
    for cells_of_column in zip(header, *rows, strict=True):
        widths.append(max(map(len, cells_of_column)))
    rule = ["-" * width for width in widths]
    lines = [_line(cells, widths) for cells in (header, rule, *rows)]
    return "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
    return f"| {' | '.join(padded)} |"
