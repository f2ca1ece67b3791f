"""Tables as files: CSV for spreadsheets, and LaTeX (with the package ``booktabs``) for papers."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from jaxmodpo.report.blocks import Cell, Column, Table
from jaxmodpo.report.wording import visible

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "–": "--",
    "−": "$-$",
    "α": r"$\alpha$",
    "κ": r"$\kappa$",
    "τ": r"$\tau$",
    "χ": r"$\chi$",
    "²": r"$^2$",
    "\n": " ",
    "\r": " ",
}
"""what LaTeX reads as a command, or has no letter for, and how it is written"""


def csv_of(table: Table) -> str:
    """Write a table as CSV; what stands beside values in small is a column of its own."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
    headings: list[str] = []
    for column in table.columns:
        headings.append(column.title)
        if column.detail:
            headings.append(f"{column.title}: {column.detail}")
    writer.writerow(map(visible, headings))
    for cells in table.cells:
        writer.writerow(map(visible, _fields(table.columns, cells)))
    return file.getvalue()


def _fields(columns: Sequence[Column], cells: Sequence[Cell]) -> list[str]:
    fields: list[str] = []
    for column, cell in zip(columns, cells, strict=True):
        fields.append(cell.text)
        if column.detail:
            fields.append(cell.detail)
    return fields


def latex_of(table: Table) -> str:
    """Write a table as a LaTeX ``tabular`` that a paper can input."""
    alignment = "".join("l" if column.is_word else "r" for column in table.columns)
    headings = [latex_text(column.title) for column in table.columns]
    lines = [
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        " & ".join(headings) + r" \\",
        r"\midrule",
    ]
    for cells in table.cells:
        lines.append(" & ".join(map(_latex_cell, cells)) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def _latex_cell(cell: Cell) -> str:
    text = latex_text(cell.text)
    return rf"{text} {{\footnotesize {latex_text(cell.detail)}}}" if cell.detail else text


def latex_text(text: str) -> str:
    """Escape a text so that LaTeX sets it as it is."""
    return "".join(_LATEX.get(character, character) for character in visible(text))
