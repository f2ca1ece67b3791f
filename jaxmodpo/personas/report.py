"""The personas' report: ``report.json`` with the numbers, the figures, and one HTML file that shows
both.

The page needs no network and no scripts, and holds no times, so that equal inputs give equal bytes.
It shows counts and shares alone: nobody's answers.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from jaxmodpo.files import atomic_path, write_json, write_text
from jaxmodpo.pages import png, template
from jaxmodpo.personas import figures
from jaxmodpo.personas.summary import COMPARED, STEPS

PAGE = "personas_report.html"
NUMBERS = "report.json"
FIGURES = "figures"
_TEMPLATE = Path(__file__).parent / "templates" / PAGE
# The dimensions of the paper's Figure 9, and the survey that a participant came from.
COMPOSED = ("age", "gender", "ethnicity", "population")
_STEP_NAMES = {
    "participants": "participants",
    "above_quality": "good enough",
    "selected": "selected",
    "train": "training",
    "test": "test",
}


def write_report(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write the report's files into a folder."""
    write_json(folder / NUMBERS, summary)
    embedded_figures: list[dict[str, str]] = []
    for name, (figure, caption) in draw_figures(summary).items():
        image = png(figure)
        with atomic_path(folder / FIGURES / f"{name}.png") as temporary:
            temporary.write_bytes(image)
        # The page carries its images, so that it can be mailed as one file.
        embedded_figures.append(
            {
                "file": f"{FIGURES}/{name}.png",
                "caption": caption,
                "data": base64.b64encode(image).decode(),
            }
        )
    write_text(folder / PAGE, render(summary, embedded_figures))


def draw_figures(summary: Mapping[str, Any]) -> dict[str, tuple[Figure, str]]:
    """Draw every figure, each with its caption, by name."""
    captioned: dict[str, tuple[Figure, str]] = {}
    captioned["primary_preference"] = (
        figures.primary_preferences(summary["preferences"]),
        "The criterion rated highest (the paper's Figure 1). Full color: above every other;"
        " paler: alike with others, counted in equal parts.",
    )
    for name in COMPOSED:
        composed = {step: summary["composition"][name][step] for step in COMPARED}
        captioned[f"composition_{name}"] = (
            figures.composition(composed, name),
            f"Composition by {name}: complete pool, selected, training and test (the paper's"
            " Appendix A).",
        )
    captioned["balance"] = (
        figures.train_test_balance(summary["balance"]),
        "Training against test, group by group (the paper's Appendix B).",
    )
    captioned["quality"] = (
        figures.quality(summary["quality"]),
        "Quality of all participants' profiles.",
    )
    captioned["anonymity"] = (
        figures.anonymity(summary["anonymity"]["sets"]["selected"]),
        "Selected personas by how many share their quasi-identifiers.",
    )
    return captioned


def render(summary: Mapping[str, Any], embedded_figures: list[dict[str, str]]) -> str:
    """Return the page."""
    filters = {
        "percent": lambda share: f"{100 * share:.1f}",
        "p_value": figures.p_value,
        "plain": lambda name: name.replace("_", " "),
    }
    by_name = {Path(figure["file"]).stem: figure for figure in embedded_figures}
    return template(_TEMPLATE, filters).render(
        summary=summary,
        figures=by_name,
        steps=STEPS,
        compared=COMPARED,
        step_names=_STEP_NAMES,
        composed=COMPOSED,
    )
