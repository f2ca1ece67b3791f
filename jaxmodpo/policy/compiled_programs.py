"""What XLA compiles is kept on disk: a run that goes on after a preemption does not wait for it
again.

To compile a training step of 7 billion parameters takes minutes on every start of a run. JAX can
keep the compiled programs in a folder, under a key of the program, the compiler and the devices::

    keep_compiled_programs(config.cache_dir)      # before the first program runs
"""

from __future__ import annotations

import logging
from pathlib import Path

import jax

from jaxmodpo.fingerprints import cache_folder

logger = logging.getLogger(__name__)

COMPILED = "compiled"
"""the folder, in the cache"""


def keep_compiled_programs(cache_dir: Path | None = None) -> None:
    """Let JAX keep compiled programs in the cache, and look there first.

    Nothing is changed where the user has chosen a folder (``JAX_COMPILATION_CACHE_DIR``), or has
    switched the cache off (``JAX_ENABLE_COMPILATION_CACHE=false``). Neither is it on CPUs: what is
    compiled for one may use instructions that another one with the same home folder lacks, and
    compiles in seconds anyway.

    Args:
        cache_dir: the command's; None for ``$JAXMODPO_CACHE`` or ``~/.cache/jaxmodpo``. Several
            hosts must share it, since the first one alone writes to it.
    """
    if jax.config.jax_compilation_cache_dir is not None:  # type: ignore[attr-defined]
        return
    if jax.default_backend() == "cpu":
        return
    folder = (cache_dir or cache_folder()) / COMPILED
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # By default JAX keeps what took a second or more. A run has some 60 smaller programs, which
    # together take about as long to compile as its step.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    logger.info("compiled programs are kept in %s", folder)
