"""Sampling on several devices: one device's tokens, and each device its own part of the cache."""

from __future__ import annotations

from pathlib import Path

import pytest

MESHES = """
import sys
import jax, numpy as np
sys.path.append(sys.argv[1])
from engine_policy import make_policy
from jaxmodpo.policy.mesh import row_shards, sampling_shape
from jaxmodpo.sampling.draw import SamplingSettings
from jaxmodpo.sampling.engine import Ask, Engine, Shapes

assert jax.device_count() == 8
random = np.random.default_rng(0)
prompts = [random.integers(3, 48, n).tolist() for n in (5, 90, 2, 40, 64, 65, 11, 30, 3)]
keys = jax.random.split(jax.random.key(7), len(prompts))
settings = SamplingSettings(1.0, 0.9, 30, end_tokens=(2,))

def replies(mesh):
    policy = make_policy(mesh)
    shapes = Shapes.of(policy.config, 90, 30, rows=8, shards=row_shards(policy.mesh))
    engine = Engine(policy, settings, shapes)
    tokens = {}
    asks = [Ask(n, prompt, keys[n]) for n, prompt in enumerate(prompts)]
    engine.run(asks, lambda done: tokens.update({reply.name: reply.tokens for reply in done}))
    assert engine.programs == {"prefill": 1, "round": 1}, (mesh, engine.programs)
    layers, blocks, rows, heads, places, width = engine._slots.cache.keys.shape
    data, fsdp, tensor = mesh
    own = (layers, blocks, rows // (data * fsdp), heads // tensor, places, width)
    for array in engine._slots.cache:
        assert {shard.data.shape for shard in array.addressable_shards} == {own}, mesh
    return tokens

config = make_policy().config
assert sampling_shape(jax.devices(), config) == (4, 1, 2)
alone = replies((1, 1, 1))
for mesh in ((8, 1, 1), (4, 1, 2), (2, 2, 2), (1, 4, 2)):
    assert replies(mesh) == alone, mesh
"""


@pytest.mark.slow(seconds=40)
def test_eight_devices_sample_one_devices_tokens_and_share_the_cache_out(forked_programs):
    forked_programs.run(MESHES, [str(Path(__file__).parent)], devices=8)
