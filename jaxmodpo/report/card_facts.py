"""What a model card and a datasheet say, gathered from the manifests of finished runs.

Nothing here is computed anew: each fact stands in a manifest or in a result file, and what stands
in neither is said to be unknown::

    facts = gather_facts(runs)
    facts.trained[0].base       # "mistral-7b"
    facts.departures            # [], where every judge and sampler was on this machine
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from jaxmodpo.endpoints.address import is_local
from jaxmodpo.errors import UserError
from jaxmodpo.report.run_folders import Run
from jaxmodpo.results.evaluation import RESULTS, EvaluationResults
from jaxmodpo.results.probes import PROBES, ProbeResults
from jaxmodpo.results.toxicity import TOXICITY, ToxicityResults
from jaxmodpo.results.versioned import read_result

UNKNOWN = "unknown"
"""what is said of a license that no file names"""

_TRAINING = ("align", "reward", "soup")
"""first words of the commands that make models"""

_SHOWN_SETTINGS = (
    *("beta", "weights", "sft_weight", "link", "margin", "pairs_per_question", "how"),
    *("epochs", "learning_rate", "batch_size", "gradient_accumulation"),
    *("lora_rank", "lora_alpha", "base_dtype", "prompt_style", "max_length", "seed"),
)
"""settings that a reader of a card looks for; manifests have all"""

_SHOWN_FIGURES = ("examples", "held_out_examples", "updates", "held_out_accuracy", "rank")
"""figures of a training's manifest that a card shows"""

_TEXTS_SENT: Mapping[str, str] = {
    "preferences": "questions, replies and the profiles of the personas",
    "evaluate": "questions, replies and the profiles of the personas",
    "responses": "questions",
    "probes": "probes and replies",
    "toxicity": "replies",
}
"""what a command sends to an endpoint"""


@dataclass(frozen=True)
class Input:
    """A file or folder that a run read."""

    name: str
    place: str
    fingerprint: str
    made_by: str
    """name of the run among these that made it; empty where it comes from elsewhere"""


@dataclass(frozen=True)
class TrainedModel:
    """A run that trained or put together a model."""

    name: str
    method: str
    base: str
    """name of the base model's folder; empty of a soup, whose base is that of its adapters"""
    inputs: Sequence[Input]
    settings: Mapping[str, Any]
    figures: Mapping[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation."""

    name: str
    results: EvaluationResults


@dataclass(frozen=True)
class Probed:
    """A run of crisis probes."""

    name: str
    results: ProbeResults


@dataclass(frozen=True)
class Scored:
    """A run that scored replies for toxicity."""

    name: str
    results: ToxicityResults


@dataclass(frozen=True)
class DataRun:
    """A run that made or chose data."""

    name: str
    command: str
    inputs: Sequence[Input]
    settings: Mapping[str, Any]
    figures: Mapping[str, Any]
    judge: str


@dataclass(frozen=True)
class License:
    """A model or a file from elsewhere, and under which license it stands."""

    name: str
    license: str


@dataclass(frozen=True)
class CardFacts:
    """Everything that both cards are written from."""

    trained: Sequence[TrainedModel]
    evaluations: Sequence[Evaluation]
    probes: Sequence[Probed]
    toxicity: Sequence[Scored]
    data: Sequence[DataRun]
    licenses: Sequence[License]
    departures: Sequence[str]
    """a sentence for each run that sent texts to another machine"""
    unfinished: Sequence[str]
    """names of runs that are not finished, of which the cards say nothing more"""
    versions: Mapping[str, str]


_SETTINGS_FILES = ("criteria", "mapping", "prompts", "probes", "rubric", "template")
"""inputs that are settings, and no models or data"""

_DATA_COMMANDS = ("questions", "personas", "responses", "preferences", "pairs", "sandbox world")


def gather_facts(runs: Sequence[Run]) -> CardFacts:
    """Read the facts of runs; those that are not finished are named and left out."""
    finished = [run for run in runs if run.manifest.is_finished]
    maker = _Makers.of(finished)
    trained: list[TrainedModel] = []
    data: list[DataRun] = []
    evaluations: list[Evaluation] = []
    probed: list[Probed] = []
    for run in finished:
        family, _, _ = run.command.partition(" ")
        if family in _TRAINING:
            trained.append(_trained(run, maker))
        elif run.command in _DATA_COMMANDS:
            data.append(_data_run(run, maker))
        elif run.evaluates:
            results = read_result(run.folder / RESULTS, EvaluationResults)
            evaluations.append(Evaluation(run.name, results))
        elif run.command == "probes" and (run.folder / PROBES).is_file():
            probed.append(Probed(run.name, read_result(run.folder / PROBES, ProbeResults)))
    departures = [sentence for run in runs if (sentence := departure(run))]
    versions: dict[str, str] = {}
    for run in finished:
        versions |= run.manifest.environment.versions
    return CardFacts(
        trained=trained,
        evaluations=evaluations,
        probes=probed,
        toxicity=_scored(finished),
        data=data,
        licenses=list(_licenses(finished, maker)),
        departures=departures,
        unfinished=[run.name for run in runs if not run.manifest.is_finished],
        versions=versions,
    )


def _scored(runs: Sequence[Run]) -> list[Scored]:
    scored: list[Scored] = []
    for run in runs:
        path = run.folder / TOXICITY
        if run.command == "toxicity" and path.is_file():
            scored.append(Scored(run.name, read_result(path, ToxicityResults)))
    return scored


@dataclass(frozen=True)
class _Makers:
    """Which run made what: files by their hash, folders by their place."""

    run_of_hash: Mapping[str, str]
    run_of_folder: Mapping[Path, str]

    @classmethod
    def of(cls, runs: Sequence[Run]) -> _Makers:
        run_of_hash: dict[str, str] = {}
        for run in runs:
            for output in run.manifest.outputs.values():
                run_of_hash.setdefault(output.sha256, run.name)
        return cls(run_of_hash, {run.folder.resolve(): run.name for run in runs})

    def name(self, place: Path, recorded: str) -> str:
        """Return the run that made an input; empty where none of these did."""
        if recorded in self.run_of_hash:
            return self.run_of_hash[recorded]
        # A folder's fingerprint is of all of its files, and no manifest has it.
        for folder in (place.absolute(), *place.absolute().parents):
            if folder in self.run_of_folder:
                return self.run_of_folder[folder]
        return ""


def _inputs(run: Run, maker: _Makers) -> list[Input]:
    inputs: list[Input] = []
    for name, path, recorded in run.manifest.inputs():
        inputs.append(Input(name, str(path), recorded[:16], maker.name(path, recorded)))
    return inputs


def _trained(run: Run, maker: _Makers) -> TrainedModel:
    base = run.settings.get("model")
    return TrainedModel(
        name=run.name,
        method=run.command,
        base=Path(base).name if base else "",
        inputs=_inputs(run, maker),
        settings=_picked(run.settings, _SHOWN_SETTINGS),
        figures=_picked(run.manifest.results, _SHOWN_FIGURES),
    )


def _data_run(run: Run, maker: _Makers) -> DataRun:
    # The judge's identity has a field of its own, and nested figures no place in a card.
    plain_figures: dict[str, int | float | str] = {}
    for name, value in run.manifest.results.items():
        if isinstance(value, int | float | str) and name != "judge":
            plain_figures[name] = value
    return DataRun(
        name=run.name,
        command=run.command,
        inputs=_inputs(run, maker),
        settings=_picked(
            run.settings, ("samples", "temperature", "top_p", "protocol", "select", "seed")
        ),
        figures=plain_figures,
        judge=str(run.manifest.results.get("judge", "")),
    )


def _picked(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: values[name] for name in names if values.get(name) not in (None, "", [])}


def departure(run: Run) -> str:
    """Say which texts a run sent to another machine; empty where it sent none that its manifest
    knows of.
    """
    settings = run.settings
    is_remote_judge = settings.get("judge") in ("endpoint", "batch")
    is_remote_sampler = settings.get("engine") == "endpoint"
    is_remote_scorer = settings.get("scorer") in ("moderation", "perspective")
    address = str(settings.get("base_url", ""))
    if not (is_remote_judge or is_remote_sampler or is_remote_scorer) or not address:
        return ""
    try:
        if is_local(address):
            return ""
    except UserError:
        # An address that nobody can read is not known to be on this machine.
        pass
    texts = _TEXTS_SENT.get(run.command, "the texts that it reads")
    model = settings.get("judge_model") or settings.get("endpoint_model") or "a model"
    if is_remote_scorer:
        model = settings["scorer"]
    return f"{run.name} ({run.command}) sent {texts} to {model} at {address}."


def _licenses(runs: Sequence[Run], maker: _Makers) -> Iterator[License]:
    """Yield what comes from elsewhere, each once, with the license that it names."""
    path_of_name: dict[str, Path] = {}
    for run in runs:
        for name, path, recorded in run.manifest.inputs():
            if name not in _SETTINGS_FILES and not maker.name(path, recorded):
                path_of_name.setdefault(str(path), path)
    for name, path in sorted(path_of_name.items()):
        yield License(name, license_of(path))


def license_of(place: Path) -> str:
    """Return the license in the metadata of a folder's README.md; unknown where there is none."""
    try:
        text = (place / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return UNKNOWN
    if not text.startswith("---\n"):
        return UNKNOWN
    try:
        metadata = yaml.safe_load(text[4:].partition("\n---")[0])
    except yaml.YAMLError:
        return UNKNOWN
    license = metadata.get("license") if isinstance(metadata, dict) else None
    return license if isinstance(license, str) and license.strip() else UNKNOWN
