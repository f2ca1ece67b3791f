"""A search's study in its database: opened by several processes, and kept in order when one of them dies."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import time
from pathlib import Path

import optuna
import sqlalchemy.exc
from optuna.trial import FrozenTrial, TrialState

from jaxmodpo.processes import is_gone

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 60
RETRIES = 3
"""how often settings are tried again whose process died; others may have killed it, but hardly each time"""


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """Open a study's database, or make it."""
    for again in range(5, -1, -1):
        try:
            return optuna.storages.RDBStorage(
                url,
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=5 * HEARTBEAT_SECONDS,
                heartbeat_stale_trial_callback=try_again,
            )
        except sqlalchemy.exc.DatabaseError as error:
            # Optuna makes its tables one by one; who comes second meanwhile is told that some are there.
            made = isinstance(error, sqlalchemy.exc.IntegrityError) or "exists" in str(error)
            if not (made and again):
                raise
        time.sleep(0.2)
    raise AssertionError


def tried(trial: FrozenTrial) -> bool:
    """Whether a trial came to an end of its own: well, pruned, or failed for a reason."""
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or "reason" in trial.user_attrs


def try_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue again a failed trial whose process died; where that has happened too often, record why it is not."""
    if "folder" not in trial.user_attrs:
        return  # it had not begun
    trials, deaths, number = study.get_trials(deepcopy=False), 0, trial.number
    while number is not None:
        deaths += not trials[number].user_attrs.get("cut_off")
        number = trials[number].user_attrs.get("continues")
    chained = {"continues": trial.number}
    if deaths <= RETRIES:
        logger.info("the process of trial %d died; it goes on", trial.number)
        study.enqueue_trial(trial.params, user_attrs=chained)
        return
    reason = f"{deaths} processes that ran it died"
    logger.warning("trial %d is not tried again: %s", trial.number, reason)
    said = chained | {"reason": reason, "folder": trial.user_attrs["folder"]}
    study.add_trial(
        optuna.create_trial(
            state=TrialState.FAIL, params=trial.params, distributions=trial.distributions, user_attrs=said
        )
    )


def dead(process: str) -> bool:
    """Whether a process of this machine is gone."""
    host, _, number = process.rpartition(":")
    if host != socket.gethostname() or not number.isdigit():
        return False
    # This process has no trial under way while it looks.
    return int(number) == os.getpid() or is_gone(int(number))


def free(study: optuna.Study, folder: Path, output: str) -> None:
    """Remove what trials that are not the best left behind, but for their figures."""
    done = [t for t in study.get_trials(deepcopy=False) if "folder" in t.user_attrs and t.state.is_finished()]
    complete = [t for t in done if t.state == TrialState.COMPLETE]
    best = max(complete, key=lambda t: t.value or 0.0).user_attrs["folder"] if complete else None
    for trial in done:
        own = Path(trial.user_attrs["folder"])
        # Other processes that share the study look after their own folders.
        if trial.user_attrs["folder"] != best and tried(trial) and own.is_relative_to(folder):
            for name in (output, "checkpoints"):
                shutil.rmtree(own / name, ignore_errors=True)
