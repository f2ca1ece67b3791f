"""Trainings in processes of their own, which know each other, get signals and are watched.

To import everything takes six seconds of a core. So the processes are forked off one that has
imported all and has not yet asked JAX for devices: each still has devices, XLA flags, signals and
an ending of its own. This file is both sides: the class is the tests', and run as a program the
file is the process that forks.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple


class Training(NamedTuple):
    """A process that trains, and the file of what it prints."""

    pid: int
    log: Path


class TrainingProcesses:
    """Starts trainings and waits for their ends.

    Args:
        folder: gets a file for each process, of all that it prints.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        self.forks = subprocess.Popen(
            [sys.executable, __file__],
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> TrainingProcesses:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.forks.kill()
        self.forks.communicate()

    def start(
        self,
        runs: Sequence[Sequence[str]],
        devices: int,
        after: int = 0,
        kind: str = "SIGTERM",
        watched: str = "updates",
    ) -> Training:
        """Start a process that runs commands one after the other.

        Args:
            runs: the commands' arguments.
            devices: how many it has.
            after: it sends itself a signal at this update, or batch scored; with 0, never.
            kind: the signal's name.
            watched: what is counted: ``updates``, ``log-probabilities`` or ``rewards``.
        """
        self.count += 1
        log = self.folder / f"process{self.count}.txt"
        request = {
            "runs": runs,
            "devices": devices,
            "after": after,
            "signal": kind,
            "watched": watched,
            "log": str(log),
        }
        return Training(self._answer(request), log)

    def endings(self, trainings: Sequence[Training], seconds: float = 300) -> list[tuple[int, str]]:
        """Return the exit code and the output of each; those that have not ended in time are
        killed.
        """
        until = time.monotonic() + seconds
        running = list(trainings)
        endings: list[tuple[int, str]] = []
        try:
            for training in trainings:
                left = max(1.0, until - time.monotonic())
                code = self._answer({"wait": training.pid, "seconds": left})
                assert code is not None, f"no end within {seconds} s:\n{_tail(training)}"
                running.remove(training)
                endings.append((code, training.log.read_text(errors="replace")))
        finally:
            for training in running:
                os.kill(training.pid, signal.SIGKILL)
                self._answer({"wait": training.pid, "seconds": 30})
        return endings

    def _answer(self, request: dict[str, Any]) -> Any:
        assert self.forks.stdin is not None and self.forks.stdout is not None
        self.forks.stdin.write(json.dumps(request) + "\n")
        self.forks.stdin.flush()
        return json.loads(self.forks.stdout.readline())


def _tail(training: Training) -> str:
    return training.log.read_text(errors="replace")[-3000:]


# --------------------------------------------------------------------------- the forking process


def fork_trainings() -> None:
    """Fork a process for each line that asks for one, and say how it ended to a line that waits."""
    _import_everything()
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            print(json.dumps(_ending(request["wait"], request["seconds"])), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            # It returns from here, so that Python ends as in any process: what JAX has registered
            # to say goodbye to the other processes runs too.
            return _train(request)
        print(pid, flush=True)


def _import_everything() -> None:
    import jaxmodpo.cli
    import jaxmodpo.flags.parse
    import jaxmodpo.methods.modpo
    import jaxmodpo.search.tune  # noqa: F401


def _ending(pid: int, seconds: float) -> int | None:
    """Return the exit code, negative where a signal ended it; None where it goes on."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    return None


def _train(request: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        os.close(0)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    # XLA reads its flags when JAX first looks for devices.
    os.environ["XLA_FLAGS"] += (
        f" --xla_force_host_platform_device_count={request['devices']}"
        " --xla_cpu_multi_thread_eigen=false"
    )
    if request["signal"] == "SIGKILL":
        # That a process has died is to be noticed within the test's time. Elsewhere a busy machine
        # may keep a process from its turn for longer than this.
        from jaxmodpo.policy import distributed

        distributed.HEARTBEAT_SECONDS = 10
    _watch(request["watched"], request["after"], getattr(signal, request["signal"]))
    from jaxmodpo.cli import main

    for arguments in request["runs"]:
        main(arguments)


def _watch(watched: str, after: int, kind: signal.Signals) -> None:
    """Count updates or batches scored, send the signal at one of them, and check that a parameter's
    moments lie where it does.
    """
    from jaxmodpo.methods import reward_model
    from jaxmodpo.policy import loaded
    from jaxmodpo.training import trainer

    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1
        if calls == after:
            os.kill(os.getpid(), kind)

    step = trainer.train_step

    def watched_step(state: Any, *positional: Any, **named: Any) -> Any:
        count()
        for name, moment in state.moments[1].mu.items():
            parameter = state.trainable[name].sharding
            if not moment.sharding.is_equivalent_to(parameter, moment.ndim):
                sys.exit(f"{name} lies in {parameter}, its moments in {moment.sharding}")
        return step(state, *positional, **named)

    def watched_scoring(*positional: Any, **named: Any) -> Any:
        count()
        if 0 < after <= calls or watched == "rewards":
            # JAX looks for a signal once a second and then tells the other processes. The batches
            # that are left would be scored sooner; those of a real model take longer. Rewards are
            # computed by each process for itself: no wait for the other one slows it down.
            time.sleep(1)
        return scoring(*positional, **named)

    if watched == "log-probabilities":
        scoring = loaded.sequence_logps
        loaded.sequence_logps = watched_scoring  # type: ignore[assignment]
    elif watched == "rewards":
        scoring = reward_model._score
        reward_model._score = watched_scoring  # type: ignore[assignment]
    else:
        # The trainer compiles the step before it makes the first one.
        watched_step.lower = step.lower  # type: ignore[attr-defined]
        trainer.train_step = watched_step  # type: ignore[assignment]


if __name__ == "__main__":
    fork_trainings()
