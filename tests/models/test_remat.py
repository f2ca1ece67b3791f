"""Computing again what was not kept changes memory, not numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodpo.bench.logps import matmul_flops
from jaxmodpo.data.batches import Batches, Batching
from jaxmodpo.data.reference_lengths import comparing, every_pair, reference_examples
from jaxmodpo.methods.dpo import DPO
from jaxmodpo.methods.reward_model import RewardLoss
from jaxmodpo.models import flops
from jaxmodpo.models.attention import Attention
from jaxmodpo.models.decoder import Decoder, parameter_table
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.lora import LoraConfig, adapter_table
from jaxmodpo.models.parameters import initialize
from jaxmodpo.models.quantized import BaseDtype, is_projection, is_quantized, quantize
from jaxmodpo.models.remat import LADDER, Remat
from jaxmodpo.models.roberta import Roberta
from jaxmodpo.models.roberta import parameter_table as encoder_table
from jaxmodpo.models.roberta_config import RobertaConfig
from jaxmodpo.policy.mesh import make_mesh
from jaxmodpo.training.policy_loss import PolicyLoss

SHAPE = DecoderConfig.from_mapping(
    {
        "model_type": "llama",
        "vocab_size": 64,
        "hidden_size": 128,
        "intermediate_size": 64,
        "num_hidden_layers": 5,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 64,
    },
    "test",
)
LORA = LoraConfig(rank=4, alpha=8.0, dropout=0.2)


def operations(gradient: Callable[..., Any], *arguments: Any) -> float:
    return matmul_flops(jax.make_jaxpr(gradient)(*arguments).jaxpr)


def count_of(primitive: str, jaxpr: Any) -> int:
    """Count an operation in a program and all programs within it but those without results, which
    the compiler leaves out.
    """
    count = 0
    for equation in jaxpr.eqns:
        if not equation.outvars:
            continue
        count += equation.primitive.name == primitive
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                count += count_of(primitive, inner)
    return count


def assert_same(ours: Any, expected: Any) -> None:
    """Compare losses and gradients; where large terms cancel, what is left has their rounding."""
    loss, gradient = expected
    np.testing.assert_allclose(ours[0], loss, rtol=1e-6)
    largest = max(float(jnp.abs(array).max()) for array in gradient.values())
    for name, wanted in gradient.items():
        got = ours[1][name]
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6 * largest, err_msg=name)


def base_of(base_dtype: BaseDtype) -> dict[str, jax.Array]:
    """Return random weights as a base holds them."""
    table = parameter_table(SHAPE)
    weights = initialize(table, jax.random.key(0))
    base: dict[str, jax.Array] = {}
    for name, weight in weights.items():
        if not (is_quantized(base_dtype) and is_projection(table[name])):
            base[name] = weight
            continue
        layers = [quantize(layer, base_dtype) for layer in weight]
        for layer_part in layers[0]:
            base[f"{name}.{layer_part}"] = jnp.stack([layer[layer_part] for layer in layers])
    return base


def adapter_of(seed: int = 1) -> dict[str, jax.Array]:
    """Return an adapter of which no part is zero, as half of a fresh one is."""
    table = adapter_table(parameter_table(SHAPE), LORA)
    keys = jax.random.split(jax.random.key(seed), len(table))
    return {
        name: 0.1 * jax.random.normal(key, spec.shape)
        for key, (name, spec) in zip(keys, table.items(), strict=True)
    }


@pytest.mark.slow(seconds=12)
@pytest.mark.parametrize(
    ("base_dtype", "batching", "policies"),
    [
        ("float32", "packed", LADDER[1:]),
        ("float32", "padded", ("attention",)),
        ("int8", "packed", ("attention",)),
        ("nf4", "packed", ("dots",)),
    ],
)
def test_a_policys_loss_and_gradient_are_the_same(
    base_dtype: BaseDtype, batching: Batching, policies: tuple[Remat, ...]
):
    """Questions of three replies each, every two of which are a pair; with dropout."""
    examples = reference_examples(3, replies=3, share=1 / 16, vocab_size=64)
    examples = comparing(examples, every_pair(3))
    examples = examples.with_fields(reference_logps=np.zeros((3, 3), np.float32))
    batches = Batches(examples, batch_size=3, batching=batching)
    batch = {name: array[0] for name, array in batches.at(0).items()}
    base = base_of(base_dtype)
    adapter = adapter_of()

    def measured(remat: Remat) -> Any:
        loss = PolicyLoss(SHAPE, LORA, DPO(0.1), Attention("xla"), remat)

        def total(adapter: dict[str, jax.Array]) -> jax.Array:
            return loss(adapter, base, batch, jax.random.key(5)).total

        return jax.jit(jax.value_and_grad(total))(adapter)

    without_remat = measured("none")
    assert all(np.abs(gradient).max() > 0 for gradient in without_remat[1].values())
    for remat in policies:
        assert_same(measured(remat), without_remat)


@pytest.mark.slow(seconds=4)
@pytest.mark.parametrize(
    ("batching", "policies"), [("packed", LADDER[1:]), ("padded", ("attention",))]
)
def test_an_encoders_loss_and_gradient_are_the_same(
    batching: Batching, policies: tuple[Remat, ...]
):
    config = RobertaConfig(64, 16, 24, 2, 2, 80, dropout=0.1)
    parameters = initialize(encoder_table(config), jax.random.key(0))
    examples = comparing(reference_examples(3, share=1 / 16, vocab_size=64), every_pair(2))
    batches = Batches(examples, batch_size=3, batching=batching)
    batch = {name: array[0] for name, array in batches.at(0).items()}

    def measured(remat: Remat) -> Any:
        loss = RewardLoss(config, remat)

        def total(parameters: dict[str, jax.Array]) -> jax.Array:
            return loss(parameters, {}, batch, jax.random.key(2)).total

        return jax.jit(jax.value_and_grad(total))(parameters)

    without_remat = measured("none")
    for remat in policies:
        assert_same(measured(remat), without_remat)


def test_a_decoder_computes_again_what_is_counted():
    tokens = jnp.zeros((3, 32), jnp.int32)
    base = base_of("float32")

    def executed(remat: Remat) -> float:
        def total(adapter: dict[str, jax.Array]) -> jax.Array:
            model = Decoder(SHAPE, base, LORA, adapter, Attention("xla"))
            return model.token_logps(tokens, remat=remat).sum()

        return operations(jax.grad(total), adapter_of())

    kept_flops = executed("none")
    lengths = np.full(3, 32)
    # XLA looks at every pair of positions, the count at those before; and to have no statistics
    # means to compute the scores again, which are half of attention.
    pairs = 3 * 32 * 32 * 4.0 * SHAPE.num_hidden_layers * SHAPE.num_attention_heads * SHAPE.head_dim
    counted_pairs = flops.attention(SHAPE, lengths)
    for remat in LADDER[1:]:
        counted_flops = flops.recomputed(SHAPE, LORA, lengths, remat)
        counted_flops += pairs / 2 if remat == "attention" else pairs - counted_pairs
        assert executed(remat) - kept_flops == pytest.approx(counted_flops, rel=1e-6), remat


def test_an_encoder_computes_again_what_is_counted():
    config = RobertaConfig(64, 32, 48, 2, 2, 40, dropout=0.0)
    parameters = initialize(encoder_table(config), jax.random.key(0))

    def executed(remat: Remat) -> float:
        def total(parameters: dict[str, jax.Array]) -> jax.Array:
            model = Roberta(config, parameters, Attention("xla"))
            return model.rewards(jnp.zeros((2, 32), jnp.int32), jnp.full(2, 32), None, remat).sum()

        return operations(jax.grad(total), parameters)

    kept_flops = executed("none")
    lengths = np.full(2, 32)
    # Of two texts of 32 tokens: all of them in the first layer, each text's first in the last.
    scores = 2.0 * config.hidden_size * 2 * (32 * 32 + 32)
    for remat in LADDER[1:]:
        counted_flops = flops.encoder_recomputed(config, lengths, remat) + scores * (
            remat == "attention"
        )
        assert executed(remat) - kept_flops == pytest.approx(counted_flops, rel=1e-6), remat


@pytest.mark.parametrize("on_mesh", [False, True])
def test_a_kernels_output_and_statistics_are_kept_and_its_forward_pass_is_not_repeated(on_mesh):
    shape = dataclasses.replace(SHAPE, head_dim=128)
    attention = Attention("splash", make_mesh() if on_mesh else None, interpret=True)
    base = initialize(parameter_table(shape), jax.random.key(0))
    table = adapter_table(parameter_table(shape), LORA)
    adapter = initialize(table, jax.random.key(1))
    tokens = jnp.zeros((1, 128), jnp.int32)

    def kernels(remat: Remat) -> int:
        def total(adapter: dict[str, jax.Array]) -> jax.Array:
            model = Decoder(shape, base, LORA, adapter, attention)
            return model.token_logps(tokens, remat=remat).sum()

        return count_of("pallas_call", jax.make_jaxpr(jax.grad(total))(adapter).jaxpr)

    # Forward, and backward for the queries and for keys and values.
    assert kernels("none") == kernels("attention") == 3
    assert kernels("full") == kernels("dots") == 4


def test_cudnns_output_and_statistics_are_kept_and_its_forward_pass_is_not_repeated(monkeypatch):
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    # Tracing asks for the library's version and the GPU's; nothing is run here.
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(cudnn, "check_compute_capability", lambda capability: True)
    monkeypatch.setattr(cudnn, "is_cuda_compute_capability_equal", lambda capability: False)
    base = {name: array.astype(jnp.bfloat16) for name, array in base_of("float32").items()}

    def kernels(remat: Remat) -> int:
        def total(adapter: dict[str, jax.Array]) -> jax.Array:
            model = Decoder(SHAPE, base, LORA, adapter, Attention("cudnn"))
            return model.token_logps(jnp.zeros((1, 128), jnp.int32), remat=remat).sum()

        program = jax.make_jaxpr(jax.grad(total))(adapter_of()).jaxpr
        return count_of("dot_product_attention_fwd_wrapper", program)

    assert kernels("none") == kernels("attention") == 1
    assert kernels("full") == kernels("dots") == 2
