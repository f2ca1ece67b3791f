"""The part of a report's page about crisis probes: rates by kind and by form, false alarms apart.

Example: ``probe_sections(runs, gallery)`` reads every ``probes.json``, draws how many replies to
each kind of risk passed, and returns what ``probes.html`` lays out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.figure import Figure

from jaxmodpo.pages import STYLE, look_of
from jaxmodpo.report.run_folders import Run
from jaxmodpo.report.sections import Gallery, Picture
from jaxmodpo.results.probes import PROBES, CheckRate, ProbedModel, ProbeRates, ProbeResults
from jaxmodpo.results.versioned import read_result

RISK_COLUMNS: Mapping[str, str] = {
    "passed": "passed",
    "acknowledgement": "acknowledged",
    "resource": "fitting resource",
    "help": "urged to help",
    "any_harm": "any harm",
}
"""checks of replies to a risk, and what the page calls them"""

CONTROL_COLUMNS: Mapping[str, str] = {"crisis_script": "false alarms", "any_harm": "any harm"}
"""checks of replies to controls"""

GROUP_NAMES: Mapping[str, str] = {
    "self_harm": "self-harm",
    "harm_to_others": "harm to others",
    "abuse": "abuse at home",
    "eating_disorder": "eating disorder",
    "overdose": "overdose, withdrawal",
    "third_person": "third person",
}
"""names of kinds and forms that are not their key"""


@dataclass(frozen=True)
class RateRow:
    """A row of a table: a model and a group of probes, with a rate in words for each column."""

    model: str
    group: str
    probes: int
    cells: Sequence[str]


@dataclass(frozen=True)
class ProbeSection:
    """One run's probes."""

    name: str
    results: ProbeResults
    risk_columns: Sequence[str]
    control_columns: Sequence[str]
    risk: Sequence[RateRow]
    risk_by_kind: Sequence[RateRow]
    risk_by_form: Sequence[RateRow]
    controls: Sequence[RateRow]
    controls_by_form: Sequence[RateRow]
    figure: Picture


def probe_sections(runs: Iterable[Run], gallery: Gallery) -> list[ProbeSection]:
    """Read every ``probes.json``, and draw it."""
    sections: list[ProbeSection] = []
    for run in runs:
        path = run.folder / PROBES
        if run.command == "probes" and path.is_file():
            sections.append(_section(run.name, read_result(path, ProbeResults), gallery))
    return sections


def _section(name: str, results: ProbeResults, gallery: Gallery) -> ProbeSection:
    models = results.models
    caption = (
        f"{name}: replies to posts with a risk that passed every check, by kind of risk, in percent"
        " with 95% intervals. A screen, not an instrument."
    )
    return ProbeSection(
        name=name,
        results=results,
        risk_columns=list(RISK_COLUMNS.values()),
        control_columns=list(CONTROL_COLUMNS.values()),
        risk=_rows({m: {"all": model.risk} for m, model in models.items()}, RISK_COLUMNS),
        risk_by_kind=_rows({m: model.risk_by_kind for m, model in models.items()}, RISK_COLUMNS),
        risk_by_form=_rows({m: model.risk_by_form for m, model in models.items()}, RISK_COLUMNS),
        controls=_rows(
            {m: {"all": model.controls} for m, model in models.items()}, CONTROL_COLUMNS
        ),
        controls_by_form=_rows(
            {m: model.controls_by_form for m, model in models.items()}, CONTROL_COLUMNS
        ),
        figure=gallery.add(f"probes-{name}", passed_by_kind(models), caption),
    )


def _rows(
    rates_by_model: Mapping[str, Mapping[str, ProbeRates]], columns: Mapping[str, str]
) -> list[RateRow]:
    """Return a row for each model and group."""
    rows: list[RateRow] = []
    for model, rates_by_group in rates_by_model.items():
        for group, rates in rates_by_group.items():
            cells = [rate_in_words(rates.rates[check]) for check in columns]
            rows.append(RateRow(model, GROUP_NAMES.get(group, group), rates.probes, cells))
    return rows


def rate_in_words(rate: CheckRate) -> str:
    """Return a rate with its counts and interval: ``75% (3 of 4; 30–95)``."""
    if rate.interval is None or not rate.replies:
        return "no reply with a verdict"
    low, high = rate.interval
    share = f"{100 * rate.count / rate.replies:.0f}%"
    return f"{share} ({rate.count} of {rate.replies}; {100 * low:.0f}–{100 * high:.0f})"


def passed_by_kind(models: Mapping[str, ProbedModel]) -> Figure:
    """Draw the share of replies that passed, with its interval: a row for each kind of risk, a
    marker for each model.
    """
    kinds = list(dict.fromkeys(kind for model in models.values() for kind in model.risk_by_kind))
    spread = 0.7 / max(len(models), 1)
    with matplotlib.rc_context(STYLE):
        height = 1.2 + 0.3 * len(kinds) * max(len(models) / 2, 1)
        figure = Figure(figsize=(6.4, height), layout="constrained")
        axes = figure.add_subplot()
        for number, (name, model) in enumerate(models.items()):
            look = look_of(number)
            for row, kind in enumerate(kinds):
                rate = (
                    model.risk_by_kind[kind].rates["passed"] if kind in model.risk_by_kind else None
                )
                if rate is None or rate.interval is None:
                    continue
                place = row + spread * (number - (len(models) - 1) / 2)
                low, high = rate.interval
                axes.plot([100 * low, 100 * high], [place, place], color=look["color"], linewidth=1)
                share = 100 * rate.count / rate.replies
                axes.plot(share, place, linestyle="none", label=name if row == 0 else None, **look)
        axes.set_yticks(range(len(kinds)), [GROUP_NAMES.get(kind, kind) for kind in kinds])
        axes.invert_yaxis()
        axes.set_xlim(-2, 102)
        axes.set_xlabel("replies that passed, %")
        if kinds:
            figure.legend(loc="outside lower center", ncols=3)
    return figure
