"""A search's study in its database: opened by several processes, and kept in order when one of them
dies.
"""

from __future__ import annotations

import contextlib
import logging
import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import sqlalchemy.exc
from optuna.trial import FrozenTrial, TrialState

from jaxmodpo.errors import UserError
from jaxmodpo.files import private_database
from jaxmodpo.processes import host_of, is_known_gone, this_process

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 60
RETRIES = 3
"""how often settings are tried again whose process died; others may have killed it, but hardly each
time"""


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """Open a study's database, or make it; a file is for its owner's eyes alone.

    Raises:
        UserError: a database in memory, which no later start would find.
    """
    address = sqlalchemy.make_url(url)
    if address.get_backend_name() == "sqlite":
        if address.database in (None, "", ":memory:"):
            raise UserError(
                "--study names no file; write sqlite:///folder/study.db, or leave it out"
            )
        # With a query, as in sqlite:///file:…?uri=true, the database is no plain path.
        if not address.query:
            private_database(Path(address.database).resolve())
    for remaining_attempts in range(5, -1, -1):
        try:
            return optuna.storages.RDBStorage(
                url,
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=5 * HEARTBEAT_SECONDS,
                heartbeat_stale_trial_callback=try_again,
            )
        except sqlalchemy.exc.DatabaseError as error:
            # Optuna makes its tables one by one; who comes second meanwhile is told that some are
            # there.
            is_integrity_error = isinstance(error, sqlalchemy.exc.IntegrityError)
            being_made = is_integrity_error or "exists" in str(error)
            if not (being_made and remaining_attempts):
                raise
        time.sleep(0.2)
    raise AssertionError


STORAGE_FAULTS = (sqlalchemy.exc.DBAPIError, optuna.exceptions.StorageInternalError)
"""what a study's database raises, or Optuna for it"""


@contextlib.contextmanager
def storage_in_words() -> Iterator[None]:
    """Say in one sentence what a study's database refuses, such as to write to a full disk.

    Raises:
        UserError: whatever the database, or Optuna for it, raises in the block.
    """
    try:
        yield
    except STORAGE_FAULTS as error:
        cause = error if isinstance(error, sqlalchemy.exc.DBAPIError) else error.__cause__
        # Without the statement; and of what is no database's error the name alone, for it may
        # repeat the URL.
        reason = str(getattr(cause, "orig", None) or type(error).__name__)
        first_line = reason.strip().splitlines()[0]
        raise UserError(
            f"the study's storage cannot be used: {first_line}; mend it and run the same command again,"
            " which goes on"
        ) from error


def has_ended(trial: FrozenTrial) -> bool:
    """Return whether a trial came to an end of its own: well, pruned, or failed for a reason.

    Optuna's states do not tell: it marks a trial as failed whether it broke down or its process was
    killed. Only what broke down has a reason.
    """
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or "reason" in trial.user_attrs


def continue_cut_off(study: optuna.Study, directory: Path) -> None:
    """Queue again what was not brought to an end, since a process died, was told to end or met a
    fault.

    Args:
        study: the study.
        directory: this search's output folder, absolute. Other processes look after their own
            trials.
    """
    trials = study.get_trials(deepcopy=False)
    continued = {trial.user_attrs.get("continues") for trial in trials}
    for trial in trials:
        if trial.number in continued or has_ended(trial) or not _is_here(trial, directory):
            continue
        # A process that ended in an orderly way has said so; of one that died nobody has.
        was_cut_off = trial.user_attrs.get("cut_off") or dead(trial.user_attrs.get("process", ""))
        if not was_cut_off:
            continue
        if trial.state == TrialState.RUNNING:
            try:
                study.tell(trial.number, state=TrialState.FAIL)
            except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
                continue  # another process was quicker
        if trial.state in (TrialState.RUNNING, TrialState.FAIL):
            try_again(study, trial)


def _is_here(trial: FrozenTrial, directory: Path) -> bool:
    """Return whether a trial's folder is one of this search's.

    Machines may share a disk, or have a new name after a restart: there the folder itself tells.
    Others may have a folder of the same name each. A trial whose process died before it had a
    folder is anybody's on that machine.
    """
    same_host = host_of(trial.user_attrs.get("process", "")) == host_of(this_process())
    if "folder" not in trial.user_attrs:
        return same_host
    folder = Path(trial.user_attrs["folder"])
    return folder.is_relative_to(directory) and (same_host or folder.is_dir())


def try_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue again a failed trial that was not brought to an end; where that happened too often,
    record why it is not.

    One that has a folder has all its settings, and keeps them. One without may have some of them,
    and draws all anew: drawn from the same place they are the same.
    """
    deaths = _deaths(study, trial)
    chained = {"continues": trial.number}
    if deaths <= RETRIES:
        logger.info("trial %d was cut off and goes on", trial.number)
        params = trial.params if "folder" in trial.user_attrs else {}
        study.enqueue_trial(params, user_attrs=chained)
        return
    # Its settings may be what kills the process, by taking all memory for example: it is entered
    # once more as failed, so that the search goes on without it.
    reason = f"{deaths} processes that ran it died"
    logger.warning("trial %d is not tried again: %s", trial.number, reason)
    given_up = chained | {"reason": reason}
    if "folder" in trial.user_attrs:
        given_up["folder"] = trial.user_attrs["folder"]
    study.add_trial(
        optuna.create_trial(
            state=TrialState.FAIL,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs=given_up,
        )
    )


def _deaths(study: optuna.Study, trial: FrozenTrial) -> int:
    """Count the processes that died while they ran a trial or one that it goes on with.

    An orderly end is none: a preempted machine may cut a long trial off any number of times.
    """
    trials = study.get_trials(deepcopy=False)
    deaths = 0
    number: int | None = trial.number
    while number is not None:
        attributes = trials[number].user_attrs
        deaths += not attributes.get("cut_off")
        number = attributes.get("continues")
    return deaths


def dead(process: str) -> bool:
    """Return whether the process that ran a trial is known to be gone, by the name that it gave
    itself.
    """
    # This process has no trial under way while it looks.
    return process == this_process() or is_known_gone(process)


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """Return the best of the complete trials, the earliest of equals; None where there is none.

    A database returns any of equals: not the one whose adapter was left in its place, nor the same
    each time.
    """
    finite: list[FrozenTrial] = []
    for trial in study.get_trials(deepcopy=False):
        is_complete = trial.state == TrialState.COMPLETE
        if is_complete and trial.value is not None and math.isfinite(trial.value):
            finite.append(trial)
    # Trials come in the order of their numbers, and max takes the first of equals.
    return max(finite, key=lambda trial: trial.value or 0.0, default=None)


def free(study: optuna.Study, directory: Path, output: str) -> None:
    """Remove what trials that are not the best left behind, but for their figures.

    Args:
        study: the study.
        directory: this search's output folder, absolute.
        output: what a trial leaves in its folder, adapter or model.
    """
    best = best_trial(study)
    best_folder = best and best.user_attrs.get("folder")
    for trial in study.get_trials(deepcopy=False):
        # A trial that was cut off needs its checkpoint to go on.
        if "folder" not in trial.user_attrs or not has_ended(trial):
            continue
        # Two trials with equal settings share a folder, so the folder counts and not the number.
        if trial.user_attrs["folder"] == best_folder or not trial.state.is_finished():
            continue
        folder = Path(trial.user_attrs["folder"])
        # Other processes that share the study look after their own folders.
        if folder.is_relative_to(directory):
            for name in (output, "checkpoints"):
                shutil.rmtree(folder / name, ignore_errors=True)
