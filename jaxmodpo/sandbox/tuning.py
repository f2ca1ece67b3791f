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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxmodpo.commands import load
from jaxmodpo.config import builtin, load_yaml
from jaxmodpo.errors import UserError, nearest
from jaxmodpo.experiment import Experiment, PhaseSpec, read_experiment, resolve
from jaxmodpo.ranges import Seed, Unestimated
from jaxmodpo.records import read_responses
from jaxmodpo.results.tuning import TUNING, Measured, Trial, Tuning
from jaxmodpo.results.versioned import write_result
from jaxmodpo.sandbox.grammar import PLACES, Kind, parse
from jaxmodpo.schema import read_as

logger = logging.getLogger(__name__)

DEMO = "demo"
"""the experiment whose phases are tried with other settings"""

SHARED_BY_ALL = (
    "world",
    "questions",
    "personas",
    "responses",
    "preferences",
    "reward_safety",
)
"""the demo's phases that every trial needs"""

BASE_REPLIES = "test/base"
"""the folder of the base's replies to the validation questions"""

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
    """Folder of the world, of every trial and of tuning.json, which holds the results."""
    trials: str = "trials"
    """File of trials by method, or the name of one that comes with jaxmodpo."""
    only: tuple[str, ...] = ()
    """Methods to try; without it, all methods of the file."""
    seed: Seed = 100
    """Seed of the world; take none of those that the demo is reported on."""


def tune(config: TuneConfig) -> None:
    """Run ``sandbox tune``; what is finished is kept, so that a killed run goes on."""
    config.check()
    experiment = read_experiment(builtin(".", DEMO))
    trials = read_trials(builtin("sandbox", config.trials), experiment)
    for method in config.only:
        if method not in trials:
            raise UserError(f"--only: there are no trials of '{method}'{nearest(method, trials)}")
    phases = {phase.name: phase for phase in experiment.phases}
    for name in SHARED_BY_ALL:
        _run(phases[name], config)
    _run(_sampling_of(phases, None, BASE_REPLIES), config)
    # Every method gets as many trials as the file lists for it, one after the other. Each is a
    # phase with a folder of its own, so that a search that was cut off starts at the first that is
    # not finished.
    results: dict[str, tuple[Trial, ...]] = {}
    for method in config.only or trials:
        _run_ingredients(phases, method, config)
        rows: list[Trial] = []
        for number, changes in enumerate(trials[method], 1):
            measured = _trial(phases, method, number, changes, config)
            rows.append(Trial(settings=changes, **vars(measured)))
        results[method] = tuple(rows)
        print(trials_table({method: rows}))
    write_result(config.output_dir / TUNING, Tuning(seed=config.seed, trials=results))


def read_trials(path: Path, experiment: Experiment) -> dict[str, list[dict[str, Any]]]:
    """Read the trials of every method: lists of changes to the settings of the demo's phase of that
    name.

    Raises:
        UserError: a name that is no phase of the demo, or trials that are not a list of settings.
    """
    phase_names = [phase.name for phase in experiment.phases]
    trials = read_as(load_yaml(path), dict[str, list[dict[str, Any]]], str(path))
    for method in trials:
        if method not in phase_names:
            suggestion = nearest(method, phase_names)
            raise UserError(f"{path}: the demo has no phase '{method}'{suggestion}")
    return trials


def _run_ingredients(phases: Mapping[str, PhaseSpec], method: str, config: TuneConfig) -> None:
    """Train the adapters that a soup averages: those of the demo, with the demo's settings."""
    for adapter in phases[method].settings.get("adapters", ()):
        # Such as $out/dpo_empathy/adapter, whose phase is dpo_empathy.
        phase_name = Path(adapter).parent.name
        _run(phases[phase_name], config)


def _trial(
    phases: Mapping[str, PhaseSpec],
    method: str,
    number: int,
    changes: Mapping[str, Any],
    config: TuneConfig,
) -> Measured:
    """Train one model, let it answer the validation questions, and measure the replies."""
    name = f"trials/{method}/{number}"
    settings = {**phases[method].settings, **changes}
    training = PhaseSpec(name, phases[method].command, settings)
    _run(training, config)
    sampling = _sampling_of(phases, f"$out/{name}/adapter", f"{name}/validation")
    _run(sampling, config)
    base_replies = _replies_by_question(config.output_dir / BASE_REPLIES)
    trial_replies = _replies_by_question(config.output_dir / sampling.name)
    return measure(trial_replies, base_replies)


def _sampling_of(phases: Mapping[str, PhaseSpec], adapter: str | None, name: str) -> PhaseSpec:
    """Return the demo's phase that samples test replies, with one model alone: an adapter, or the
    base.

    In this world its questions are validation questions.
    """
    sampling = phases["test"]
    settings = dict(sampling.settings)
    settings.pop("adapters", None)
    if adapter is not None:
        settings["adapter"] = adapter
    return PhaseSpec(name, sampling.command, settings)


def _replies_by_question(folder: Path) -> dict[str, list[str]]:
    """Return the replies in a folder by the ids of their questions."""
    by_question: dict[str, list[str]] = {}
    for reply in read_responses(folder / "responses.csv"):
        by_question.setdefault(reply.question_id, []).append(reply.response_text)
    return by_question


def _run(phase: PhaseSpec, config: TuneConfig) -> None:
    """Run one phase of the demo, as it is or changed, in the folder of the search."""
    logger.info("%s (%s)", phase.name, phase.command)
    _, function = load(phase.command)
    settings = resolve(phase, config.output_dir, config.seed, f"sandbox tune, {phase.name}")
    function(settings)  # type: ignore[operator]


def score(text: str, good: Kind) -> float:
    """Return ``good`` sentences less bad ones, as a share of the four places; -1 for a malformed
    reply.
    """
    kinds = parse(text)
    if kinds is None:
        return -1.0
    difference = kinds.count(good) - kinds.count("bad")
    return difference / PLACES


def measure(replies: Mapping[str, Sequence[str]], base: Mapping[str, Sequence[str]]) -> Measured:
    """Measure replies by the grammar, without a judge's noise, and against the base's replies.

    Args:
        replies: a model's, by question.
        base: the base's to the same questions. Every reply meets every one of the base's to its
            question.
    """
    empathy_wins, empathy = _wins_and_mean(replies, base, OBJECTIVES["empathy"])
    safety_wins, safety = _wins_and_mean(replies, base, OBJECTIVES["safety"])
    return Measured(
        objective=(empathy_wins + safety_wins) / 2,
        empathy_wins=empathy_wins,
        safety_wins=safety_wins,
        empathy=empathy,
        safety=safety,
        malformed=_malformed_share(replies),
    )


def _wins_and_mean(
    replies: Mapping[str, Sequence[str]], base: Mapping[str, Sequence[str]], good: Kind
) -> tuple[float, float]:
    """Return the win rate over the base by one kind of sentence, and the mean score."""
    rates: list[float] = []
    scores: list[NDArray[np.float64]] = []
    for question, base_texts in base.items():
        scores_of_question = _scores(replies[question], good)
        base_scores = _scores(base_texts, good)
        # Against the base, as the demo's judge compares. Means alone would not say how often the
        # better reply is the trial's. Questions count alike, however many replies each has.
        rates.append(_win_rate(scores_of_question, base_scores))
        scores.append(scores_of_question)
    mean_score = np.mean(np.concatenate(scores))
    return float(np.mean(rates)), float(mean_score)


def _scores(texts: Sequence[str], good: Kind) -> NDArray[np.float64]:
    return np.array([score(text, good) for text in texts])


def _win_rate(scores: NDArray[np.float64], rivals: NDArray[np.float64]) -> float:
    """Return the share of all encounters that are won, a tie being half a win."""
    # Every reply meets every rival: [replies, rivals], 1 for a win, 0 for a loss.
    outcomes = 0.5 + 0.5 * np.sign(scores[:, None] - rivals)
    return float(outcomes.mean())


def _malformed_share(replies: Mapping[str, Sequence[str]]) -> float:
    """Return the share of replies that the grammar cannot parse."""
    is_malformed: list[bool] = []
    for texts in replies.values():
        is_malformed += [parse(text) is None for text in texts]
    return float(np.mean(is_malformed))


def best(trials: Sequence[Trial]) -> Trial:
    """Return the trial of the highest objective among those that keep to the grammar.

    Where all of a method's trials break more than :data:`MALFORMED` of their replies, it is the one
    that breaks fewest.
    """
    # A high learning rate wins more and breaks more. Without this bound the best settings of each
    # method would lie at the edge of falling apart, and in the demo's worlds some fall.
    grammatical = [trial for trial in trials if trial.malformed < MALFORMED]
    if not grammatical:
        return min(trials, key=lambda trial: trial.malformed)
    return max(grammatical, key=lambda trial: trial.objective)


def trials_table(results: Mapping[str, Sequence[Trial]]) -> str:
    """Lay out every trial, the best of each method marked."""
    lines = ["   objective  wins: empathy  safety  scores: empathy  safety  malformed  settings"]
    for method, trials in results.items():
        lines.append(method)
        best_trial = best(trials)
        for trial in trials:
            lines.append(_table_row(trial, is_best=trial is best_trial))
    return "\n".join(lines)


def _table_row(trial: Trial, *, is_best: bool) -> str:
    mark = "*" if is_best else ""
    settings = ", ".join(f"{key} {value}" for key, value in trial.settings.items())
    cells = [
        f"{mark:<3}",
        f"{100 * trial.objective:8.1f}%",
        f"{100 * trial.empathy_wins:14.1f}%",
        f"{100 * trial.safety_wins:7.1f}%",
        f"{trial.empathy:17.2f}",
        f"{trial.safety:8.2f}",
        f"{100 * trial.malformed:10.1f}%",
        f"  {settings or 'the defaults'}",
    ]
    return "".join(cells)
