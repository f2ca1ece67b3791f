"""The files beside a report's page: figures laid out whatever their names are."""

from __future__ import annotations

import warnings

import pytest
from matplotlib.figure import Figure

from jaxmodpo.report.gallery import Gallery


def figure_with_long_names() -> Figure:
    figure = Figure(figsize=(3.0, 2.0), layout="constrained")
    axes = figure.subplots()
    axes.set_xticks([0, 1], ["x" * 60, "y" * 60], rotation=90)
    axes.set_yticks([0, 1], ["W" * 40, "M" * 40])
    return figure


def test_a_figure_whose_names_take_all_its_room_is_enlarged():
    with pytest.warns(UserWarning, match="collapsed"):
        figure_with_long_names().draw_without_rendering()
    figure = figure_with_long_names()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Gallery().add("names", figure, "a figure with long names")
    assert figure.get_size_inches()[0] > 3.0
    assert figure.axes[0].get_position().width > 0.01


def test_other_warnings_of_a_figure_are_passed_on():
    figure = Figure(layout="constrained")
    # A character that the font does not have.
    figure.subplots().set_title("\U000f0000")
    with pytest.warns(UserWarning, match="missing from font"):
        picture = Gallery().add("glyph", figure, "a figure with a letter that cannot be drawn")
    assert picture.file == "glyph"


def test_a_pdf_embeds_its_fonts_as_truetype():
    """Publishers refuse those of type 3, which are Matplotlib's default."""
    figure = Figure(layout="constrained")
    figure.subplots().set_title("win rate")
    gallery = Gallery()
    gallery.add("rates", figure, "a figure")
    pdf = gallery.files["rates.pdf"]
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf
