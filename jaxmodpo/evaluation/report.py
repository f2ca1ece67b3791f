"""``jaxmodpo report``: one HTML file that shows what a set of runs did and how they compare.

The command searches folders for manifests, reads the evaluations', the training runs' and the
divergences' files beside them, counts the votes of judged folders, and writes ``report.html`` with
its figures inside, together with the figures as PNG files. The page needs no network and no scripts,
and holds no times, so that equal inputs give equal bytes. It is apart from the evaluation because it
shows finished work of any kind, and asks no judge.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jaxmodpo.errors import UserError
from jaxmodpo.evaluation import figures
from jaxmodpo.evaluation.fronts import front_figure
from jaxmodpo.evaluation.judges import JUDGES, draw, merged, words
from jaxmodpo.evaluation.reliability import analyse
from jaxmodpo.evaluation.statistics import FEW_DISCORDANT, mcnemar_from_counts
from jaxmodpo.files import atomic_path, read_json, read_json_lines, write_text
from jaxmodpo.judging.database import NoLedger
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.pages import png, template
from jaxmodpo.phase import Phase, read_manifest
from jaxmodpo.ranges import Incidental, Settings
from jaxmodpo.results import Divergence, Judges, Malformed, OfModels, Results, Sweep, Test, Validation
from jaxmodpo.schema import read_as

log = logging.getLogger(__name__)

RESULTS, METRICS, DIVERGENCE, MALFORMED = "results.json", "metrics.jsonl", "kl.json", "malformed.json"
VALIDATION, SWEEP, VOTES = "validation.json", "sweep.json", "votes.sqlite"
_TEMPLATE = Path(__file__).parent / "templates" / "report.html"
MANY = ("tune", "sweep")
"""commands whose folders hold other runs' folders, which are not listed"""


@dataclass(frozen=True, kw_only=True)
class ReportConfig(Settings):
    """Write one self-contained HTML file, and its figures as PNG files, about finished runs."""

    inputs: tuple[Path, ...]
    """Folders to search, with everything below them, for the output folders of other commands."""

    output_dir: Incidental[Path]
    """Folder for report.html and the PNG files; it may lie inside an input."""

    title: str = "Alignment to several therapeutic objectives"
    """The title of the page."""


@dataclass(frozen=True)
class Run:
    """The output folder of one command, with the name the report gives it."""

    name: str
    folder: Path
    manifest: Mapping[str, Any]

    @property
    def command(self) -> str:
        return self.manifest["identity"]["command"]

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.manifest["identity"]["settings"]

    @property
    def trains(self) -> bool:
        return self.command.partition(" ")[0] in ("align", "reward") and (self.folder / METRICS).is_file()

    @property
    def evaluates(self) -> bool:
        return self.command == "evaluate" and (self.folder / RESULTS).is_file()

    @property
    def judges(self) -> bool:
        return self.command == "judges" and (self.folder / JUDGES).is_file()


@dataclass
class Gallery:
    """The report's figures: PNG bytes by file name."""

    images: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, figure: figures.Figure, caption: str) -> dict[str, str]:
        """Keep a figure under a file name made from ``name``; return what the page needs to show it."""
        stem = re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-.")
        file, number = f"{stem}.png", 1
        while file in self.images:
            number += 1
            file = f"{stem}-{number}.png"
        self.images[file] = png(figure)
        return {"file": file, "caption": caption, "data": base64.b64encode(self.images[file]).decode()}


def report(config: ReportConfig) -> Phase:
    """Write the report.

    Its inputs, for its own manifest, are the files with numbers that it shows; other manifests hold
    times and do not count.

    Raises:
        UserError: an input is missing or holds no manifest, or a file is not as its command writes it.
    """
    config.check()
    runs = find_runs(config.inputs, config.output_dir)
    numbers = {
        f"{run.name}/{name}": run.folder / name
        for run in runs
        for name in (RESULTS, METRICS, DIVERGENCE, MALFORMED, VALIDATION, SWEEP, JUDGES)
        if (run.folder / name).is_file()
    }
    for run in with_votes(runs):
        settle(run.folder / VOTES)
        numbers[f"{run.name}/{VOTES}"] = run.folder / VOTES
    phase = Phase.open("report", config, config.output_dir, numbers)
    if phase.finished:
        log.info("report: %s is finished", config.output_dir)
        return phase
    gallery = Gallery()
    page = render(config.title, runs, gallery)
    for name, image in gallery.images.items():
        with atomic_path(config.output_dir / name) as temporary:
            temporary.write_bytes(image)
    write_text(config.output_dir / "report.html", page)
    phase.finish(runs=len(runs), figures=len(gallery.images))
    log.info("report: %d runs, %d figures in %s", len(runs), len(gallery.images), config.output_dir)
    return phase


def find_runs(inputs: Sequence[Path], output_dir: Path) -> list[Run]:
    """Find every folder with a manifest below ``inputs``, by name; ``output_dir`` is left out.

    A run is named by its path below its input, or by the input where it is that folder itself;
    with several inputs, by its whole path.
    """
    found: dict[Path, Run] = {}
    for root in inputs:
        if not root.is_dir():
            raise UserError(f"inputs: {root} is not a folder; give folders that other commands wrote to")
        manifests = sorted(root.rglob("manifest.json"))
        for path in manifests:
            folder = path.parent
            below = folder.relative_to(root)
            hidden = any(part.startswith(".") for part in below.parts)
            if hidden or folder.resolve().is_relative_to(output_dir.resolve()):
                continue
            name = str(folder) if len(inputs) > 1 else str(below) if below.parts else root.resolve().name
            found.setdefault(folder.resolve(), Run(name, folder, _read_manifest(path)))
    if not found:
        raise UserError(
            f"inputs: no manifest.json in {', '.join(map(str, inputs))} or below; give folders that other "
            "commands wrote to"
        )
    many = [folder for folder, run in found.items() if run.command.partition(" ")[0] in MANY]
    alone = {f: run for f, run in found.items() if not any(f != whole and f.is_relative_to(whole) for whole in many)}
    return sorted(alone.values(), key=lambda run: run.name)


def _read_manifest(path: Path) -> dict[str, Any]:
    manifest = read_manifest(path)
    if not {"command", "settings", "inputs"} <= set(manifest.get("identity", {})):
        raise UserError(f"{path} is not a manifest of ours: it has no identity with command, settings and inputs")
    return manifest


def render(title: str, runs: Sequence[Run], gallery: Gallery) -> str:
    """Return the page, adding its figures to ``gallery``."""
    evaluations = [run for run in runs if run.evaluates]
    open_ones = {run.name for run in runs if run.command == "evaluate" and run.manifest.get("status") != "finished"}
    results = {run.name: read_results(run.folder / RESULTS) for run in evaluations}
    divergences, malformed = read_divergences(runs), read_malformed_rates(runs)
    filters = {"percent": _percent, "p_value": _p_value, "flat": flat, "words": words}
    return template(_TEMPLATE, filters).render(
        title=title,
        notes=notes(runs, results.values()),
        evaluations=[
            {
                "name": name,
                "results": values,
                "unfinished": name in open_ones,
                "figures": evaluation_figures(name, values, gallery, only_one=len(results) == 1),
            }
            for name, values in results.items()
        ],
        divergences=divergences,
        malformed=malformed,
        rewards=reward_models(runs, gallery),
        sweeps=sweeps(runs, gallery),
        judges=judge_sections(runs, gallery),
        curves=curves([run for run in runs if run.trains], gallery),
        runs=runs,
    )


def notes(runs: Iterable[Run], results: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what must be read first: each evaluation's note on its judge, once, and made-up preferences."""
    said = list(dict.fromkeys(values["note"] for values in results if values.get("note")))
    runs = list(runs)
    unfinished = [run for run in runs if run.manifest.get("status") != "finished"]
    if evaluations := [run.name for run in unfinished if run.command == "evaluate"]:
        said.append(
            f"The evaluation in {', '.join(evaluations)} is not finished: run its command again. What is shown of it, "
            "if anything, is not its result."
        )
    if others := [f"{run.name} ({run.command})" for run in unfinished if run.command != "evaluate"]:
        said.append(
            f"Not finished yet: {', '.join(others)}. What is shown of them, if anything, is a part of the whole."
        )
    made_up = [r.name for r in runs if r.command == "preferences" and r.settings.get("judge") == "rubric"]
    if made_up:
        said.append(
            f"The preferences in {', '.join(made_up)} come from the built-in rubric, a stand-in for patients "
            "that scores words: models trained on them have no clinical meaning."
        )
    return said


def read_results(path: Path) -> dict[str, Any]:
    """Read an evaluation's results.

    Raises:
        UserError: a part that the report shows is missing.
    """
    results: Results = read_json(path, Results)
    models, criteria = set(results["models"]), results["criteria"]
    if not models or not criteria:
        raise UserError(f"{path} holds no models or no criteria; write it with 'jaxmodpo evaluate'")
    for name in models:
        for part in ("models", "intervals"):
            _needs(criteria, results[part].get(name, {}), f"{path}: {part}, {name}")
        if "empty_replies" in results:
            _needs([name], results["empty_replies"], f"{path}: empty_replies")
    for criterion in criteria:
        for part in ("pairwise", "tests"):
            _needs([criterion], results[part], f"{path}: {part}")
        _needs(models, results["pairwise"][criterion], f"{path}: pairwise, {criterion}")
        for number, test in enumerate(results["tests"][criterion], 1):
            _needs((test["a"], test["b"]), models, f"{path}: models, beside tests, {criterion}, item {number},")
    completed = {criterion: list(map(_completed, results["tests"][criterion])) for criterion in criteria}
    return dict(results) | {"tests": completed}


def _needs(names: Iterable[str], mapping: Collection[str], where: str) -> None:
    for name in names:
        if name not in mapping:
            raise UserError(f"{where} lacks '{name}'; write the file with the command that its folder's manifest names")


def _completed(test: Test) -> dict[str, Any]:
    """Return a test with the p values that it lacks, and which of them decides, computed from its counts.

    Files of earlier versions do not say which p value decides.
    """
    counted = mcnemar_from_counts(test["wins"], test["losses"], test.get("ties", 0))
    return counted._asdict() | dict(test)


def read_divergences(runs: Iterable[Run]) -> dict[str, float]:
    """Return nats per reply between each model and its reference.

    They stand under ``kl`` in a results file, or in a ``kl.json``, which counts both for the model
    that it names and for one named as its folder.
    """
    named: dict[str, float] = {}
    for run in runs:
        path = run.folder / DIVERGENCE
        if path.is_file():
            value = read_json(path, Divergence)
            named[run.folder.name] = value["kl"]
            named[value.get("model", run.name)] = value["kl"]
    return named | _values_of_models(runs, "kl")


def read_malformed_rates(runs: Iterable[Run]) -> dict[str, float]:
    """Return the share of malformed replies of each model.

    It stands under ``malformed`` in a results file, or in a ``malformed.json``, which counts for the
    model of its folder's name.
    """
    runs = list(runs)
    named = {
        run.folder.name: read_json(run.folder / MALFORMED, Malformed)["malformed"]
        for run in runs
        if (run.folder / MALFORMED).is_file()
    }
    return named | _values_of_models(runs, "malformed")


def _values_of_models(runs: Iterable[Run], key: Literal["kl", "malformed"]) -> dict[str, float]:
    named: dict[str, float] = {}
    for run in runs:
        path = run.folder / RESULTS
        if path.is_file():
            named |= read_json(path, OfModels).get(key, {})
    return named


def evaluation_figures(
    name: str, results: Mapping[str, Any], gallery: Gallery, only_one: bool
) -> dict[str, list[dict[str, str]]]:
    """Draw one evaluation: scatters of criteria, pairwise and significance matrices.

    With more than two criteria, each is set against safety, or else against the last one.
    """
    criteria = results["criteria"]
    prefix = "" if only_one else f"{name}-"
    across = "safety" if "safety" in criteria else criteria[-1]
    scatters = [
        gallery.add(
            f"{prefix}scatter-{across}-{criterion}",
            figures.win_rate_scatter(results["models"], results["intervals"], across, criterion),
            f"Average win rates on {across} and {criterion}; bars are 95% intervals over resampled questions.",
        )
        for criterion in criteria
        if criterion != across
    ]
    pairwise = [
        gallery.add(
            f"{prefix}pairwise-{criterion}",
            figures.pairwise_matrix(results["pairwise"][criterion], criterion),
            f"How often the row's model wins over the column's on {criterion}.",
        )
        for criterion in criteria
    ]
    significance = [
        gallery.add(
            f"{prefix}significance-{criterion}",
            figures.significance_matrix(results["pairwise"][criterion], results["tests"][criterion], criterion),
            f"McNemar's test on {criterion}, one majority outcome per question: uncorrected chi-square, "
            f"or the exact test where fewer than {FEW_DISCORDANT} questions are won or lost.",
        )
        for criterion in criteria
    ]
    return {"scatters": scatters, "pairwise": pairwise, "significance": significance}


def reward_models(runs: Iterable[Run], gallery: Gallery) -> list[dict[str, Any]]:
    """Return each validated reward model's accuracies and its figure."""
    found = []
    validated = {run.folder: run for run in runs if run.command == "reward" and (run.folder / VALIDATION).is_file()}
    for run in validated.values():
        path = run.folder / VALIDATION
        # A refitted model carries the figures of the one in its subfolder: they are shown once.
        if run.folder.name != "validation" or run.folder.parent not in validated:
            values: Validation = read_json(path, Validation)
            _check_histograms(values, path)
            figure = gallery.add(
                f"reward-{run.name}",
                figures.reward_validation(values, run.name),
                f"{run.name}: how often held-out rankings agree with the model, by the probability it gives its own "
                "preference, and the rewards of the best and the worst responses.",
            )
            found.append({"name": run.name, "values": values, "figure": figure})
    return found


def _check_histograms(values: Validation, path: Path) -> None:
    """Refuse rewards whose bins and edges do not belong together."""
    edges = values["rewards"]["histogram_edges"]
    for name in ("best", "worst"):
        if len(values["rewards"][name]["histogram"]) + 1 != len(edges):
            raise UserError(f"{path}: rewards, {name}, histogram must have one bin less than histogram_edges has edges")


def _check_points(values: Sweep, path: Path) -> None:
    """Refuse points that lack an objective's score or weight."""
    objectives = values["objectives"]
    _needs(objectives, values["base"]["scores"], f"{path}: base, scores")
    for method, points in values["fronts"].items():
        if not points:
            raise UserError(f"{path}: fronts, {method} holds no point")
        for number, point in enumerate(points, 1):
            where = f"{path}: fronts, {method}, item {number}"
            _needs(objectives, point["scores"], f"{where}, scores")
            if not len(point["weights"]) == len(point["scores"]) == len(values["base"]["scores"]):
                raise UserError(f"{where}: as many weights and scores are needed as the base has scores")


def sweeps(runs: Iterable[Run], gallery: Gallery) -> list[dict[str, Any]]:
    """Return each sweep's hypervolumes and, of two objectives, its fronts."""
    found = []
    for run in runs:
        path = run.folder / SWEEP
        if run.command == "sweep" and path.is_file():
            values: Sweep = read_json(path, Sweep)
            _check_points(values, path)
            shown = []
            if len(values["objectives"]) == 2:
                first, second = values["objectives"]
                drawn = front_figure(values["fronts"], (first, second), values["base"])
                shown.append(gallery.add(f"fronts-{run.name}", drawn, f"{run.name}: fronts over a grid of weights."))
            found.append({"name": run.name, "hypervolume": values["hypervolume"], "figures": shown})
    return found


def with_votes(runs: Iterable[Run]) -> list[Run]:
    """Return the runs whose folders hold votes that no ``judges`` run among them has read."""
    runs = list(runs)
    read = {
        Path(place).resolve() for run in runs if run.judges for place in run.manifest.get("input_paths", {}).values()
    }
    held = [run for run in runs if (run.folder / VOTES).is_file()]
    return [run for run in held if (run.folder / VOTES).resolve() not in read]


def settle(ledger: Path) -> None:
    """Let the database put into its file what an interrupted run left beside it, so that reading changes nothing."""
    with contextlib.suppress(NoLedger), Ledger(ledger, read_only=True):
        pass


def judge_sections(runs: Sequence[Run], gallery: Gallery) -> list[dict[str, Any]]:
    """Return what is said of the judges: as ``judges`` wrote it, or counted here from the votes of a folder."""
    said = {run.name: read_json(run.folder / JUDGES, Judges) for run in runs if run.judges}
    for run in with_votes(runs):
        # A run killed as it began leaves a file without tables.
        with contextlib.suppress(NoLedger), Ledger(run.folder / VOTES, read_only=True) as ledger:
            if next(ledger.every_vote(), None) is not None:
                said[run.name] = analyse([ledger])
    return [
        {
            "name": name,
            "said": values,
            "rows": merged(values),
            "figures": [gallery.add(f"{name}-{drawn.name}", drawn.figure, drawn.caption) for drawn in draw(values)],
        }
        for name, values in sorted(said.items())
    ]


def curves(runs: Iterable[Run], gallery: Gallery) -> list[dict[str, str]]:
    """Draw the training curves of each run that has some."""
    drawn = []
    for run in runs:
        figure = figures.training_curves(read_metrics(run.folder / METRICS), run.name)
        if figure is not None:
            drawn.append(gallery.add(f"curves-{run.name}", figure, f"{run.name} ({run.command})"))
    return drawn


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read a training run's metrics; a last line still being written is left out."""
    rows = list(read_json_lines(path, dict[str, Any]))
    shown = {"step", *(name for names in figures.CURVES.values() for name in names)}
    for number, row in enumerate(rows, 1):
        for name in sorted(shown & set(row)):
            read_as(row[name], _OptionalNumber, f"{path}, line {number}", name)
    return [row for row in rows if row.get("step") is not None]


_OptionalNumber: Any = float | None


def flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Flatten nested settings or counts into dotted names and their values as text."""
    if isinstance(value, Mapping):
        return [row for key, inner in value.items() for row in flat(inner, f"{name}.{key}" if name else key)]
    if isinstance(value, list):
        return [(name, ", ".join(map(str, value)))]
    return [(name, f"{value:.6g}" if isinstance(value, float) else str(value))]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
