"""Replies of three models to a few questions."""

from __future__ import annotations

from pathlib import Path

import pytest
from known_order import PERSONAS, QUESTIONS, REPLIES, WORTH, reply

from jaxmodpo.files import write_json
from jaxmodpo.records import write_responses


@pytest.fixture
def work(tmp_path: Path) -> Path:
    for name in WORTH:
        replies = [reply(name, q, n) for q in range(QUESTIONS) for n in range(REPLIES)]
        write_responses(tmp_path / f"{name}.csv", replies)
    write_json(tmp_path / "personas.json", {f"p{n}": f"persona {n}" for n in range(PERSONAS)})
    (tmp_path / "criteria.yaml").write_text(
        "criteria:\n"
        + "".join(
            f"  - {{name: {name}, description: d, better_when: b, worse_when: w}}\n"
            for name in ("quality", "safety")
        )
    )
    return tmp_path
