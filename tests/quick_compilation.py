"""How XLA compiles for the tests: quickly, since most of their time would go into compiling.

Models in tests are tiny, so it hardly matters how fast the compiled code is. Without optimization,
in one part rather than several that each repeat what they share, and with XLA's older and simpler
way of writing loops, a training step compiles in a quarter of the time. A test that trains for
long says so by :func:`with_optimization`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

_IN_ONE_PART = "--xla_cpu_parallel_codegen_split_count=1"


def _flags() -> str:
    """Return the flags that this jaxlib knows: XLA ends the process over one that it does not."""
    flags = f"--xla_backend_optimization_level=0 {_IN_ONE_PART}"
    version = importlib.metadata.version("jaxlib").split(".")
    if (int(version[0]), int(version[1])) < (0, 12):
        flags += " --xla_cpu_use_fusion_emitters=false"
    return flags


FLAGS = _flags()

MOST_KEPT_BYTES = 500_000_000
"""of compiled programs that a run leaves to later ones; beyond, all are forgotten"""


def compile_quickly() -> None:
    """Set XLA's flags for this process, before JAX is first used, and for those that it starts."""
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_backend_optimization_level" not in flags:  # else somebody has chosen
        os.environ["XLA_FLAGS"] = f"{flags} {FLAGS}".strip()


def keep_what_is_compiled(add_cleanup: Callable[[Callable[[], None]], None]) -> None:
    """Tell JAX, in all processes of this run and of later ones, to keep what it compiled.

    Workers, runs that are started again and many tests compile the same. What takes tenths of a
    second is kept too, since there is so much of it. JAX's keys know the program, the flags and the
    version of XLA. The programs lie in the virtual environment, and go with it.

    Args:
        add_cleanup: takes what is to be done when the run ends.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:  # somebody has chosen
        return
    if sys.prefix == sys.base_prefix:
        temporary = tempfile.TemporaryDirectory(prefix="jaxmodpo-compiled-")
        add_cleanup(temporary.cleanup)
        folder = Path(temporary.name)
    else:
        folder = Path(sys.prefix) / "compiled" / _processor()
        folder.mkdir(parents=True, exist_ok=True)
        if sum(entry.stat().st_size for entry in folder.iterdir()) > MOST_KEPT_BYTES:
            shutil.rmtree(folder)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    if any(folder.iterdir()):  # else there is nothing to look through, and no need of JAX here
        _remove_what_was_written_in_part(folder)


def _remove_what_was_written_in_part(folder: Path) -> None:
    """Remove programs of processes that were killed, as some tests kill theirs.

    JAX is imported here, and so reads its settings from the environment, which must be there.
    """
    from jaxmodpo.policy.compiled_programs import remove_broken_programs

    remove_broken_programs(folder)


def _processor() -> str:
    """Name what this processor can compute: a program compiled for another may not run on it."""
    description = Path("/proc/cpuinfo")
    lines = description.read_text().splitlines() if description.exists() else []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    whole = f"{platform.machine()} {platform.processor()} {features}"
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


def with_optimization() -> dict[str, str]:
    """Return the environment of a process that compiles as users' processes do, but in one part:
    several at once gain nothing where the cores are shared.
    """
    return os.environ | {"XLA_FLAGS": os.environ["XLA_FLAGS"].replace(FLAGS, _IN_ONE_PART)}
