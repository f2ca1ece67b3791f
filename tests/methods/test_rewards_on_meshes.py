"""A reward model's step shares its activations out over a mesh."""

from __future__ import annotations

import json

import pytest
from forked_programs import ForkedPrograms

PROGRAM = """
import json
import jax, jax.numpy as jnp
from jaxmodpo.data.batches import Batches
from jaxmodpo.data.reference_lengths import comparing, every_pair, reference_examples
from jaxmodpo.methods.reward_model import RewardLoss
from jaxmodpo.models.roberta import parameter_table
from jaxmodpo.models.roberta_config import RobertaConfig
from jaxmodpo.policy.mesh import make_mesh, row_shards
from jaxmodpo.training.ahead import abstract, compile_step

# Wide enough that biases and norms, which lie on every device, are few of its bytes.
config = RobertaConfig(64, 128, 512, 3, 4, 130, dropout=0.1)
pairs = comparing(reference_examples(16, share=1 / 8, vocab_size=64), every_pair(2))
needs = {}
for devices in (1, 8):
    mesh = make_mesh((1, devices, 1), jax.devices()[:devices])
    batches = Batches(pairs, batch_size=16, row_shards=row_shards(mesh))
    parameters = abstract(parameter_table(config), jnp.float32, mesh)
    loss = RewardLoss(config, has_dropout=True, mesh=mesh)
    needs[devices] = compile_step(loss, parameters, {}, batches, mesh).temporary
print(json.dumps(needs))
"""


@pytest.mark.slow(seconds=10)
def test_each_of_eight_devices_keeps_an_eighth_of_the_activations(forked_programs: ForkedPrograms):
    """Left to itself XLA kept three times as much, and added up in every layer."""
    needs = json.loads(forked_programs.run(PROGRAM, devices=8).splitlines()[-1])
    assert needs["8"] < 1.25 * needs["1"] / 8
