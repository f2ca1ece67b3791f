"""What a search leaves behind: the best trial's settings and figures, and a report of all
trials.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from jaxmodpo.config import as_mapping
from jaxmodpo.errors import UserError
from jaxmodpo.files import write_text
from jaxmodpo.methods.reward_settings import RewardConfig
from jaxmodpo.parsing import yaml_text
from jaxmodpo.phase import Phase
from jaxmodpo.policy.distributed import DeviceConfig
from jaxmodpo.results.reward import VALIDATION, Validation
from jaxmodpo.results.versioned import write_result
from jaxmodpo.schema import read_as
from jaxmodpo.search.report import write_report
from jaxmodpo.search.settings import BEST, SearchConfig, trial_settings
from jaxmodpo.search.study import best_trial
from jaxmodpo.training.session import Session

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Method:
    """A command that is searched for.

    Attributes:
        command: its name.
        run: trains one model in a session.
        output: the folder that a trial leaves behind.
    """

    command: str
    run: Callable[[Any, Session], Phase]
    output: str = "adapter"


def finish_search(phase: Phase, study: optuna.Study, config: SearchConfig, method: Method) -> None:
    """Write the best settings and the report; where trials still run in other processes, both are
    of those that ended.

    Raises:
        UserError: none ended well.
    """
    trials = study.get_trials(deepcopy=False)
    counts = _counts(trials)
    unfinished = _unfinished(counts["still_running"])
    if not counts["complete"]:
        raise UserError(_no_trial_in_words(trials, unfinished))
    best = best_trial(study)
    assert best is not None and best.value is not None
    best_folder = Path(best.user_attrs["folder"]) / method.output
    settings = _settings_to_train(config, best)
    write_text(config.output_dir / BEST, _yaml(settings, best, method.command))
    write_report(study, config.output_dir / "tune.html", method.command, unfinished)
    logger.info(
        "best: trial %d, %.4f, %s; jaxmodpo %s --config %s --output-dir … trains it",
        best.number,
        best.value,
        params_in_words(best.params),
        method.command,
        config.output_dir / BEST,
    )
    # Several processes share a study, each with a folder of its own.
    if not best_folder.is_relative_to(config.output_dir.absolute()):
        logger.info(
            "the best trial ran in another process: its %s lies in %s", method.output, best_folder
        )
    elif not best_folder.is_dir():
        logger.warning(
            "the best trial's %s is gone from %s; best.yaml trains it again",
            method.output,
            best_folder,
        )
    results: dict[str, Any] = {
        **counts,
        "best_trial": best.number,
        "best_value": best.value,
        "best": best.params,
        "best_folder": str(best_folder),
    }
    if unfinished:
        logger.warning("%s", unfinished)
        results["unfinished"] = unfinished
    for name, value in best.user_attrs.get("held_out", {}).items():
        results[f"held_out_{name}"] = value
    phase.finish(**results)


def _counts(trials: Sequence[FrozenTrial]) -> dict[str, int]:
    """Count trials by how they ended.

    Trials that were cut off count nowhere, since another trial goes on with each of them. They have
    Optuna's state of a failure; a failure of the trial's own has a reason.
    """
    states = [trial.state for trial in trials]
    complete = states.count(TrialState.COMPLETE)
    pruned = states.count(TrialState.PRUNED)
    failed = sum("reason" in trial.user_attrs for trial in trials)
    return {
        "trials": complete + pruned + failed,
        "complete": complete,
        "pruned": pruned,
        "failed": failed,
        "still_running": states.count(TrialState.RUNNING),
    }


def _no_trial_in_words(trials: Sequence[FrozenTrial], unfinished: str) -> str:
    """Say why no trial ended well."""
    reasons = [trial.user_attrs["reason"] for trial in trials if "reason" in trial.user_attrs]
    if reasons:
        last_failure = reasons[-1]
    elif unfinished:
        last_failure = "none so far"
    else:
        last_failure = "none, all were pruned"
    sentence = f"no trial ended well; the last failure: {last_failure}"
    return f"{sentence}; {unfinished}" if unfinished else sentence


def _settings_to_train(config: SearchConfig, best: FrozenTrial) -> dict[str, Any]:
    """Return the settings that train the best trial's model again, for ``best.yaml``."""
    folder = Path(best.user_attrs["folder"])
    settings = as_mapping(trial_settings(config, best.params, folder))
    # Where it is trained, and with how many others, is not among what was searched for.
    del settings["output_dir"]
    for field in dataclasses.fields(DeviceConfig):
        del settings[field.name]
    if config.trains is RewardConfig:
        settings |= _reward_settings(config, best, settings["epochs"])
    return settings


def _reward_settings(config: SearchConfig, best: FrozenTrial, epochs: int) -> dict[str, Any]:
    """Return what differs in the final reward model: it is trained on everything.

    With nothing held out it has no figures of its own, and nothing tells it when to stop. It takes
    both from the best trial: the figures from a file, and as many epochs as were best.
    """
    path = config.output_dir / VALIDATION
    best_epoch = best.user_attrs["best_epoch"]
    measured_in = f"trial {best.number} of the search, after {best_epoch:g} of {epochs} epochs"
    fields = best.user_attrs["validation"] | {"measured_in": measured_in}
    # A storage that several searches share may hold trials of another version.
    validation: Validation = read_as(fields, Validation, f"trial {best.number} of the study")
    write_result(path, validation)
    return {
        "validation": str(path),
        "validation_fraction": 0.0,
        "epochs": max(1, math.ceil(best_epoch)),
    }


def params_in_words(params: Mapping[str, Any]) -> str:
    """Return settings on one line, as in "beta 0.1, epochs 2"."""
    words: list[str] = []
    for name, value in params.items():
        shown_value = f"{value:.4g}" if isinstance(value, float) else str(value)
        words.append(f"{name} {shown_value}")
    return ", ".join(words)


def _unfinished(running: int) -> str:
    """Say that trials run elsewhere, any of which may be better; this process has none when it
    ends.
    """
    if not running:
        return ""
    if running == 1:
        return "1 trial still runs in another process; run the same command again when it has ended"
    return (
        f"{running} trials still run in another process; run the same command again when they have"
        " ended"
    )


def _yaml(settings: Mapping[str, Any], best: FrozenTrial, command: str) -> str:
    head = (
        f"# Trial {best.number} of a search, {best.value:.4f}: jaxmodpo {command} --config FILE"
        " --output-dir FOLDER\n"
    )
    return head + yaml_text(dict(settings))
