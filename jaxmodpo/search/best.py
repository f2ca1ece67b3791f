"""What a search leaves behind: the best trial's settings and figures, and a report of all
trials.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from jaxmodpo.config import as_mapping
from jaxmodpo.errors import UserError
from jaxmodpo.files import write_text
from jaxmodpo.methods.reward import RewardConfig
from jaxmodpo.phase import Phase
from jaxmodpo.policy.distributed import DeviceConfig
from jaxmodpo.results.reward import VALIDATION, Validation
from jaxmodpo.results.versioned import write_result
from jaxmodpo.schema import read_as
from jaxmodpo.search.report import write_report
from jaxmodpo.search.settings import (
    trial_settings,
)
from jaxmodpo.search.study import (
    best_trial,
)
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


def finish_search(phase: Phase, study: optuna.Study, config: Any, method: Method) -> None:
    """Write the best settings and the report; where trials still run in other processes, both are
    of those that ended.

    Raises:
        UserError: none ended well.
    """
    trials = study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    reasons = [trial.user_attrs["reason"] for trial in trials if "reason" in trial.user_attrs]
    running = sum(trial.state == TrialState.RUNNING for trial in trials)
    unfinished = _unfinished(running)
    if not complete:
        said = "none so far" if running else "none, all were pruned"
        raise UserError(
            f"no trial ended well; the last failure: {reasons[-1] if reasons else said}"
            + (f"; {unfinished}" if unfinished else "")
        )
    best = best_trial(study)
    assert best is not None and best.value is not None
    left_in = Path(best.user_attrs["folder"]) / method.output
    settings = as_mapping(trial_settings(config, best.params, Path(best.user_attrs["folder"])))
    # Where it is trained, and with how many others, is not among what was searched for.
    for name in ("output_dir", *(field.name for field in dataclasses.fields(DeviceConfig))):
        del settings[name]
    if config.trains is RewardConfig:
        measured = (
            f"trial {best.number} of the search, after {best.user_attrs['best_epoch']:g} of"
            f" {settings['epochs']} epochs"
        )
        fields = best.user_attrs["validation"] | {"measured_in": measured}
        # A storage that several searches share may hold trials of another version.
        validation: Validation = read_as(fields, Validation, f"trial {best.number} of the study")
        write_result(config.output_dir / VALIDATION, validation)
        settings |= {
            "validation": str(config.output_dir / VALIDATION),
            "validation_fraction": 0.0,
            "epochs": max(1, math.ceil(best.user_attrs["best_epoch"])),
        }
    write_text(config.output_dir / "best.yaml", _yaml(settings, best, method.command))
    write_report(study, config.output_dir / "tune.html", method.command, unfinished)
    counts = {
        "trials": len(complete) + sum(t.state == TrialState.PRUNED for t in trials) + len(reasons),
        "complete": len(complete),
        "pruned": sum(trial.state == TrialState.PRUNED for trial in trials),
        "failed": len(reasons),
        "still_running": running,
    }
    logger.info(
        "best: trial %d, %.4f, %s; jaxmodpo %s --config %s --output-dir … trains it",
        best.number,
        best.value,
        params_in_words(best.params),
        method.command,
        config.output_dir / "best.yaml",
    )
    if not left_in.is_relative_to(config.output_dir.absolute()):
        logger.info(
            "the best trial ran in another process: its %s lies in %s", method.output, left_in
        )
    elif not left_in.is_dir():
        logger.warning(
            "the best trial's %s is gone from %s; best.yaml trains it again", method.output, left_in
        )
    if unfinished:
        logger.warning("%s", unfinished)
    phase.finish(
        **counts,
        best_trial=best.number,
        best_value=best.value,
        best=best.params,
        best_folder=str(left_in),
        **({"unfinished": unfinished} if unfinished else {}),
        **_held_out(best),
    )


def params_in_words(params: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in params.items()
    )


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


def _held_out(best: FrozenTrial) -> dict[str, Any]:
    return {
        f"held_out_{name}": value for name, value in best.user_attrs.get("held_out", {}).items()
    }


def _yaml(settings: Mapping[str, Any], best: FrozenTrial, command: str) -> str:
    import yaml

    head = (
        f"# Trial {best.number} of a search, {best.value:.4f}: jaxmodpo {command} --config FILE"
        " --output-dir FOLDER\n"
    )
    return head + yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)
