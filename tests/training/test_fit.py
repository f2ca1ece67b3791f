"""Steps compiled ahead of time need what the arrays and the compiler say, and the roofline what
arithmetic says.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodpo.bench import fit as bench_fit
from jaxmodpo.bench import fit_search, fit_step
from jaxmodpo.bench.fit import fit
from jaxmodpo.bench.fit_settings import FitConfig
from jaxmodpo.bench.logps import matmul_flops
from jaxmodpo.data.batches import Batches
from jaxmodpo.data.reference_lengths import full_examples, reference_examples
from jaxmodpo.errors import UserError
from jaxmodpo.methods.dpo import DPO
from jaxmodpo.models import flops
from jaxmodpo.models.attention import Attention
from jaxmodpo.models.decoder import Decoder, parameter_table
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.lora import PROJECTIONS, LoraConfig, adapter_table
from jaxmodpo.models.parameters import count, initialize
from jaxmodpo.models.quantized import BaseDtype
from jaxmodpo.models.roberta import Roberta
from jaxmodpo.models.roberta import parameter_table as encoder_table
from jaxmodpo.models.shapes import decoder_shape, encoder_shape
from jaxmodpo.policy.mesh import make_mesh
from jaxmodpo.training.ahead import Compiled, compile_policy_step
from jaxmodpo.training.hardware import chip_of, chips, peak_flops
from jaxmodpo.training.roofline import policy_training, scoring

SETTINGS = {
    "model_type": "llama",
    "vocab_size": 256,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
CONFIG = DecoderConfig.from_mapping(SETTINGS, "test")
LORA = LoraConfig(rank=4, alpha=8.0, dropout=0.0)

tpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed"
)


@pytest.fixture
def quick_compiler():
    """XLA's quickest compilation for TPUs, which takes a quarter of the time.

    A program's arguments are the same, and its peak differs by a percent (2.35 GiB instead of 2.36
    for a 7B step on a v5e 4x4).
    """
    before = jax.config.values["jax_optimization_level"]
    jax.config.update("jax_optimization_level", "O0")
    yield
    jax.config.update("jax_optimization_level", before)


def batches(accumulation: int = 1, size: int = 4) -> Batches:
    examples = full_examples(16, 64).with_fields(reference_logps=np.zeros((16, 2), np.float32))
    return Batches(examples, batch_size=size, accumulation=accumulation)


def compiled(accumulation: int = 1, size: int = 4, base_dtype: BaseDtype = "bfloat16") -> Compiled:
    return compile_policy_step(
        CONFIG, LORA, DPO(0.1, 0.0), batches(accumulation, size), make_mesh(), base_dtype=base_dtype
    )


@pytest.mark.slow(seconds=8)
def test_arguments_are_the_base_in_its_format_and_three_float32_copies_of_the_adapter():
    table = parameter_table(CONFIG)
    projections = sum(
        spec.shape[0] * spec.shape[1] * spec.shape[2]
        for spec in table.values()
        if spec.layers and spec.transposed
    )
    others = count(table) - projections
    adapter = 3 * 4 * count(adapter_table(table, LORA))
    batch = 4 * 2 * 64 * 4
    per_weight: dict[BaseDtype, float] = {"bfloat16": 2.0, "int8": 1 + 4 / 64, "nf4": 0.5 + 1 / 64}
    for base_dtype, size in per_weight.items():
        found = compiled(base_dtype=base_dtype)
        expected = projections * size + 2 * others + adapter + batch
        assert found.arguments == pytest.approx(expected, rel=0.02), base_dtype
        assert found.fits and found.temporary > 0 and found.peak >= found.arguments


@pytest.mark.slow(seconds=3)
def test_microbatches_lower_what_the_step_needs():
    assert compiled(4, 4).temporary < compiled(1, 16).temporary


def test_counted_operations_are_those_of_the_traced_programs():
    lengths = np.full(3, 32)
    base = initialize(parameter_table(CONFIG), jax.random.key(0))
    lora = LoraConfig(rank=8, alpha=8.0, dropout=0.0, targets=PROJECTIONS)
    adapter = initialize(adapter_table(parameter_table(CONFIG), lora), jax.random.key(0))
    tokens = jnp.zeros((3, 32), jnp.int32)

    def total(adapter: dict[str, jax.Array], lora: LoraConfig | None) -> jax.Array:
        model = Decoder(CONFIG, base, lora, adapter if lora else None, Attention("xla"))
        return model.token_logps(tokens, chunk=None).sum()

    for settings in (None, lora):
        traced = matmul_flops(
            jax.make_jaxpr(lambda a, settings=settings: total(a, settings))(adapter).jaxpr
        )
        # No token follows the last one, whose logits the program leaves out.
        counted_flops = (
            flops.forward(CONFIG, settings, lengths)
            - 3 * 2.0 * CONFIG.hidden_size * CONFIG.vocab_size
        )
        # The program looks at every pair of positions, the count at those before.
        unseen = (
            3
            * 32
            * 31
            / 2
            * 4
            * CONFIG.num_hidden_layers
            * CONFIG.num_attention_heads
            * CONFIG.head_dim
        )
        assert traced == pytest.approx(counted_flops + unseen, rel=1e-6)
    gradient = matmul_flops(jax.make_jaxpr(jax.grad(lambda a: total(a, lora)))(adapter).jaxpr)
    # Of a first layer's seven inputs only the adapter learns: XLA drops products that the count
    # has.
    assert gradient == pytest.approx(flops.training(CONFIG, lora, lengths) + 3 * unseen, rel=0.1)


@pytest.mark.slow(seconds=2)
def test_an_encoders_counted_operations_are_those_of_the_traced_program():
    config = encoder_shape("roberta-base")
    config = dataclasses.replace(config, num_hidden_layers=2, vocab_size=64)
    parameters = initialize(encoder_table(config), jax.random.key(0))
    program = jax.make_jaxpr(
        lambda p: Roberta(config, p).rewards(jnp.zeros((2, 32), jnp.int32), jnp.full(2, 32), None)
    )(parameters)
    head = 2.0 * 2 * config.hidden_size * (config.hidden_size + 1)
    assert matmul_flops(program.jaxpr) == pytest.approx(
        flops.encoder_forward(config, np.full(2, 32)) + head, rel=1e-3
    )


def test_a_window_limits_what_attention_sees():
    windowed = DecoderConfig.from_mapping(
        SETTINGS | {"model_type": "mistral", "sliding_window": 4, "head_dim": 32}, "test"
    )
    positions_seen = sum(min(position + 1, 4) for position in range(10))
    assert flops.attention(windowed, np.array([10])) == 4.0 * 2 * 4 * 32 * positions_seen


def test_seven_billion_parameters_train_at_four_operations_a_token_and_parameter():
    config = decoder_shape("mistral-7b-v0.1")
    lora = LoraConfig(64, 128.0, 0.05)
    trained = count(parameter_table(config)) - config.vocab_size * config.hidden_size
    flops_per_token = flops.training(config, lora, np.array([1])) / (4 * trained)
    adapter = count(adapter_table(parameter_table(config), lora))
    assert flops_per_token == pytest.approx(1 + 6 * adapter / (4 * trained), rel=1e-3)


def test_known_chips_have_numbers_and_unknown_ones_none():
    assert all(
        value > 0
        for chip in chips()
        for value in (chip.flops, chip.hbm_gib, chip.bandwidth, chip.network)
    )
    assert (
        peak_flops("TPU v5 lite") == 197e12
        and peak_flops("cpu") is None
        and chip_of("TPU v9") is None
    )


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("NVIDIA H200", "H200 SXM"),
        ("NVIDIA H200 141GB HBM3e", "H200 SXM"),
        ("NVIDIA H200 NVL", "H200 NVL"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("A100-SXM4-40GB", "A100 40GB"),
        ("NVIDIA A100 80GB PCIe", "A100 PCIe"),
        ("A100 80GB", "A100 PCIe"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA GB200", "GB200"),
        ("TPU v5 lite", "TPU v5e"),
        ("TPU v5p", "TPU v5p"),
        ("NVIDIA  H100 80gb HBM3 ", "H100 SXM"),
        # A part of a chip, and chips that only begin like one that is known.
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA H100", None),
        ("NVIDIA GH200 480GB", None),
        ("TPU v5 litepod", None),
        ("", None),
    ],
)
def test_a_chip_is_known_by_every_name_that_jax_has_for_it_and_by_no_other(kind, name):
    chip = chip_of(kind)
    assert (chip.name if chip else None) == name


def test_no_two_chips_have_a_name_in_common():
    kinds = [kind.casefold() for chip in chips() for kind in chip.kinds]
    names = [chip.name for chip in chips()]
    assert len(set(kinds)) == len(kinds) and len(set(names)) == len(names)


def test_the_roofline_is_what_arithmetic_says():
    chip = chip_of("TPU v5 lite")
    assert chip is not None
    config, lora = decoder_shape("mistral-7b-v0.1"), LoraConfig(64, 128.0, 0.05)
    examples = reference_examples(64).with_fields(reference_logps=np.zeros((64, 2), np.float32))
    work = {}
    for batching in ("packed", "padded"):
        made = Batches(examples, batch_size=4, batching=batching)
        work[batching] = policy_training(
            config, lora, made, make_mesh(), base_dtype="bfloat16", remat="full"
        )
    packed, padded = work["packed"], work["padded"]
    assert packed.useful == padded.useful < packed.executed < padded.executed
    assert packed.network == 0 and packed.memory > 3 * 2 * count(parameter_table(config))
    assert packed.bounds(chip)["arithmetic"] == packed.executed / chip.flops
    assert packed.seconds_at(0.5, chip) == packed.useful / chip.flops / 0.5
    scored = scoring(config, lora, made, make_mesh(), base_dtype="bfloat16")
    assert 0.3 < scored.useful / padded.useful < 0.55


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(SETTINGS | {"num_key_value_heads": 4}))
    return str(path)


@tpu
@pytest.mark.usefixtures("quick_compiler")
@pytest.mark.slow(seconds=60)
def test_a_real_7b_step_compiles_for_a_tpu_pod_that_is_not_here(capsys):
    fit(FitConfig(topology="v5e:4x4", model="mistral-7b-v0.1", remat="full", json=True))
    printed = json.loads(capsys.readouterr().out)
    assert printed["fits"] and printed["chips"] == 16 and printed["mesh"] == [1, 16, 1]
    weights = 2 * count(parameter_table(decoder_shape("mistral-7b-v0.1"))) / 16
    assert weights < printed["argument_bytes"] < 1.2 * weights
    assert (
        printed["argument_bytes"]
        < printed["peak_bytes"]
        < 5 * 2**30
        < printed["hbm_bytes"]
        == int(15.75 * 2**30)
    )
    assert printed["updates"] == 3 * -(-2379 // 16) and printed["over_bytes"] == 0
    assert (
        printed["half_mfu_chip_hours"]
        > printed["half_mfu_seconds"] * printed["updates"] * 16 / 3600
    )


@tpu
@pytest.mark.usefixtures("quick_compiler")
@pytest.mark.slow
def test_too_large_a_step_is_an_answer(capsys):
    fit(
        FitConfig(
            topology="v5e:1x1",
            model="mistral-7b-v0.1",
            base_dtype="float32",
            batch_size=2,
            length=64,
            remat="full",
        )
    )
    printed = capsys.readouterr().out
    assert "does not fit: at least " in printed and "GiB too much" in printed
    assert "To make it fit, try: " in printed and "--base-dtype int8 or nf4" in printed


@tpu
@pytest.mark.usefixtures("quick_compiler")
@pytest.mark.slow
@pytest.mark.parametrize("step", ["score", "reward"])
def test_scoring_and_reward_steps_compile_too(capsys, tiny, tmp_path, step):
    model = tiny
    if step == "reward":
        model = str(tmp_path / "roberta.json")
        settings = {
            "model_type": "roberta",
            "vocab_size": 64,
            "hidden_size": 64,
            "intermediate_size": 64,
        }
        settings |= {
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 66,
        }
        (tmp_path / "roberta.json").write_text(json.dumps(settings))
    fit(
        FitConfig(
            topology="v5e:2x2",
            model=model,
            step=step,
            batch_size=4,
            length=64,
            lengths="full",
            json=True,
        )
    )
    printed = json.loads(capsys.readouterr().out)
    assert printed["fits"] and printed["step"] == step and printed["chips"] == 4


@pytest.mark.parametrize("room", [7, 18, 1000])
def test_the_search_finds_the_largest_batch_that_fits(capsys, tiny, monkeypatch, room):
    """Memory here is 1 GiB and 1/4 for each pair, but for a step at 40 pairs."""
    chip = dataclasses.replace(chips()[0], hbm_gib=room)
    sizes = []

    def pretended(config, made, mesh, remat):
        sizes.append(config.batch_size)
        peak = int((1 + config.batch_size / 4 + (config.batch_size > 40)) * 2**30)
        work, before = scoring(CONFIG, LORA, made, mesh, base_dtype="bfloat16"), None
        return Compiled(peak <= room * 2**30, 1, 1, peak, 0, 0.0), work, before

    monkeypatch.setattr(fit_step, "_compiled_step", pretended)
    monkeypatch.setattr(fit_step, "chip_of", lambda kind: chip)
    monkeypatch.setattr(fit_search, "chip_of", lambda kind: chip)
    monkeypatch.setattr(bench_fit, "topology_devices", lambda *_: jax.devices())
    shape = {"model": tiny, "length": 64, "lora_rank": 4, "examples": 200}
    # Rows hold what the pretended memory does not look at; packing them takes seconds.
    shape["batching"] = "padded"
    fit(FitConfig(search=True, json=True, remat="full", **shape))
    printed = json.loads(capsys.readouterr().out)
    assert printed["batch_size"] == {7: 24, 18: 64, 1000: 200}[room] and printed["fits"]
    assert len(sizes) == len(set(sizes)) < 8


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"topology": "v4:2x2x1"}, "cannot compile for 'v4:2x2x1'"),
        ({"topology": "v9z:1x1"}, "cannot compile for 'v9z:1x1'"),
        ({"topology": "cuda:1x1x8"}, "needs --target-config"),
        ({"model": "mistral-7b"}, "no model shape, file or folder 'mistral-7b'"),
        ({"batch_size": 0}, "--batch-size must be at least 1"),
        ({"length": 1}, "--length must be at least 8"),
    ],
)
def test_what_cannot_be_compiled_is_refused_in_one_sentence(changes, said):
    with pytest.raises(UserError, match=said):
        fit(FitConfig(**changes))
