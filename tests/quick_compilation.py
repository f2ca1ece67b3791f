"""How XLA compiles for the tests: quickly, since most of their time would go into compiling.

Models in tests are tiny, so it hardly matters how fast the compiled code is. Without optimization,
in one part rather than several that each repeat what they share, and with XLA's older and simpler
way of writing loops, a training step compiles in a quarter of the time. A test that trains for
long says so by :func:`with_optimization`.
"""

from __future__ import annotations

import importlib.metadata
import os


def _flags() -> str:
    """Return the flags that this jaxlib knows: XLA ends the process over one that it does not."""
    flags = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
    version = importlib.metadata.version("jaxlib").split(".")
    if (int(version[0]), int(version[1])) < (0, 12):
        flags += " --xla_cpu_use_fusion_emitters=false"
    return flags


FLAGS = _flags()


def compile_quickly() -> None:
    """Set XLA's flags for this process, before JAX is first used, and for those that it starts."""
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_backend_optimization_level" not in flags:  # else somebody has chosen
        os.environ["XLA_FLAGS"] = f"{flags} {FLAGS}".strip()


def with_optimization() -> dict[str, str]:
    """Return the environment of a process that compiles as users' processes do."""
    return os.environ | {"XLA_FLAGS": os.environ["XLA_FLAGS"].replace(FLAGS, "")}
