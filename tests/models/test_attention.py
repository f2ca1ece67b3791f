"""Every attention backend against a plain one, in interpret mode or by compilation where hardware
is missing.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodpo.errors import UserError
from jaxmodpo.models import attention, tokamax_attention
from jaxmodpo.models.attention import Attention
from jaxmodpo.models.tokamax_attention import key_ranges
from jaxmodpo.policy.mesh import make_mesh


def plain(q, k, v, *, causal, window, segments):
    """Masks and softmax written out, keys and values repeated."""
    group = q.shape[2] // k.shape[2]
    k, v = (np.repeat(np.asarray(x, np.float64), group, axis=2) for x in (k, v))
    scores = np.einsum("bqhc,bkhc->bhqk", np.asarray(q, np.float64), k) / np.sqrt(q.shape[-1])
    position = np.arange(q.shape[1])
    mask = np.ones((q.shape[1], q.shape[1]), bool)
    if causal:
        mask &= position[:, None] >= position
    if window is not None:
        mask &= position[:, None] - position < window
    mask = np.broadcast_to(mask, (q.shape[0], 1, *mask.shape)).copy()
    if segments is not None:
        mask &= (segments[:, :, None] == segments[:, None, :])[:, None]
    scores = np.where(mask, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bhqk,bkhc->bqhc", weights / weights.sum(-1, keepdims=True), v)


def inputs(time: int, width: int, heads: int = 4, groups: int = 2):
    random = np.random.default_rng(0)
    draw = (
        random.normal(size=(2, time, n, width)).astype(np.float32) for n in (heads, groups, groups)
    )
    segments = np.sort(random.integers(0, 3, (2, time)), axis=1)
    return *map(jnp.asarray, draw), segments


CASES = [
    {"causal": True, "window": None, "packed": False},
    {"causal": True, "window": 5, "packed": False},
    {"causal": True, "window": None, "packed": True},
    {"causal": True, "window": 5, "packed": True},
    {"causal": False, "window": None, "packed": True},
]
IDS = ["causal", "window", "packed", "packed-window", "encoder"]


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_xla_attention_is_the_written_out_one(case):
    q, k, v, segments = inputs(33, 16)
    segments_or_none = segments if case["packed"] else None
    ours = Attention("xla")(
        q,
        k,
        v,
        causal=case["causal"],
        window=case["window"],
        segments_BT=None if segments_or_none is None else jnp.asarray(segments_or_none),
    )
    expected = plain(
        q, k, v, causal=case["causal"], window=case["window"], segments=segments_or_none
    )
    np.testing.assert_allclose(ours, expected, atol=2e-6)


def test_a_few_places_see_what_they_see_among_all():
    q, k, v, segments = inputs(time=24, width=16, heads=2, groups=2)
    places = np.array([[0, 9, 23], [5, 5, 17]])
    out = Attention("xla").at_places(
        q[np.arange(2)[:, None], places],
        k,
        v,
        segments_BK=jnp.asarray(np.take_along_axis(segments, places, axis=1)),
        segments_BT=jnp.asarray(segments),
    )
    expected = plain(q, k, v, causal=False, window=None, segments=segments)
    np.testing.assert_allclose(out, expected[np.arange(2)[:, None], places], rtol=1e-5, atol=1e-5)


@pytest.mark.slow(seconds=2)
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_splash_attention_is_the_written_out_one(case):
    # 150 positions: more than a block, and not a multiple of one.
    q, k, v, segments = inputs(150, 128)
    segments_or_none = segments if case["packed"] else None
    arguments = {"causal": case["causal"], "window": case["window"]}
    segments_BT = None if segments_or_none is None else jnp.asarray(segments_or_none)
    attention = Attention("splash", mesh=make_mesh(), interpret=True)
    ours = attention(q, k, v, **arguments, segments_BT=segments_BT)
    np.testing.assert_allclose(
        ours, plain(q, k, v, **arguments, segments=segments_or_none), atol=2e-5
    )


@pytest.mark.slow(seconds=2)
def test_splash_gradients_equal_xlas():
    q, k, v, segments = inputs(150, 128)
    options = {"causal": True, "window": 40, "segments_BT": jnp.asarray(segments)}

    def total(attention, q, k, v):
        return jnp.sum(jnp.sin(attention(q, k, v, **options)))

    ours, expected = (
        jax.grad(total, argnums=(1, 2, 3))(attention, q, k, v)
        for attention in (Attention("splash", interpret=True), Attention("xla"))
    )
    for mine, theirs in zip(ours, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-5 * float(jnp.abs(theirs).max()) + 1e-6)


def test_grouped_keys_and_values_are_never_repeated():
    q, k = (jax.ShapeDtypeStruct((1, 1024, heads, 64), jnp.bfloat16) for heads in (32, 1))
    attention = Attention("xla")
    memory = (
        jax.jit(lambda q, k, v: attention(q, k, v, causal=True).sum())
        .lower(q, k, k)
        .compile()
        .memory_analysis()
    )
    jaxpr = str(jax.make_jaxpr(lambda q, k, v: attention(q, k, v, causal=True))(q, k, k))
    assert (
        memory is not None
        and "bf16[1,1024,32,64] = broadcast" not in jaxpr
        and "repeat" not in jaxpr
    )


def test_auto_takes_what_the_devices_can_do():
    assert Attention().choose(128, jnp.bfloat16) == "xla"  # a CPU
    with pytest.raises(UserError, match="head width that 128 divides; this model's is 64"):
        Attention("splash").choose(64, jnp.bfloat16)
    with pytest.raises(UserError, match="cuDNN attention needs bfloat16"):
        Attention("cudnn").choose(64, jnp.float32)
    assert Attention("cudnn").choose(128, jnp.bfloat16) == "cudnn"
    with pytest.raises(
        UserError, match=r"^--attention cudnn needs an NVIDIA GPU, and this runs on a CPU; leave"
    ):
        Attention("cudnn").check(128, jnp.bfloat16)
    with pytest.raises(
        UserError, match=r"^--attention splash needs a TPU, and this runs on a CPU; leave"
    ):
        Attention("splash").check(128, jnp.bfloat16)


def test_attention_that_is_not_here_is_refused_before_weights_are_looked_for(tmp_path):
    from jaxmodpo.models.shapes import SHAPES
    from jaxmodpo.policy.loaded import load_policy

    (tmp_path / "config.json").write_text(json.dumps(SHAPES["mistral-7b-v0.2"]))
    with pytest.raises(UserError, match="--attention cudnn needs an NVIDIA GPU"):
        load_policy(tmp_path, base_dtype="bfloat16", attention="cudnn")
    with pytest.raises(UserError, match=r"has no model\.safetensors"):
        load_policy(tmp_path, base_dtype="bfloat16")


COMPILE = """
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec as P
from jaxmodpo.models.attention import Attention
from jaxmodpo.training.ahead import topology_mesh
mesh = topology_mesh("v5e:2x2", (1, 2, 2))
attention = Attention("auto", mesh)
assert attention.choose(128, jnp.bfloat16) == "splash"
place = NamedSharding(mesh, P(("data", "fsdp"), None, "tensor", None))
q, k = (jax.ShapeDtypeStruct((4, 512, heads, 128), jnp.bfloat16, sharding=place) for heads in (8, 2))
s = jax.ShapeDtypeStruct((4, 512), jnp.int32, sharding=NamedSharding(mesh, P(("data", "fsdp"), None)))
f = lambda q, k, v, s: attention(q, k, v, causal=True, window=100, segments_BT=s).astype(jnp.float32).sum()
text = jax.jit(jax.grad(f, argnums=(0, 1, 2))).lower(q, k, k, s).compile().as_text()
assert "tpu_custom_call" in text
"""


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="compiling for a TPU needs libtpu"
)
def test_splash_attention_compiles_for_a_tpu_mesh(forked_programs):
    forked_programs.run(COMPILE)


def test_a_jax_that_computes_gradients_of_masks_is_named_once(caplog):
    attention._warn_of_mask_gradients.cache_clear()
    attention._warn_of_mask_gradients((0, 11, 1))
    attention._warn_of_mask_gradients((0, 12, 0))
    assert not caplog.records
    for _ in range(2):
        attention._warn_of_mask_gradients((0, 10, 2))
    (record,) = caplog.records
    assert "0.10.2" in record.getMessage() and "JAX 0.11.1 or later" in record.getMessage()
    attention._warn_of_mask_gradients.cache_clear()


# --------------------------------------------------------------------------- Tokamax


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_ranges_of_keys_are_the_mask(case):
    time = 33
    *_, segments = inputs(time, 16)
    if not case["packed"]:
        segments = np.zeros_like(segments)
    start, end = key_ranges(jnp.asarray(segments), causal=case["causal"], window=case["window"])
    positions = np.arange(time)
    mask = positions >= np.asarray(start)[:, :, None]
    if end is None:
        assert case["causal"]
        mask &= positions <= positions[:, None]
    else:
        mask &= positions < np.asarray(end)[:, :, None]
    expected = segments[:, :, None] == segments[:, None, :]
    if case["causal"]:
        expected &= positions <= positions[:, None]
    if case["window"] is not None:
        expected &= positions[:, None] - positions < case["window"]
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_tokamax_attention_and_its_gradients_are_the_written_out_ones(case):
    pytest.importorskip("tokamax._src.ops.attention.base", reason="no tokamax here (an extra)")
    q, k, v, segments = inputs(33, 16)
    options = {"causal": case["causal"], "window": case["window"]}
    segments_BT = jnp.asarray(segments) if case["packed"] else None
    ours = Attention("tokamax", mesh=make_mesh(), interpret=True)
    expected = plain(q, k, v, **options, segments=segments if case["packed"] else None)
    np.testing.assert_allclose(
        ours(q, k, v, **options, segments_BT=segments_BT), expected, atol=2e-6
    )

    def total(attention, q, k, v):
        return jnp.sum(jnp.sin(attention(q, k, v, **options, segments_BT=segments_BT)))

    gradients = jax.grad(total, argnums=(1, 2, 3))
    for mine, theirs in zip(
        gradients(ours, q, k, v), gradients(Attention("xla"), q, k, v), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_tokamax_is_refused_by_name_where_it_cannot_run(monkeypatch):
    with pytest.raises(UserError, match="at most 256; this model has bfloat16 and 260"):
        Attention("tokamax").choose(260, jnp.bfloat16)
    with pytest.raises(UserError, match="this model has float32 and 128"):
        Attention("tokamax").choose(128, jnp.float32)
    with pytest.raises(UserError, match="--attention tokamax needs an NVIDIA GPU"):
        Attention("tokamax").check(128, jnp.bfloat16)
    for capability, kind in (("8.0", "NVIDIA A100"), ("12.0", "NVIDIA GeForce RTX 5090")):
        other = types.SimpleNamespace(compute_capability=capability, device_kind=kind)
        with pytest.raises(UserError, match=f"backward pass; this one, {kind}, has {capability}"):
            tokamax_attention.refuse_device(cast(jax.Device, other))
    hopper = types.SimpleNamespace(compute_capability="9.0", device_kind="NVIDIA H200")
    tokamax_attention.refuse_device(cast(jax.Device, hopper))
    # An import of what stands there as None fails as that of a package that is not installed.
    monkeypatch.setitem(sys.modules, "tokamax._src.ops.attention", None)
    with pytest.raises(UserError, match=r"needs the package tokamax .* 'jaxmodpo\[tokamax\]'"):
        Attention("tokamax", interpret=True).check(128, jnp.bfloat16)


class _Kernels:
    """Stands for Tokamax's modules: a kernel that refuses one direction, as theirs do."""

    def __init__(self, refused: str):
        self._refused = refused

    @staticmethod
    def Mask(**ranges):
        return ranges

    def PallasMosaicGpuFlashAttention(self):
        def refuse():
            raise NotImplementedError("only for sm90 and sm100 GPUs")

        @jax.custom_vjp
        def attend(q, k, v, ranges):
            return refuse() if self._refused == "forward" else q

        attend.defvjp(
            lambda q, k, v, ranges: (attend(q, k, v, ranges), None),
            lambda kept, out: refuse() if self._refused == "backward" else (out, out, out, None),
        )
        return lambda q, k, v, mask: attend(q, k, v, mask["k_start"])


@pytest.mark.parametrize(
    ("refused", "part"), [("forward", "Tokamax's"), ("backward", "the backward pass of Tokamax's")]
)
def test_a_kernel_that_refuses_either_direction_is_refused_before_anything_is_read(
    monkeypatch, refused, part
):
    fake = _Kernels(refused)
    monkeypatch.setattr(tokamax_attention, "kernels", lambda: (fake, fake))
    monkeypatch.setattr(Attention, "platform", "gpu")
    with pytest.raises(UserError, match=rf"^{part} attention cannot run here: only for sm90"):
        Attention("tokamax").check(128, jnp.bfloat16)


def test_kernels_that_take_both_directions_are_not_refused(monkeypatch):
    fake = _Kernels("none")
    monkeypatch.setattr(tokamax_attention, "kernels", lambda: (fake, fake))
    monkeypatch.setattr(Attention, "platform", "gpu")
    Attention("tokamax").check(128, jnp.bfloat16)
