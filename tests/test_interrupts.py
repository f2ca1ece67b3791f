"""Both signals end a command wherever it is, also where Python drops exceptions."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

SCRIPT = """
import gc, os, signal, sys, time
from jaxmodpo.errors import Preempted
from jaxmodpo.interrupts import interrupts

def during_collection(phase, info):
    gc.callbacks.clear()
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))

with interrupts():
    try:
        gc.callbacks.append(during_collection)
        gc.collect()  # what a callback raises here is dropped by Python
        for _ in range(100):
            time.sleep(0.05)
        print("went on")
    except KeyboardInterrupt:
        print("interrupted")
    except Preempted:
        print("preempted")
"""


@pytest.mark.parametrize(
    ("name", "expected"), [("SIGINT", "interrupted"), ("SIGTERM", "preempted")]
)
def test_a_signal_that_lands_in_a_callback_is_not_lost(name, expected):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{SCRIPT}",
            name,
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == expected, done.stderr
    assert "Traceback" not in done.stderr


def test_handlers_are_put_back():
    from jaxmodpo.interrupts import interrupts

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), sys.unraisablehook
    with interrupts():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert (
        signal.getsignal(signal.SIGINT),
        signal.getsignal(signal.SIGTERM),
        sys.unraisablehook,
    ) == before
