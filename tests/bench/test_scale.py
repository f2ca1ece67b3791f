"""``bench scale`` measures what it says at every size, and fits how it grows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jaxmodpo.bench import scale_costs
from jaxmodpo.bench.growth import fitted_exponent
from jaxmodpo.bench.scale import BenchScaleConfig, bench_scale, growth_along, table
from jaxmodpo.bench.scale_costs import PEAK, StepSize, emulated_step_costs
from jaxmodpo.bench.turns import Timing, in_turns
from jaxmodpo.errors import UserError

SHAPE = {
    "model_type": "mistral",
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "sliding_window": None,
}


@pytest.mark.slow(seconds=20)
def test_every_axis_is_measured_and_written_with_the_machine(tmp_path: Path, capsys):
    (tmp_path / "shape.json").write_text(json.dumps(SHAPE))
    bench_scale(
        BenchScaleConfig(
            model=str(tmp_path / "shape.json"),
            pairs=(10, 20),
            lengths=(8,),
            layers=(1,),
            adapters=(2,),
            devices=(2,),
            length=8,
            lora_rank=2,
            json=tmp_path / "scale.json",
        )
    )
    record = json.loads((tmp_path / "scale.json").read_text())
    growths = {(growth["axis"], growth["cost"]): growth for growth in record["growths"]}
    assert len(growths) == 3 + 3 * 3 + 1
    assert all(cost > 0 for growth in growths.values() for cost in growth["costs"])
    # One size tells nothing of growth.
    assert growths["pairs", "tokens"]["exponent"] is not None
    assert growths["layers", "compiling"]["exponent"] is None
    assert record["machine"]["cores"] >= 1 and "| pairs " in capsys.readouterr().out


def test_a_cost_that_is_the_square_of_the_size_has_the_exponent_two():
    config = BenchScaleConfig()

    def measure(_: BenchScaleConfig, size: int) -> dict[str, float]:
        return {"an update": 3.0 * size**2, PEAK: 2.0**20}

    growths = list(growth_along("lengths", (10, 100, 1000), measure, config))
    assert [growth.cost for growth in growths] == ["an update", PEAK]
    assert growths[0].exponent == pytest.approx(2) and growths[1].exponent == pytest.approx(0)
    header, _, first, second = table(growths).splitlines()
    assert "| exponent |" in header
    assert "| 10, 100, 1,000 | an update" in first and "| 2.00 " in first
    assert "| 1, 1, 1 " in second and "MiB" in second


def test_an_exponent_needs_two_sizes_and_costs_above_nothing():
    assert fitted_exponent([1, 4, 16], [2, 8, 32]) == pytest.approx(1)
    assert fitted_exponent([4, 4], [1, 2]) is None
    assert fitted_exponent([1, 2], [0, 1]) is None


def test_a_process_that_fails_is_told_in_a_sentence(tmp_path: Path, monkeypatch):
    no_python = tmp_path / "python"
    no_python.write_text("#!/bin/sh\necho no devices >&2\nexit 1\n")
    no_python.chmod(0o755)
    monkeypatch.setattr(scale_costs.sys, "executable", str(no_python))
    with pytest.raises(UserError, match="a step on 2 devices failed: no devices"):
        emulated_step_costs(StepSize(model="tiny-mistral", length=8, rank=1), 2)


def test_contenders_take_turns_and_a_timing_has_a_median_and_a_spread():
    order: list[str] = []
    seconds = iter([1.0, 5.0, 2.0, 5.0, 6.0, 5.0])

    def run(name: str) -> float:
        order.append(name)
        return next(seconds)

    timings = in_turns({"a": lambda: run("a"), "b": lambda: run("b")}, rounds=3)
    assert order == ["a", "b"] * 3
    assert timings["a"] == Timing((1.0, 2.0, 6.0)) and timings["b"].spread == 0
    assert (timings["a"].median, timings["a"].fastest, timings["a"].spread) == (2.0, 1.0, 2.5)
