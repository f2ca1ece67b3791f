"""How every report looks: the frame of its page, and the style of its figures.

Personas and evaluation both write reports; neither may import the other, and a reader should not
see two hands.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict

import jinja2
import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.parse_math": False,  # a model's name or a survey's answer may hold a dollar sign
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.dpi": 150,
    "savefig.dpi": 150,
}
# Okabe and Ito's palette: told apart with every common form of color blindness.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A7A7A", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


class Look(TypedDict):
    """How the points of one series are drawn, as matplotlib's keyword arguments."""

    color: str
    marker: str


def look_of(number: int) -> Look:
    """Return the color and the marker of a series by its number; beyond eight they come again."""
    color = PALETTE[number % len(PALETTE)]
    marker = MARKERS[number % len(MARKERS)]
    return Look(color=color, marker=marker)


@contextlib.contextmanager
def drawing(width: float, height: float, *, grid: bool = True) -> Iterator[Figure]:
    """Yield an empty figure in the reports' style, which holds for all that is drawn within::

        with drawing(6.4, 3.2) as figure:
            axes = figure.add_subplot()

    Args:
        width: in inches.
        height: in inches.
        grid: whether its axes have lines in the background.
    """
    # matplotlib reads the style when an axis, a label or a legend is made, and not when a figure is
    # saved.
    with matplotlib.rc_context({**STYLE, "axes.grid": grid}):
        yield Figure(figsize=(width, height), layout="constrained")


def png(figure: Figure) -> bytes:
    """Render a figure as PNG bytes that depend on nothing but what is drawn: no date, no
    version.
    """
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        FigureCanvasAgg(figure)
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def template(file: Path, filters: Mapping[str, Callable[..., Any]]) -> jinja2.Template:
    """Load a page's template, which extends ``page.html`` and shows figures by the macro of
    ``picture.html``.

    Args:
        file: the template.
        filters: by name.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([file.parent, Path(__file__).parent / "templates"]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(file.name)
