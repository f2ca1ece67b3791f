"""The files beside a report's page: figures as SVG and PDF, tables as CSV and LaTeX.

A figure is drawn once and kept in both formats. The page shows the SVG as an image of its own, so
that nothing inside can reach the page, and names inside two figures cannot meet.
"""

from __future__ import annotations

import base64
import io
import re
import warnings
from dataclasses import dataclass, field
from typing import Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter
from matplotlib.transforms import Bbox

from jaxmodpo.pages import STYLE
from jaxmodpo.report.blocks import Picture, Table
from jaxmodpo.report.table_files import csv_of, latex_of
from jaxmodpo.report.wording import shortened, visible

# Letters become outlines: the figure looks the same where its font is missing. The salt is what
# the names of an SVG's parts are made of, which would otherwise be drawn by chance.
_VECTOR: dict[Any, Any] = {"svg.fonttype": "path", "svg.hashsalt": "jaxmodpo", "pdf.fonttype": 42}
_NAME = 32
_SENTENCE = 110
"""characters of a name, and of a line of any other text, that a figure has room for"""
_ENLARGED = 1.4
_ENLARGEMENTS = 4
"""by how much a figure whose names take all its room is enlarged at a time, and how often at
most"""
_UNDATED = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


@dataclass
class Gallery:
    """The contents of files by name."""

    files: dict[str, bytes] = field(default_factory=dict)
    figures: int = 0
    _stems: set[str] = field(default_factory=set)

    def add(self, name: str, figure: Figure, caption: str, alternative: str = "") -> Picture:
        """Keep a figure under file names made from ``name``; return what the page needs to show it.

        Args:
            name: of the figure.
            figure: what is drawn.
            caption: what stands under it.
            alternative: its numbers in words; the caption where it says enough.
        """
        stem = self._free_stem(name)
        _tame_texts(figure)
        area = _area_of(figure)
        svg = _render(figure, "svg", area)
        self.files[f"{stem}.svg"] = svg
        self.files[f"{stem}.pdf"] = _render(figure, "pdf", area)
        self.figures += 1
        width, height = figure.get_size_inches()
        return Picture(
            file=stem,
            caption=caption,
            alternative=alternative or caption,
            data=base64.b64encode(svg).decode(),
            is_broad=bool(width > 1.3 * height),
        )

    def add_table(self, table: Table) -> None:
        """Keep a table as CSV and LaTeX."""
        stem = self._free_stem(table.name)
        self.files[f"{stem}.csv"] = csv_of(table).encode()
        self.files[f"{stem}.tex"] = latex_of(table).encode()

    def _free_stem(self, name: str) -> str:
        # Names of models and criteria are the user's: none may lead out of the folder, or into
        # another file system's reserved characters, or be longer than its names may be.
        stem = re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-.")[:100] or "unnamed"
        free = stem
        number = 1
        # Two names may differ only in characters that a file name cannot have, or in case alone.
        while free.lower() in self._stems:
            number += 1
            free = f"{stem}-{number}"
        self._stems.add(free.lower())
        return free


def _tame_texts(figure: Figure) -> None:
    """Shorten very long names, which would leave no room for the figure, and show characters that
    cannot be seen, of which some would make the SVG no XML.
    """
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            formatter = axis.get_major_formatter()
            # Labels are made anew of the formatter's texts when the figure is drawn.
            if isinstance(formatter, FixedFormatter):
                labels = [shortened(visible(str(label)), _NAME) for label in formatter.seq]
                axis.set_major_formatter(FixedFormatter(labels))
    names = {text for axes in figure.axes for text in axes.texts}
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        longest = _NAME if text in names else _SENTENCE
        lines = visible(text.get_text()).split("\n")
        text.set_text("\n".join(shortened(line, longest) for line in lines))


def _area_of(figure: Figure) -> Bbox:
    """Lay a figure out for good, and return the area of all that is drawn, in inches.

    Once for both formats: saving would lay it out anew each time, which takes longer than drawing.
    """
    with matplotlib.rc_context({**STYLE, **_VECTOR}):
        # Measured as both formats draw letters: as outlines, in points.
        FigureCanvasSVG(figure)
        figure.set_dpi(72)
        _lay_out(figure)
        # None, and not "none": with a placeholder for an engine, saving draws the figure once more.
        figure.set_layout_engine(None)
        # A long name makes the picture larger, and is not cut at its edge.
        return figure.get_tightbbox().padded(0.05)


def _lay_out(figure: Figure) -> None:
    """Give the axes their places; in a larger figure where its names leave no room for them."""
    for _ in range(_ENLARGEMENTS):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            _give_places(figure)
        # Matplotlib says it in a warning alone, and leaves the axes under the names.
        collapsed = [warning for warning in caught if "collapsed" in str(warning.message)]
        for warning in caught:
            if warning not in collapsed:
                warnings.warn_explicit(
                    warning.message, warning.category, warning.filename, warning.lineno
                )
        if not collapsed:
            return
        width, height = figure.get_size_inches()
        figure.set_size_inches(width * _ENLARGED, height * _ENLARGED)
    _give_places(figure)


def _give_places(figure: Figure) -> None:
    """Let the layout engine measure all texts and place the axes; nothing is drawn yet."""
    engine = figure.get_layout_engine()
    if engine is None:
        figure.draw_without_rendering()
    else:
        engine.execute(figure)


def _render(figure: Figure, kind: str, area: Bbox) -> bytes:
    """Render an area of a figure as bytes that depend on nothing but what is drawn."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({**STYLE, **_VECTOR}):
        figure.savefig(buffer, format=kind, metadata=_UNDATED[kind], bbox_inches=area)
    return buffer.getvalue()
