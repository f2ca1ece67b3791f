"""Quantized weights against an independent NumPy implementation, and bitsandbytes where it is at
hand.
"""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodpo.errors import UserError
from jaxmodpo.models import quantized
from jaxmodpo.models.parameters import Spec

# The sixteen values of the QLoRA paper's appendix E, as published.
PUBLISHED = """-1.0 -0.6961928009986877 -0.5250730514526367 -0.39491748809814453 -0.28444138169288635
-0.18477343022823334 -0.09105003625154495 0.0 0.07958029955625534 0.16093020141124725 0.24611230194568634
0.33791524171829224 0.44070982933044434 0.5626170039176941 0.7229568362236023 1.0"""


def weight(inputs: int = 256, outputs: int = 192, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(inputs, outputs)).astype(np.float32)


def numpy_nf4(weight_IO: np.ndarray) -> np.ndarray:
    """NF4 with double quantization in plain loops over bitsandbytes' flattened [out, in] layout."""
    levels = np.array([float(x) for x in PUBLISHED.split()])
    positive = []
    for decade in range(7):
        bounds = np.linspace(0.1, 1, 2**decade + 1)
        positive += [10.0 ** (decade - 6) * (a + b) / 2 for a, b in itertools.pairwise(bounds)]
    dynamic = np.sort(np.array([*positive, *[-x for x in positive], 0.0, 1.0]))
    flat = weight_IO.T.astype(np.float64).reshape(-1, quantized.BLOCK)
    scales = np.abs(flat).max(1)
    values = levels[np.abs(flat[..., None] / scales[:, None, None] - levels).argmin(-1)]
    mean = scales.mean()
    coded = []
    for start in range(0, len(scales), quantized.SCALE_BLOCK):
        block = scales[start : start + quantized.SCALE_BLOCK] - mean
        largest = np.abs(block).max()
        coded += [largest * dynamic[np.abs(x / largest - dynamic).argmin()] + mean for x in block]
    return (values * np.array(coded)[:, None]).reshape(weight_IO.T.shape).T


def test_nf4_levels_are_the_published_ones_and_normal_quantiles():
    np.testing.assert_array_equal(quantized.NF4_LEVELS, np.array(PUBLISHED.split(), np.float32))
    scipy_stats = pytest.importorskip("scipy.stats")
    # Eight quantiles above 0 and seven below, at even steps up to the offset of the paper's
    # footnote.
    offset = 0.9677083
    above = scipy_stats.norm.ppf(np.linspace(offset, 0.5, 9)[:-1])
    below = -scipy_stats.norm.ppf(np.linspace(offset, 0.5, 8)[:-1])
    levels = np.sort(np.concatenate([above, below, [0.0]])) / above.max()
    np.testing.assert_allclose(quantized.NF4_LEVELS, levels, atol=2e-6)


def test_dynamic_levels_are_256_ascending_and_symmetric_but_for_one():
    levels = quantized.DYNAMIC_LEVELS
    assert (
        levels.shape == (256,)
        and (np.diff(levels) > 0).all()
        and levels[-1] == 1
        and levels[127] == 0
    )
    np.testing.assert_array_equal(levels[:127], -levels[128:255][::-1])


@pytest.mark.parametrize("shape", [(256, 192), (448, 96), (64, 33)])
def test_nf4_equals_an_independent_implementation(shape):
    w = weight(*shape)
    arrays = jax.jit(quantized.quantize, static_argnums=1)(jnp.asarray(w), "nf4")
    ours = np.asarray(quantized.dequantize(arrays, jnp.float32))
    np.testing.assert_allclose(ours, numpy_nf4(w), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nf4_equals_bitsandbytes(dtype):
    torch = pytest.importorskip("torch", reason="bitsandbytes needs torch")
    functional = pytest.importorskip("bitsandbytes.functional", reason="compares with bitsandbytes")
    np.testing.assert_array_equal(quantized.DYNAMIC_LEVELS, functional.create_dynamic_map().numpy())
    w = torch.tensor(weight(320, 128).T.copy(), dtype=getattr(torch, dtype))
    packed, state = functional.quantize_4bit(
        w, blocksize=64, compress_statistics=True, quant_type="nf4"
    )
    arrays = jax.jit(quantized.quantize, static_argnums=1)(
        jnp.asarray(w.float().numpy()).T.astype(dtype), "nf4"
    )
    bytes_ = packed.numpy().reshape(w.shape[0], -1)
    codes = np.stack([bytes_ >> 4, bytes_ & 15], -1).reshape(w.shape).T
    np.testing.assert_array_equal(np.asarray(arrays["codes"]).astype(int), codes)
    np.testing.assert_allclose(arrays["scale_blocks"], state.state2.absmax.numpy(), rtol=1e-6)
    np.testing.assert_allclose(arrays["scale_offset"], state.offset.numpy(), rtol=1e-6)
    theirs = state.absmax.numpy().reshape(w.shape[0], -1).T.astype(int)
    difference = np.abs(np.asarray(arrays["scales"]).astype(int) - theirs)
    # Its CPU kernel looks codes up in a coarse table, so that near the middle of two levels it may
    # take the farther.
    assert difference.max() <= 1 and (difference > 0).mean() < 0.02
    ours = np.asarray(quantized.dequantize(arrays, jnp.float32))
    same = np.repeat(difference == 0, quantized.BLOCK, axis=0)
    expected = functional.dequantize_4bit(packed, state).float().numpy().T
    np.testing.assert_allclose(
        ours[same], expected[same], rtol=2e-6 if dtype == "float32" else 5e-3, atol=1e-7
    )


@pytest.mark.parametrize(("base_dtype", "error"), [("int8", 0.006), ("nf4", 0.1)])
def test_a_quantized_matmul_is_that_of_the_dequantized_weight_and_near_the_exact_one(
    base_dtype, error
):
    w, x = weight(), np.random.default_rng(1).normal(size=(5, 256)).astype(np.float32)
    arrays = quantized.quantize(jnp.asarray(w), base_dtype)
    named = {f"w.{name}": array for name, array in arrays.items()}

    def total(x):
        return jnp.sum(jnp.sin(quantized.matmul(x, named, "w")))

    dense = quantized.dequantize(arrays, jnp.float32)
    np.testing.assert_allclose(
        quantized.matmul(jnp.asarray(x), named, "w"), x @ dense, rtol=1e-4, atol=1e-4
    )
    assert np.sqrt(np.mean((dense - w) ** 2) / np.mean(w**2)) < error
    np.testing.assert_allclose(
        jax.jit(jax.grad(total))(jnp.asarray(x)),
        jax.grad(lambda x: jnp.sum(jnp.sin(x @ dense)))(x),
        atol=1e-4,
    )


@pytest.mark.slow(seconds=3)
def test_the_backward_pass_keeps_codes_and_not_the_dequantized_weight():
    layers, width = 8, 512
    parts = jax.vmap(lambda w: quantized.quantize(w, "nf4"))(
        jnp.asarray(np.stack([weight(width, width, n) for n in range(layers)]))
    )

    def total(x, parts):
        def body(x, layer):
            return jnp.tanh(quantized.matmul(x, {f"w.{n}": a for n, a in layer.items()}, "w")), None

        return jnp.sum(jax.lax.scan(body, x, parts)[0])

    memory = jax.jit(jax.grad(total)).lower(jnp.ones((4, width)), parts).compile().memory_analysis()
    assert memory is not None
    # All layers' weights in float32 would be 8 MiB; one layer's is 1 MiB.
    assert memory.temp_size_in_bytes < 4 * width * width * 4


def test_looking_levels_up_by_comparing_bits_is_looking_them_up():
    codes = jnp.arange(16, dtype=jnp.int32)
    np.testing.assert_array_equal(
        quantized.compared_levels(codes, quantized.NF4_LEVELS), quantized.NF4_LEVELS
    )


def test_the_stored_table_has_a_spec_for_each_part_with_the_parts_shape_and_type():
    spec = Spec((3, 128, 80), ("layers", "embed", "heads"), "a.{layer}.weight", transposed=True)
    norm = Spec((3, 128), ("layers", None), "n.{layer}.weight", "ones")
    kinds: tuple[quantized.BaseDtype, ...] = ("int8", "nf4")
    for base_dtype in kinds:
        stored = quantized.stored_table({"layers.w": spec, "layers.n": norm}, base_dtype)
        assert stored["layers.n"] == norm and "layers.w" not in stored
        arrays = jax.eval_shape(
            functools.partial(quantized.quantize, base_dtype=base_dtype),
            jax.ShapeDtypeStruct((128, 80), jnp.bfloat16),
        )
        assert {f"layers.w.{name}" for name in arrays} == set(stored) - {"layers.n"}
        for name, array in arrays.items():
            stored_array = stored[f"layers.w.{name}"]
            assert (
                stored_array.shape == (3, *array.shape) and stored_array.dtype == array.dtype.name
            )
    assert quantized.stored_table({"layers.w": spec}, "bfloat16") == {"layers.w": spec}
    with pytest.raises(UserError, match=r"64 divides; layers\.w has 96"):
        quantized.stored_table(
            {"layers.w": Spec((1, 96, 4), spec.axes, spec.key, transposed=True)}, "nf4"
        )
