"""Writing safetensors, with a full disk as the operating system says it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

_NUMBER = re.compile(r"os error (\d+)")


def save_tensors(tensors: Mapping[str, np.ndarray], path: Path, **metadata: str) -> None:
    """Write a safetensors file as PyTorch's users expect it; ``metadata`` stands in its header
    besides.

    Raises:
        OSError: it cannot be written. The library wraps what the system said, its number included,
            in an error of its own; commands end with one sentence for a full disk only where it is
            the system's.
    """
    try:
        save_file(dict(tensors), path, metadata={"format": "pt", **metadata})
    except SafetensorError as error:
        match = _NUMBER.search(str(error))
        if match is None:
            raise
        number = int(match[1])
        raise OSError(number, os.strerror(number), str(path)) from error
