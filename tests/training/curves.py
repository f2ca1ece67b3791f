"""Trains one tiny policy and one tiny reward model, the same for every mesh, and writes each mesh's
losses: a program of its own, since a process has as many devices as it was started with.

Run as ``python curves.py FOLDER FILE`` with eight CPU devices: the model's folder, and a file for
one JSON object, of a :class:`Curve` for each name.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxmodpo.data.batches import Batches
from jaxmodpo.data.examples import Examples, TokenSequence, collected
from jaxmodpo.data.reference_lengths import comparing, every_pair
from jaxmodpo.methods.dpo import DPO
from jaxmodpo.methods.reward_model import RewardLoss
from jaxmodpo.models.attention import Attention
from jaxmodpo.models.decoder import load_decoder, parameter_table
from jaxmodpo.models.decoder_config import read_decoder_config
from jaxmodpo.models.lora import LoraConfig
from jaxmodpo.models.parameters import Parameters, initialize
from jaxmodpo.models.quantized import BaseDtype, stored_table
from jaxmodpo.models.roberta import parameter_table as encoder_table
from jaxmodpo.models.roberta_config import RobertaConfig
from jaxmodpo.policy.loaded import Policy, fresh_adapter
from jaxmodpo.policy.mesh import make_mesh, place_batch, put, row_shards, shardings
from jaxmodpo.training.problem import policy_problem
from jaxmodpo.training.step import (
    Loss,
    OptimizerSettings,
    as_numbers,
    initial_state,
    places_of,
    train_step,
)

UPDATES = 20
QUESTIONS = 10
REPLIES = 3
LORA = LoraConfig(rank=4, alpha=8.0, dropout=0.1)
ENCODER = RobertaConfig.from_mapping(
    {
        "model_type": "roberta",
        "vocab_size": 64,
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 34,
        "type_vocab_size": 1,
        "hidden_dropout_prob": 0.1,
        "pad_token_id": 1,
    },
    "curves",
    num_labels=1,
)
PERMUTED = (5, 2, 7, 0, 3, 6, 1, 4)


@dataclass(frozen=True)
class Curve:
    """What a mesh gives.

    Attributes:
        losses: of each update.
        equal_bits: whether policy and reference agree to the bit before the first update.
        moved: arrays of the state that lie elsewhere after the updates than before.
    """

    losses: list[float]
    equal_bits: bool
    moved: list[str]


def questions() -> Examples:
    """Return questions of several replies, all of whose pairs are compared, and of odd lengths."""
    generator = np.random.default_rng(0)
    groups: list[list[TokenSequence]] = []
    for _ in range(QUESTIONS):
        prompt = generator.integers(3, 24, generator.integers(2, 6)).tolist()
        replies: list[TokenSequence] = []
        for _ in range(REPLIES):
            reply = generator.integers(3, 24, generator.integers(1, 8)).tolist()
            replies.append(TokenSequence([1, *prompt, *reply, 2], 1 + len(prompt)))
        groups.append(replies)
    return comparing(collected(groups), every_pair(REPLIES))


def mesh_of(shape: tuple[int, int, int], order: Sequence[int] = tuple(range(8))) -> Mesh:
    """Return a mesh of as many of this process's devices as it takes, in an order."""
    devices = [jax.devices()[number] for number in order]
    return make_mesh(shape, devices[: int(np.prod(shape))])


def base_of(model: Path, base_dtype: BaseDtype) -> Parameters:
    """Load the base onto one device; what is not quantized is float32."""
    base: Parameters = {}
    for name, variable in load_decoder(model, base_dtype).base.items():
        array = variable[...]
        # A quantized base computes in bfloat16, whose rounding would hide what differs by mesh.
        base[name] = array.astype(jnp.float32) if array.dtype == jnp.bfloat16 else array
    return base


def policy_on(mesh: Mesh, model: Path, base: Mapping[str, jax.Array]) -> Policy:
    """Place the base on a mesh, with a fresh adapter."""
    config = read_decoder_config(model)
    table = parameter_table(config)
    specs = table | stored_table(table, "int8") | stored_table(table, "nf4")
    sharding_of = shardings(mesh)({name: specs[name] for name in base})
    placed = {name: put(array, sharding_of[name]) for name, array in base.items()}
    attention = Attention("auto", mesh)
    return fresh_adapter(Policy(model, config, placed, LORA, {}, mesh, attention), LORA, seed=0)


def curve(policy: Policy) -> Curve:
    """Score the reference and train for some updates, as ``align dpo`` does."""
    examples = questions()
    reference = policy.logps(examples, 4, reference=True)
    equal_bits = np.array_equal(policy.logps(examples, 4), reference)
    batches = Batches(
        examples.with_fields(reference_logps=reference),
        batch_size=4,
        accumulation=2,
        epochs=UPDATES // 2,
        batching="packed",
        row_shards=row_shards(policy.mesh),
    )
    assert batches.steps == UPDATES
    problem = policy_problem(policy, DPO(0.5), remat="none")
    losses, moved = trained(problem.loss, policy.adapter, policy.base, batches, policy.mesh)
    return Curve(losses, equal_bits, moved)


def encoder_curve(mesh: Mesh) -> Curve:
    """Train all parameters of a reward model, of which some are sharded and others not."""
    examples = questions()
    batches = Batches(
        dataclasses.replace(examples, prompt_lengths=np.zeros_like(examples.lengths)),
        batch_size=4,
        accumulation=2,
        epochs=UPDATES // 2,
        batching="packed",
        row_shards=row_shards(mesh),
    )
    table = encoder_table(ENCODER)
    parameters = jax.device_put(initialize(table, jax.random.key(0)), shardings(mesh)(table))
    loss = RewardLoss(ENCODER, "none", has_dropout=True, mesh=mesh)
    losses, moved = trained(loss, parameters, {}, batches, mesh)
    return Curve(losses, True, moved)


def trained(
    loss: Loss, trainable: Parameters, frozen: Parameters, batches: Batches, mesh: Mesh
) -> tuple[list[float], list[str]]:
    """Train on all batches; return each update's loss, and the names of the arrays that moved."""
    optimizer = OptimizerSettings(weight_decay=0.01, max_grad_norm=1.0)
    state = initial_state(optimizer, trainable)
    places = places_of(state)
    everywhere = NamedSharding(mesh, PartitionSpec())
    key = jax.device_put(jax.random.key(0), everywhere)
    losses: list[float] = []
    for update, batch in enumerate(batches):
        state, metrics = train_step(
            state,
            frozen,
            place_batch(mesh, batch, batches.by_rows),
            key,
            np.int32(update),
            np.float32(1e-3),
            loss=loss,
            optimizer=optimizer,
            places=places,
        )
        losses.append(as_numbers(metrics)["loss"])
    moved: list[str] = []
    arrays = jax.tree_util.tree_leaves_with_path(state)
    for (path, array), place in zip(arrays, places, strict=True):
        if not array.sharding.is_equivalent_to(place, array.ndim):
            moved.append(jax.tree_util.keystr(path))
    return losses, moved


def main(model: Path, written: Path) -> None:
    """Train on every mesh and write the curves."""
    base = base_of(model, "float32")
    # Both formats in one model: attention in 8 bits, the MLP in 4.
    in_8_bits = base_of(model, "int8")
    in_4_bits = base_of(model, "nf4")
    mlp = ("layers.gate_proj", "layers.up_proj", "layers.down_proj")
    quantized = {name: in_8_bits[name] for name in in_8_bits if not name.startswith(mlp)}
    quantized |= {name: in_4_bits[name] for name in in_4_bits if name.startswith(mlp)}
    one_device = mesh_of((1, 1, 1))
    runs: dict[str, tuple[Mesh, Mapping[str, jax.Array]]] = {
        "one device": (one_device, base),
        "data": (mesh_of((8, 1, 1)), base),
        "tensor": (mesh_of((1, 1, 4)), base),
        "fsdp, devices permuted": (mesh_of((1, 8, 1), PERMUTED), base),
        "mixed, devices permuted": (mesh_of((2, 2, 2), PERMUTED), base),
        "one device, quantized": (one_device, quantized),
        "mixed, quantized": (mesh_of((1, 2, 2)), quantized),
    }
    curves = {
        name: dataclasses.asdict(curve(policy_on(mesh, model, weights)))
        for name, (mesh, weights) in runs.items()
    }
    encoder_meshes = {
        "encoder, one device": one_device,
        "encoder, fsdp": mesh_of((1, 8, 1)),
        "encoder, mixed": mesh_of((2, 2, 2), PERMUTED),
    }
    for name, mesh in encoder_meshes.items():
        curves[name] = dataclasses.asdict(encoder_curve(mesh))
    written.write_text(json.dumps(curves))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
