"""A search's report: Optuna's plots and every trial, in one HTML file."""

from __future__ import annotations

import base64
import io
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import optuna
from optuna.trial import FrozenTrial, TrialState

from jaxmodpo.files import Row, write_text
from jaxmodpo.search.study import best_trial

logger = logging.getLogger(__name__)

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; font-size: 13px } td, th { padding: .25rem .6rem; border-bottom: 1px solid #ddd;
text-align: right } th { text-align: left } td.text { text-align: left } tr.best { background: #e8f2fb }
img { max-width: 100%; display: block; margin: 1rem 0 } .wide { overflow-x: auto }
</style></head><body>
<h1>{{ title }}</h1>
<p>{{ counts }}. Trials are compared by held-out preference accuracy (SFT: log-likelihood of a token); the margin breaks
ties.</p>
{% if note %}<p><strong>{{ note }}.</strong></p>{% endif %}
{% for caption, image in plots %}<h2>{{ caption }}</h2><img alt="{{ caption }}" src="data:image/png;base64,{{ image }}">
{% endfor %}
<h2>Trials</h2><div class="wide"><table><tr><th>trial<th>state<th>value{% for name in names %}<th>{{ name }}{% endfor %}
<th>evaluations<th>why it failed</tr>
{% for row in rows %}<tr{% if row.best %} class="best"{% endif %}><td>{{ row.number }}<td class="text">{{ row.state }}
<td>{{ row.value }}{% for cell in row.cells %}<td>{{ cell }}{% endfor %}<td>{{ row.evaluations }}
<td class="text">{{ row.reason }}</tr>
{% endfor %}</table></div></body></html>
"""


def write_report(study: optuna.Study, path: Path, command: str, note: str = "") -> None:
    """Write the report of a study that has a best trial, with a note at its top if there is one to
    make.
    """
    trials = study.get_trials(deepcopy=False)
    best = best_trial(study)
    assert best is not None
    names = list(best.params)
    states = [trial.state for trial in trials]
    counts = (
        f"{states.count(TrialState.COMPLETE)} complete,"
        f" {states.count(TrialState.PRUNED)} pruned,"
        f" {states.count(TrialState.FAIL)} failed or cut off"
    )
    # Reasons and settings come from files and errors, so they are escaped.
    page = jinja2.Environment(autoescape=True).from_string(_PAGE)
    continued = {trial.user_attrs.get("continues") for trial in trials}
    rows: list[Row] = []
    for trial in trials:
        is_best = trial.number == best.number
        rows.append(_row(trial, names, is_best, trial.number in continued))
    write_text(
        path,
        page.render(
            title=f"Search for {command}",
            counts=counts,
            note=note,
            names=names,
            rows=rows,
            plots=_plots(study),
        ),
    )


def _row(trial: FrozenTrial, names: list[str], best: bool, continued: bool) -> Row:
    state = trial.state.name.lower()
    if continued or trial.user_attrs.get("cut_off"):
        # To Optuna such a trial has failed, which is not what became of it.
        state = "cut off"
    cells: list[Any] = []
    for name in names:
        value = trial.params.get(name, "")
        cells.append(f"{value:.4g}" if isinstance(value, float) else value)
    return {
        "number": trial.number,
        "state": state,
        "value": "" if trial.value is None else f"{trial.value:.4f}",
        "cells": cells,
        "evaluations": len(trial.intermediate_values),
        "reason": trial.user_attrs.get("reason", ""),
        "best": best,
    }


def _plots(study: optuna.Study) -> list[tuple[str, str]]:
    """Return Optuna's plots as base64 PNGs; one that these trials are too few for is left out."""
    # A window system is neither there nor wanted.
    matplotlib.use("Agg")
    from matplotlib import pyplot
    from optuna.visualization import matplotlib as optuna_plots

    functions: dict[str, Callable[[optuna.Study], Any]] = {
        "Optimization history": optuna_plots.plot_optimization_history,
        "Importance of the settings": optuna_plots.plot_param_importances,
        "Each setting": optuna_plots.plot_slice,
        "Parallel coordinates": optuna_plots.plot_parallel_coordinate,
        "Evaluations within trials": optuna_plots.plot_intermediate_values,
        "Timeline": optuna_plots.plot_timeline,
    }
    plots: list[tuple[str, str]] = []
    for caption, draw in functions.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                draw(study)  # into pyplot's current figure
                buffer = io.BytesIO()
                pyplot.gcf().savefig(buffer, format="png", dpi=110, bbox_inches="tight")
        except (ValueError, RuntimeError) as error:
            logger.debug("no plot '%s': %s", caption, error)
        else:
            plots.append((caption, base64.b64encode(buffer.getvalue()).decode()))
        finally:
            pyplot.close("all")
    return plots
