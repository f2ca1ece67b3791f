"""Arrays that are computed once and kept: reference log-probabilities and reward margins.

An entry's file is named by a digest of everything it depends on, so that it is either right or not found.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load_file, save_file

from jaxmodpo.artifacts import atomic_path, digest
from jaxmodpo.data.examples import Examples

logger = logging.getLogger(__name__)


def default_folder() -> Path:
    """``$JAXMODPO_CACHE``, or ``~/.cache/jaxmodpo``."""
    return Path(os.environ.get("JAXMODPO_CACHE", Path.home() / ".cache" / "jaxmodpo"))


def examples_digest(examples: Examples) -> str:
    """Hash the token arrays that a score depends on."""
    hasher = hashlib.sha256()
    for array in (examples.tokens, examples.prompt_lengths, examples.lengths):
        hasher.update(repr(array.shape).encode())
        hasher.update(np.ascontiguousarray(array).tobytes())
    return hasher.hexdigest()


def cached(
    what: str, depends_on: Mapping[str, Any], compute: Callable[[], np.ndarray], folder: Path | None
) -> np.ndarray:
    """Return ``compute()``, from disk where it was computed before.

    Args:
        what: names the quantity, in the file's name and the log.
        depends_on: JSON values: model fingerprint, data digest, settings. Library version and device
            are added, since they move the last bits.
        compute: makes the array.
        folder: of the cache; None for the default one.
    """
    key = digest(
        {
            "what": what,
            **depends_on,
            "jax": jax.__version__,
            "device": jax.devices()[0].device_kind,
        }
    )
    path = (folder or default_folder()) / f"{what}-{key[:32]}.safetensors"
    if path.is_file():
        logger.info("%s: from the cache, %s", what, path)
        return load_file(path)["values"]
    values = np.ascontiguousarray(compute())
    with atomic_path(path) as temporary:
        save_file({"values": values}, temporary)
    return values
