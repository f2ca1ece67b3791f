"""What is computed once and kept: tokens, reference log-probabilities, reward margins.

An entry's file is named by a digest of everything it depends on, so that it is either right or not
there. Deleting the folder costs time and nothing else::

    depends_on = {"model": fingerprint(folder), "examples": examples_digest(examples)}
    def compute():
        return policy.logps(examples, rows=4, reference=True)

    logps = cached("reference-logps", depends_on, compute, None)
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open

from jaxmodpo.data.examples import Examples
from jaxmodpo.data.text import Cut
from jaxmodpo.files import atomic_path
from jaxmodpo.fingerprints import cache_folder, digest
from jaxmodpo.models.tensors import save_tensors
from jaxmodpo.policy.distributed import broadcast, broadcast_array, leads

logger = logging.getLogger(__name__)


def examples_digest(examples: Examples) -> str:
    """Hash the token arrays that a score depends on.

    Fields such as margins are no part of it: a score does not depend on them.
    """
    hasher = hashlib.sha256()
    for array in (examples.tokens, examples.prompt_lengths, examples.lengths):
        # Without the shape, the same bytes cut into other rows would have the same hash.
        hasher.update(repr(array.shape).encode())
        hasher.update(np.ascontiguousarray(array).tobytes())
    return hasher.hexdigest()


def cached(
    quantity: str,
    depends_on: Mapping[str, Any],
    compute: Callable[[], np.ndarray],
    folder: Path | None,
) -> np.ndarray:
    """Return ``compute()``, from disk where it was computed before.

    Args:
        quantity: names the quantity, in the file's name and the log.
        depends_on: JSON values: model fingerprint, data digest, settings. Library version and
            device are added, since they move the last bits.
        compute: makes the array, float32, in every process together.
        folder: of the cache; None for the default one. The leading process alone reads and writes
            it.
    """
    device = jax.devices()[0].device_kind
    key = digest({"what": quantity, **depends_on, "jax": jax.__version__, "device": device})
    path = (folder or cache_folder()) / f"{quantity}-{key[:32]}.safetensors"
    # The leader alone looks, and all hear what it saw: processes whose folders differ would part
    # ways here, and those that compute would wait in a collective for those that do not.
    entry = _read(path) if leads() else None
    if broadcast(lambda: entry is not None):
        logger.info("%s: from the cache, %s", quantity, path)
        return broadcast_array(entry["values"] if entry is not None else None)
    values = np.ascontiguousarray(compute())
    if leads():
        _write(path, {"values": values})
    return values


def _content_digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Hash an entry's arrays: names, types, shapes and values."""
    hasher = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        hasher.update(repr((name, str(array.dtype), array.shape)).encode())
        hasher.update(array.tobytes())
    return hasher.hexdigest()


def _write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an entry, whole or not at all."""
    # Tokens are people's words.
    with atomic_path(path, private=True) as temporary:
        save_tensors(arrays, temporary, digest=_content_digest(arrays))


def _read(path: Path) -> dict[str, np.ndarray] | None:
    """Return an entry's arrays, or None where there is no entry or a damaged one, which is warned
    of.

    The file's name says what the entry depends on, but not that its bytes are still those that were
    written. An entry without a digest counts as damaged: nobody can tell.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            recorded = (file.metadata() or {}).get("digest")
        if recorded == _content_digest(arrays):
            return arrays
    except (SafetensorError, OSError, ValueError):
        pass  # as damaged as one with another digest
    logger.warning("%s is damaged or without a digest; it is computed anew", path)
    return None


def cached_examples(
    quantity: str,
    depends_on: Mapping[str, Any],
    cut: Cut,
    compute: Callable[[], Examples],
    folder: Path | None,
) -> Examples:
    """Return tokenized examples, from disk where they were tokenized before; every process for
    itself.

    Args:
        quantity: names the examples.
        depends_on: JSON values: texts' digest, tokenizer's digest, settings.
        cut: the truncation counter. Its counts are cached with the tokens, and added again when
            they are read.
        compute: tokenizes.
        folder: of the cache; None for the default one.
    """
    key = digest({"what": quantity, **depends_on})
    path = (folder or cache_folder()) / f"{quantity}-{key[:32]}.safetensors"
    entry = _read(path)
    if entry is not None:
        logger.info("%s: from the cache, %s", quantity, path)
        cut.add(*entry.pop("cut").tolist())
        return Examples(**entry, fields={})
    # The counter may have counted other texts before: only what these add belongs to the entry.
    counts_before = cut.counts
    examples = compute()
    if leads():
        arrays = {name: getattr(examples, name) for name in ("tokens", "prompt_lengths", "lengths")}
        _write(path, {**arrays, "cut": np.subtract(cut.counts, counts_before)})
    return examples
