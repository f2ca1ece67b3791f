"""Programs in processes of their own, which begin with everything imported.

A process has as many devices as it was started with, and gets signals and ends for itself, so tests
about these need one of their own. To import everything takes it four seconds of a core, which a
process that is forked off one that has done so does not need. That one has not yet asked JAX for
devices: each fork still chooses its own.

This file is both sides: the class is the tests', and run as a program the file is the process that
forks.
"""

from __future__ import annotations

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

COMMAND = "import sys; from jaxmodpo.cli import main; main(sys.argv[1:])"
"""a program that is ``jaxmodpo``"""


class Program(NamedTuple):
    """A process that was started, and the file of what it prints."""

    pid: int
    log: Path


class ForkedPrograms:
    """Starts programs and waits for their ends.

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

    def __enter__(self) -> ForkedPrograms:
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
        program: str,
        arguments: Sequence[str] = (),
        devices: int = 1,
        xla_flags: str = "",
    ) -> Program:
        """Start a program.

        Args:
            program: its Python source.
            arguments: its ``sys.argv[1:]``.
            devices: how many CPU devices JAX has in it.
            xla_flags: that it has beside this process's.
        """
        self.count += 1
        log = self.folder / f"process{self.count}.txt"
        request = {
            "program": program,
            "arguments": list(arguments),
            "xla_flags": f" --xla_force_host_platform_device_count={devices} {xla_flags}",
            "log": str(log),
        }
        return Program(self._answer(request), log)

    def run(self, program: str, arguments: Sequence[str] = (), devices: int = 1) -> str:
        """Run a program to its end, which must be a good one, and return what it printed."""
        started = self.start(program, arguments, devices)
        self.end_well([started])
        return started.log.read_text(errors="replace")

    def end_well(self, programs: Sequence[Program], seconds: float = 300) -> None:
        """Wait for the ends of programs, which must be good ones."""
        endings = self.endings(programs, seconds)
        failed = [output[-3000:] for code, output in endings if code != 0]
        assert not failed, "\n\n".join(failed)

    def endings(self, programs: Sequence[Program], seconds: float = 300) -> list[tuple[int, str]]:
        """Return the exit code, negative where a signal ended it, and the output of each; those
        that have not ended in time are killed.
        """
        until = time.monotonic() + seconds
        running = list(programs)
        endings: list[tuple[int, str]] = []
        try:
            for program in programs:
                code = self._ending(program, max(1.0, until - time.monotonic()))
                output = program.log.read_text(errors="replace")
                assert code is not None, f"no end within {seconds} s:\n{output[-3000:]}"
                running.remove(program)
                endings.append((code, output))
        finally:
            for program in running:
                os.kill(program.pid, signal.SIGKILL)
                self._ending(program, 30)
        return endings

    def _ending(self, program: Program, seconds: float) -> int | None:
        """Return the exit code, or None where it goes on after so many seconds."""
        return self._answer({"wait": program.pid, "seconds": seconds})

    def _answer(self, request: dict[str, Any]) -> Any:
        assert self.forks.stdin is not None and self.forks.stdout is not None
        self.forks.stdin.write(json.dumps(request) + "\n")
        self.forks.stdin.flush()
        return json.loads(self.forks.stdout.readline())


# --------------------------------------------------------------------------- the forking process


def fork_programs() -> None:
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
            # to say goodbye to other processes runs too.
            return _run(request)
        print(pid, flush=True)


def _import_everything() -> None:
    import jaxmodpo.cli
    import jaxmodpo.flags.parse
    import jaxmodpo.methods.modpo
    import jaxmodpo.methods.score
    import jaxmodpo.sampling.command
    import jaxmodpo.search.tune  # noqa: F401


def _ending(pid: int, seconds: float) -> int | None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    return None


def _run(request: dict[str, Any]) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number, opened in enumerate((nothing, log, log)):
        os.dup2(opened, number)
    # XLA reads its flags when JAX first looks for devices.
    os.environ["XLA_FLAGS"] += request["xla_flags"]
    sys.argv[1:] = request["arguments"]
    program = compile(request["program"], "program", "exec")
    exec(program, {"__name__": "__main__"})


if __name__ == "__main__":
    fork_programs()
