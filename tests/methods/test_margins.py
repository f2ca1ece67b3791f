"""Margins: their sources, their scale, and what is said of them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from jaxmodpo.data.pairs import load_pairs
from jaxmodpo.errors import UserError
from jaxmodpo.methods.align import PolicyRun, TrainingData
from jaxmodpo.methods.margins import (
    Margins,
    MarginSource,
    Scaling,
    describe,
    margin_sources,
    read_margins,
)
from jaxmodpo.rankings import LeftOut
from jaxmodpo.training.settings import PolicyTrainingConfig


def test_sources_are_told_apart_by_their_prefix():
    assert MarginSource.parse("out/reward") == MarginSource("reward", "out/reward")
    assert MarginSource.parse("adapter:out/a") == MarginSource("adapter", "out/a")
    column = MarginSource.parse("column:score_chosen,score_rejected")
    assert column.kind == "column" and column.folder is None
    for wrong in ("adapter:", "column:", "column:a,b,c"):
        with pytest.raises(UserError, match="--margin"):
            MarginSource.parse(wrong)
    with pytest.raises(UserError, match="at least one --margin"):
        margin_sources({})


def test_the_correlation_takes_each_pair_in_both_orders():
    generator = np.random.default_rng(0)
    margins = generator.normal(0.3, 1.0, 500)
    both = np.concatenate([margins, -margins])
    labels = np.repeat([1.0, -1.0], 500)
    description = describe(margins)
    assert description["correlation_with_primary"] == pytest.approx(np.corrcoef(both, labels)[0, 1])
    assert description["agrees_with_primary"] == pytest.approx((margins > 0).mean())
    assert describe(np.ones(5))["correlation_with_primary"] == 1.0
    assert describe(np.zeros(5)) | {"margin_quantiles": []} == {
        "margin_mean": 0.0, "margin_std": 0.0, "margin_quantiles": [],
        "agrees_with_primary": 0.5, "correlation_with_primary": 0.0,
    }  # fmt: skip


def test_the_table_says_whether_an_objective_repeats_or_conflicts():
    generator = np.random.default_rng(0)
    columns = {
        "same": 1 + 0.1 * generator.random(50), "against": -1 + 0.1 * generator.random(50),
        "other": generator.normal(size=50),
    }  # fmt: skip
    values = np.stack(list(columns.values()), 1)
    table = Margins(
        tuple(columns), values, {name: describe(column) for name, column in columns.items()}
    ).rewards_table()
    lines = table.splitlines()
    assert "repeats the primary" in lines[1] and "conflicts with the primary" in lines[2]
    assert "independent of the primary" in lines[3]
    assert any(line.startswith("same and against: correlation -1.00") for line in lines)


@pytest.mark.parametrize(
    ("values", "standardize", "gain", "refused"),
    [
        ([1e39, 1.0, 2.0], False, 1.0, True),
        ([3e38, 1.0, 2.0], False, 10.0, True),
        ([1e200, 1.0, 2.0], True, 1.0, True),  # whose squares are too large even for float64
        ([1e39, 1.0, 2.0], True, 1.0, False),
        ([3e38, 1.0, 2.0], False, 1.0, False),
    ],
)
def test_margins_too_large_for_float32_are_refused(tmp_path, values, standardize, gain, refused):
    rows = [
        {"prompt": f"q{n}", "chosen": "a", "rejected": "b", "m": value}
        for n, value in enumerate(values)
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = load_pairs(tmp_path / "p.jsonl")
    none: Any = None  # a column needs no model
    config = PolicyTrainingConfig(
        model=tmp_path, output_dir=tmp_path / "out", validation_fraction=0.0
    )
    run = PolicyRun(config, none, none, none)
    data = TrainingData(pairs, none, LeftOut(), np.zeros(len(pairs), bool))
    scaling = Scaling(standardize, gain)

    def margins() -> np.ndarray:
        source = {"safety": MarginSource("column", "m")}
        return read_margins(source, tmp_path / "p.jsonl", data, run, scaling, beta=0.1).values

    if refused:
        with pytest.raises(
            UserError, match=r"the margin safety \(m\) is too large to train with: its values reach"
        ):
            margins()
    else:
        assert np.isfinite(margins()).all() and margins()[0, 0] > 1
