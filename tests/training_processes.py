"""Trainings in processes of their own, which know each other, get signals and are watched."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

from forked_programs import ForkedPrograms, Program


def start_training(
    programs: ForkedPrograms,
    runs: Sequence[Sequence[str]],
    devices: int,
    after: int = 0,
    kind: str = "SIGTERM",
    watched: str = "updates",
) -> Program:
    """Start a process that runs commands one after the other.

    Args:
        programs: starts it.
        runs: the commands' arguments.
        devices: how many it has.
        after: it sends itself a signal at this update, or batch scored; with 0, never.
        kind: the signal's name.
        watched: what is counted: ``updates``, ``log-probabilities`` or ``rewards``.
    """
    request = {"runs": runs, "after": after, "signal": kind, "watched": watched}
    program = "import training_processes; training_processes.train()"
    flags = "--xla_cpu_multi_thread_eigen=false"
    return programs.start(program, [json.dumps(request)], devices, flags)


# --------------------------------------------------------------------------- the training process


def train() -> None:
    """Run the commands that this process's argument says."""
    request = json.loads(sys.argv[1])
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
