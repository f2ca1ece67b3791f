"""A small random policy for tests of the sampler."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

from jaxmodpo.models import decoder
from jaxmodpo.models.attention import Attention
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.lora import LoraConfig
from jaxmodpo.models.parameters import initialize
from jaxmodpo.policy.loaded import Policy, fresh_adapter
from jaxmodpo.policy.mesh import make_mesh

SHAPE = {
    "model_type": "mistral",
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "sliding_window": None,
}


def make_policy(mesh_shape=(1, 1, 1), **changes) -> Policy:
    config = DecoderConfig.from_mapping(SHAPE | changes, "test")
    table = decoder.parameter_table(config)
    base = jax.tree.map(lambda array: 8 * array, initialize(table, jax.random.key(0)))
    mesh = make_mesh(mesh_shape, jax.devices()[: int(np.prod(mesh_shape))])
    no_adapter = LoraConfig(rank=1, alpha=1.0, dropout=0.0)
    bare = Policy(Path("x"), config, base, no_adapter, {}, mesh, Attention("auto", mesh))
    return fresh_adapter(bare, LoraConfig(rank=2, alpha=4.0, dropout=0.0), seed=0)
