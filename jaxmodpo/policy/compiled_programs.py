"""What XLA compiles is kept on disk: a run that goes on after a preemption does not wait for it
again.

To compile a training step of 7 billion parameters takes minutes on every start of a run. JAX can
keep the compiled programs in a folder, under a key of the program, the compiler and the devices::

    keep_compiled_programs(config.cache_dir)      # before the first program runs
"""

from __future__ import annotations

import importlib
import logging
import sys
import zlib
from pathlib import Path

import jax

from jaxmodpo.fingerprints import cache_folder

logger = logging.getLogger(__name__)

COMPILED = "compiled"
"""the folder, in the cache"""

_CHECKED = "checked"
"""the file there whose time of change is the last check's"""

_ZSTANDARD = b"\x28\xb5\x2f\xfd"
"""how data begins that Zstandard has compressed"""


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
    # The first process alone writes to it.
    if jax.process_index() == 0:
        try:
            remove_broken_programs(folder)
        except OSError as error:
            # A run works without what was compiled before, only later.
            logger.warning("compiled programs in %s cannot be looked through: %s", folder, error)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # By default JAX keeps what took a second or more. A run has some 60 smaller programs, which
    # together take about as long to compile as its step.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    logger.info("compiled programs are kept in %s", folder)


def remove_broken_programs(folder: Path) -> int:
    """Remove programs of which a process that was killed has written only a part; return how many.

    JAX writes a program under its final name, and never again where there is one of that name: a
    part would be read and refused, and its program compiled, on every later start. What was there
    at an earlier check is not read again.

    Args:
        folder: where JAX keeps programs; made if it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder / _CHECKED
    last_check = marker.stat().st_mtime_ns if marker.exists() else 0
    # Touched first: what is written while the others are read is looked at the next time.
    marker.touch()
    broken = 0
    for path in folder.glob("*-cache"):
        try:
            is_broken = path.stat().st_mtime_ns >= last_check and not _is_whole(path.read_bytes())
        except FileNotFoundError:  # another run has removed it
            continue
        if is_broken:
            path.unlink(missing_ok=True)
            broken += 1
    if broken:
        logger.info(
            "%d compiled programs in %s had not been written whole: removed", broken, folder
        )
    return broken


def _is_whole(compressed: bytes) -> bool:
    """Whether a compressed program ends where its compression says; True where that cannot be told.

    JAX compresses with Zstandard where it finds it, and else with zlib.
    """
    if not compressed.startswith(_ZSTANDARD):
        try:
            zlib.decompress(compressed)
        except zlib.error:
            return False
        return True
    try:
        zstandard = importlib.import_module(
            "compression.zstd" if sys.version_info >= (3, 14) else "zstandard"
        )
    except ImportError:
        return True
    try:
        zstandard.decompress(compressed)
    except zstandard.ZstdError:
        return False
    return True
