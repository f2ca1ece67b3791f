"""Steps compiled ahead of time need what the arrays and the compiler say."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

from jaxmodpo.bench.memory import BenchMemoryConfig, bench_memory
from jaxmodpo.errors import UserError
from jaxmodpo.methods.dpo import DPO
from jaxmodpo.models.decoder import DecoderConfig, parameter_table
from jaxmodpo.models.lora import LoraConfig, adapter_table
from jaxmodpo.models.parameters import count
from jaxmodpo.models.quantised import BaseDtype
from jaxmodpo.training.fit import fit_step, topology_mesh

CONFIG = DecoderConfig.from_mapping(
    {
        "model_type": "llama",
        "vocab_size": 256,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "test",
)
LORA = LoraConfig(rank=4, alpha=8.0, dropout=0.0)
FIELDS = {
    "tokens": ((4, 2, 64), jnp.int32),
    "prompt_lengths": ((4, 2), jnp.int32),
    "lengths": ((4, 2), jnp.int32),
    "reference_logps": ((4, 2), jnp.float32),
    "row_weights": ((4,), jnp.float32),
}


def test_arguments_are_the_base_in_its_format_and_three_float32_copies_of_the_adapter():
    table = parameter_table(CONFIG)
    projections = sum(
        spec.shape[0] * spec.shape[1] * spec.shape[2] for spec in table.values() if spec.layers and spec.transposed
    )
    others = count(table) - projections
    adapter = 3 * 4 * count(adapter_table(table, LORA))
    batch = 4 * 2 * 64 * 4
    per_weight: dict[BaseDtype, float] = {"bfloat16": 2.0, "int8": 1 + 4 / 64, "nf4": 0.5 + 1 / 64}
    for base_dtype, size in per_weight.items():
        found = fit_step(CONFIG, LORA, DPO(0.1, 0.0), FIELDS, topology_mesh(None), base_dtype=base_dtype)
        expected = projections * size + 2 * others + adapter + batch
        assert found.arguments == pytest.approx(expected, rel=0.02), base_dtype
        assert found.temporary > 0 and found.total >= found.arguments


def test_microbatches_lower_what_the_step_needs():
    whole, parts = (
        fit_step(CONFIG, LORA, DPO(0.1, 0.0), FIELDS, topology_mesh(None), microbatches=n).temporary for n in (1, 4)
    )
    assert parts < whole


def test_the_benchmark_prints_a_row_for_each_format(capsys, monkeypatch):
    monkeypatch.setattr("jaxmodpo.bench.memory.shape", lambda name: CONFIG)
    bench_memory(BenchMemoryConfig(topology=None, pairs=2, length=32, lora_rank=4))
    printed = capsys.readouterr().out
    assert all(f"| {name}" in printed for name in ("bfloat16", "int8", "nf4"))


def test_an_unknown_topology_or_shape_is_refused():
    with pytest.raises(UserError, match="cannot compile for 'v9z:1x1'"):
        topology_mesh("v9z:1x1")
    with pytest.raises(UserError, match="no model shape 'mistral-7b'"):
        bench_memory(BenchMemoryConfig(shape="mistral-7b", topology=None))
