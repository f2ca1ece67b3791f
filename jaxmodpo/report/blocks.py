"""What a report's page is made of: sections of paragraphs, tables, pictures and folded parts.

A section is data and not HTML, so that whoever adds one writes no markup and escapes nothing, and
so that every table also becomes a CSV and a LaTeX file::

    table = Table("toxicity", (Column("model", is_word=True), Column("toxic replies")), rows)
    Section("Toxicity", [Paragraph("Scored by …"), table])

:mod:`~jaxmodpo.report.page` lays sections out, and :mod:`~jaxmodpo.report.sections` lists them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True)
class Paragraph:
    """Sentences: plain ones, faint ones that explain, or a note that must be read first."""

    block: ClassVar = "paragraph"
    text: str
    tone: Literal["plain", "faint", "note"] = "plain"


@dataclass(frozen=True)
class Listing:
    """Sentences in a list, each of which stands alone."""

    block: ClassVar = "listing"
    items: Sequence[str]


@dataclass(frozen=True)
class Heading:
    """A heading inside a section; level 3 is the section's own next one."""

    block: ClassVar = "heading"
    text: str
    level: Literal[3, 4] = 3


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: its heading.
        is_word: whether it holds words, which stand to the left, and not numbers.
        detail: what the small text beside its values is, such as ``95% interval``; it becomes a
            column of its own in files.
    """

    title: str
    is_word: bool = False
    detail: str = ""


@dataclass(frozen=True)
class Cell:
    """A value as text, and what stands beside it in small."""

    text: str
    detail: str = ""


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row is its heading.

    Attributes:
        name: what its CSV and LaTeX files are called, without a suffix.
        columns: one for each cell of a row.
        rows: cells, or texts where there is nothing beside them.
        caption: a sentence under it; empty for none.
    """

    block: ClassVar = "table"
    name: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell | str]]
    caption: str = ""

    @property
    def cells(self) -> Iterator[list[Cell]]:
        """Yield the rows with every text as a cell."""
        for row in self.rows:
            yield [cell if isinstance(cell, Cell) else Cell(cell) for cell in row]


@dataclass(frozen=True)
class Properties:
    """Names and their values, such as a run's settings; it becomes no file."""

    block: ClassVar = "properties"
    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        file: its name beside the page, without a suffix.
        caption: what stands under it.
        alternative: its numbers in words, for readers who do not see it.
        data: its SVG in base64.
        is_broad: whether it is much broader than high, and too small to read on a phone's width.
    """

    block: ClassVar = "picture"
    file: str
    caption: str
    alternative: str
    data: str
    is_broad: bool = False


@dataclass(frozen=True)
class Side:
    """Pictures that stand side by side where the page is wide enough."""

    block: ClassVar = "side"
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Folded:
    """Blocks that a reader unfolds."""

    block: ClassVar = "folded"
    summary: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class ReadyMade:
    """HTML that a module of this room wrote, and escaped, itself: the browser of questions."""

    block: ClassVar = "ready_made"
    html: str


Block = Paragraph | Listing | Heading | Table | Properties | Picture | Side | Folded | ReadyMade


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading of its own."""

    title: str
    blocks: Sequence[Block]


def tables_of(blocks: Sequence[Block]) -> Iterator[Table]:
    """Yield every table, also those that are folded."""
    for block in blocks:
        if isinstance(block, Table):
            yield block
        elif isinstance(block, Folded):
            yield from tables_of(block.blocks)
