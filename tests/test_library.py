"""The code of docs/library.md, as it stands there, on a tiny model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import tiny_mistral

from jaxmodpo.policy.loaded import load_policy

PAGE = Path(__file__).parents[1] / "docs" / "library.md"


@pytest.mark.slow(seconds=15)
def test_the_page_trains_a_policy_and_writes_its_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    page = PAGE.read_text()
    tiny_mistral(tmp_path / "model", page, vocab_size=512)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for number, block in enumerate(
        re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL), 1
    ):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)

    assert names["before"].shape == (4, 2)
    np.testing.assert_array_equal(names["before"], names["reference"])
    updates = [
        json.loads(line)["step"] for line in Path("run/metrics.jsonl").read_text().splitlines()
    ]
    assert updates == [5, 10, 15, 20]
    # The loss is less than that of the untrained policy, which has no margin of its own.
    untrained = np.log1p(np.exp(0.3 * names["margins"][:, 0] / 0.7))
    assert (names["losses"] < untrained).all()
    assert (names["implicit_margins"] > 0).all()
    expected = np.log1p(np.exp(-(names["implicit_margins"] - 0.3 * names["margins"][:, 0]) / 0.7))
    np.testing.assert_allclose(names["losses"], expected, rtol=1e-4)
    loaded = load_policy(names["folder"], base_dtype="bfloat16", adapter=names["adapter"])
    np.testing.assert_array_equal(loaded.logps(names["examples"], rows=4), names["after"])
