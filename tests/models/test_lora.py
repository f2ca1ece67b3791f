"""Averages of adapters against the dense matrices that they stand for."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodpo.errors import UserError
from jaxmodpo.models.lora import LoraConfig, average

LAYERS, IN, OUT = 2, 6, 5
Adapter = tuple[LoraConfig, dict]


def adapter(
    seed: int, rank: int, alpha: float, targets=("q_proj",), rslora: bool = False
) -> Adapter:
    generator = np.random.default_rng(seed)
    arrays = {}
    for name in targets:
        arrays[f"{name}.A"] = jnp.asarray(generator.normal(size=(LAYERS, IN, rank)), jnp.float32)
        arrays[f"{name}.B"] = jnp.asarray(generator.normal(size=(LAYERS, rank, OUT)), jnp.float32)
    return LoraConfig(rank, alpha, 0.0, targets, rslora), arrays


def change(made: Adapter) -> np.ndarray:
    config, arrays = made
    return config.scale * np.einsum("lir,lro->lio", arrays["q_proj.A"], arrays["q_proj.B"])


def test_an_exact_average_is_the_mean_of_the_changes_whatever_ranks_and_scales():
    adapters = [adapter(0, 2, 8.0), adapter(1, 3, 1.0), adapter(2, 4, 6.0, rslora=True)]
    weights = [0.5, 0.3, 0.2]
    merged = average(adapters, weights)
    expected = sum(
        w * change(one_adapter) for w, one_adapter in zip(weights, adapters, strict=True)
    )
    np.testing.assert_allclose(change(merged), expected, rtol=1e-5, atol=1e-6)
    assert merged[0].rank == 9


def test_averaged_factors_have_cross_terms_and_keep_the_rank():
    adapters = [adapter(0, 3, 6.0), adapter(1, 3, 3.0)]
    config, merged = average(adapters, [0.25, 0.75], "factors")
    a = 0.25 * adapters[0][1]["q_proj.A"] + 0.75 * adapters[1][1]["q_proj.A"]
    b = 0.25 * 2.0 * adapters[0][1]["q_proj.B"] + 0.75 * 1.0 * adapters[1][1]["q_proj.B"]
    np.testing.assert_allclose(
        change((config, merged)), np.einsum("lir,lro->lio", a, b), rtol=1e-5, atol=1e-5
    )
    assert config.rank == 3
    assert not np.allclose(
        change((config, merged)), change(average(adapters, [0.25, 0.75])), atol=0.1
    )


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_slerp_turns_each_layers_change_along_the_great_circle(t: float):
    adapters = [adapter(0, 3, 6.0), adapter(1, 2, 3.0)]
    merged = change(average(adapters, [1 - t, t], "slerp"))
    for layer in range(LAYERS):
        first, second = change(adapters[0])[layer], change(adapters[1])[layer]
        cosine = np.sum(first * second) / np.linalg.norm(first) / np.linalg.norm(second)
        angle = np.arccos(cosine)
        expected = (np.sin((1 - t) * angle) * first + np.sin(t * angle) * second) / np.sin(angle)
        np.testing.assert_allclose(merged[layer], expected, rtol=1e-4, atol=1e-5)


def test_slerp_of_parallel_or_zero_changes_is_straight():
    config, arrays = adapter(0, 3, 6.0)
    double = {"q_proj.A": arrays["q_proj.A"], "q_proj.B": 2 * arrays["q_proj.B"]}
    nothing = {"q_proj.A": arrays["q_proj.A"], "q_proj.B": 0 * arrays["q_proj.B"]}
    for scaled, factor in ((double, 1.5), (nothing, 0.5)):
        merged = average([(config, arrays), (config, scaled)], [0.5, 0.5], "slerp")
        np.testing.assert_allclose(change(merged), factor * change((config, arrays)), rtol=1e-4)


@pytest.mark.parametrize(
    ("parts", "how", "said"),
    [
        ([adapter(0, 2, 1.0), adapter(1, 3, 1.0)], "factors", "only at one rank; got 2, 3"),
        ([adapter(n, 2, 1.0) for n in range(3)], "slerp", "between two adapters; got 3"),
        ([adapter(0, 2, 1.0), adapter(1, 2, 1.0, ("v_proj",))], "exact", "the same projections"),
    ],
)
def test_averages_that_make_no_sense_are_refused(parts, how, said):
    with pytest.raises(UserError, match=said):
        average(parts, [1 / len(parts)] * len(parts), how)
