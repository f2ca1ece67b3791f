"""A model that several tests of the sampler read."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import tiny_mistral


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sampling")
    return tiny_mistral(folder / "model", gain=8.0, vocab_size=16, num_key_value_heads=1)
