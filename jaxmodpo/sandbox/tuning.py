"""The ``sandbox tune`` command: the demo's settings, chosen for every method alike in a world of
its own.

Every method of the demo gets a few trials, listed in ``configs/sandbox/trials.yaml``: changes to
its settings in ``configs/demo.yaml``. A trial's model answers validation questions, and what it is
compared by is the same for all methods. The world is not one of those that the demo reports on, so
its held-out questions are validation questions: nothing of the demo's test questions goes into a
choice.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmodpo.commands import load
from jaxmodpo.config import builtin, load_yaml
from jaxmodpo.errors import UserError, nearest
from jaxmodpo.experiment import Experiment, PhaseSpec, read_experiment, resolve
from jaxmodpo.files import write_json
from jaxmodpo.ranges import Seed, Unestimated
from jaxmodpo.records import read_responses
from jaxmodpo.sandbox.grammar import PLACES, Kind, parse
from jaxmodpo.schema import read_as

logger = logging.getLogger(__name__)

SHARED_BY_ALL = (
    "world",
    "questions",
    "personas",
    "responses",
    "preferences",
    "reward_safety",
    "test/base",
)
"""the demo's phases that every trial needs"""

MALFORMED = 0.02
"""the share of malformed validation replies that no chosen trial may reach; less than half the
demo's limit, since worlds differ in how much a learning rate breaks"""

OBJECTIVES: Mapping[str, Kind] = {"empathy": "warm", "safety": "safe"}
"""the kind of sentence that each criterion counts"""


@dataclass(frozen=True, kw_only=True)
class TuneConfig(Unestimated, help_group="search"):
    """Try a few settings for every method of the demo on validation questions, and say which is
    best.
    """

    output_dir: Path = Path("out/sandbox_tune")
    """the world, every trial and tuning.json are written here"""
    trials: str = "trials"
    """File of trials by method, or the name of one that comes with jaxmodpo."""
    only: tuple[str, ...] = ()
    """Methods to try; without it, all methods of the file."""
    seed: Seed = 100
    """Seed of the world; take none of those that the demo is reported on."""


class Measured(NamedTuple):
    """What a trial's replies are.

    Attributes:
        objective: the mean of the two win rates, which trials are compared by.
        empathy_wins: the win rate on empathy over the base's replies to the same questions.
        safety_wins: likewise on safety.
        empathy: warm sentences less bad ones, as a share of the four places; see :func:`score`.
        safety: safe sentences less bad ones, likewise.
        malformed: the share of replies that the grammar cannot parse.
    """

    objective: float
    empathy_wins: float
    safety_wins: float
    empathy: float
    safety: float
    malformed: float


def tune(config: TuneConfig) -> None:
    """Run ``sandbox tune``; what is finished is kept, so that a killed run goes on."""
    config.check()
    experiment = read_experiment(builtin(".", "demo"))
    trials = read_trials(builtin("sandbox", config.trials), experiment)
    for name in config.only:
        if name not in trials:
            raise UserError(f"--only: there are no trials of '{name}'{nearest(name, trials)}")
    phases = {phase.name: phase for phase in experiment.phases}
    for name in SHARED_BY_ALL:
        _run(phases[name], config)
    results: dict[str, list[dict[str, Any]]] = {}
    for method in config.only or trials:
        for adapter in map(Path, phases[method].settings.get("adapters", ())):
            # A soup's ingredients are the demo's own models.
            _run(phases[adapter.parent.name], config)
        results[method] = []
        for number, changes in enumerate(trials[method], 1):
            measured = _trial(phases, method, number, changes, config)
            results[method].append({"settings": changes, **measured._asdict()})
        print(table({method: results[method]}))
    write_json(config.output_dir / "tuning.json", {"seed": config.seed, "trials": results})


def read_trials(path: Path, experiment: Experiment) -> dict[str, list[dict[str, Any]]]:
    """Read the trials of every method: lists of changes to the settings of the demo's phase of that
    name.

    Raises:
        UserError: a name that is no phase of the demo, or trials that are not a list of settings.
    """
    names = [phase.name for phase in experiment.phases]
    trials = read_as(load_yaml(path), dict[str, list[dict[str, Any]]], str(path))
    for name in trials:
        if name not in names:
            raise UserError(f"{path}: the demo has no phase '{name}'{nearest(name, names)}")
    return trials


def _trial(
    phases: Mapping[str, PhaseSpec],
    method: str,
    number: int,
    changes: Mapping[str, Any],
    config: TuneConfig,
) -> Measured:
    """Train one model, let it answer the validation questions, and measure the replies."""
    name = f"trials/{method}/{number}"
    aligned, sampled = phases[method], phases[f"test/{method}"]
    _run(PhaseSpec(name, aligned.command, {**aligned.settings, **changes}), config)
    adapter = {"adapter": f"$out/{name}/adapter"}
    _run(PhaseSpec(f"{name}/validation", sampled.command, {**sampled.settings, **adapter}), config)
    base, own = (
        _replies(config.output_dir / folder) for folder in ("test/base", f"{name}/validation")
    )
    return measure(own, base)


def _replies(folder: Path) -> dict[str, list[str]]:
    """Return the replies in a folder by question."""
    by_question: dict[str, list[str]] = {}
    for reply in read_responses(folder / "responses.csv"):
        by_question.setdefault(reply.question_id, []).append(reply.response_text)
    return by_question


def _run(phase: PhaseSpec, config: TuneConfig) -> None:
    """Run one phase of the demo, as it is or changed, in the folder of the search."""
    logger.info("%s (%s)", phase.name, phase.command)
    _, function = load(phase.command)
    function(resolve(phase, config.output_dir, config.seed, f"sandbox tune, {phase.name}"))  # type: ignore[operator]


def score(text: str, good: Kind) -> float:
    """Return ``good`` sentences less bad ones, as a share of the four places; -1 for a malformed
    reply.
    """
    kinds = parse(text)
    return -1.0 if kinds is None else (kinds.count(good) - kinds.count("bad")) / PLACES


def measure(replies: Mapping[str, Sequence[str]], base: Mapping[str, Sequence[str]]) -> Measured:
    """Measure replies by the grammar, without a judge's noise, and against the base's replies.

    Args:
        replies: a model's, by question.
        base: the base's to the same questions. Every reply meets every one of the base's to its
            question.
    """
    wins: list[float] = []
    means: list[float] = []
    for good in OBJECTIVES.values():
        own = [np.array([score(text, good) for text in replies[question]]) for question in base]
        others = [np.array([score(text, good) for text in texts]) for texts in base.values()]
        outcomes = [0.5 + 0.5 * np.sign(a[:, None] - b) for a, b in zip(own, others, strict=True)]
        wins.append(float(np.mean([outcome.mean() for outcome in outcomes])))
        means.append(float(np.mean(np.concatenate(own))))
    malformed = float(
        np.mean([parse(text) is None for texts in replies.values() for text in texts])
    )
    return Measured(sum(wins) / 2, wins[0], wins[1], means[0], means[1], malformed)


def best(trials: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the trial of the highest objective among those that keep to the grammar.

    Where all of a method's trials break more than :data:`MALFORMED` of their replies, it is the one
    that breaks fewest.
    """
    sound = [trial for trial in trials if trial["malformed"] < MALFORMED]
    if not sound:
        return min(trials, key=lambda trial: trial["malformed"])
    return max(sound, key=lambda trial: trial["objective"])


def table(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Lay out every trial, the best of each method marked."""
    lines = ["   objective  wins: empathy  safety  scores: empathy  safety  malformed  settings"]
    for method, trials in results.items():
        lines.append(method)
        chosen = best(trials)
        for trial in trials:
            mark = "*" if trial is chosen else ""
            settings = ", ".join(f"{key} {value}" for key, value in trial["settings"].items())
            cells = [
                f"{mark:<3}",
                f"{100 * trial['objective']:8.1f}%",
                f"{100 * trial['empathy_wins']:14.1f}%",
                f"{100 * trial['safety_wins']:7.1f}%",
                f"{trial['empathy']:17.2f}",
                f"{trial['safety']:8.2f}",
                f"{100 * trial['malformed']:10.1f}%",
                f"  {settings or 'the defaults'}",
            ]
            lines.append("".join(cells))
    return "\n".join(lines)
