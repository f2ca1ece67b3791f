"""What an update asks of each chip, counted by hand, and the least time that the chip's data sheet
allows for it.

Counted are matrix products, attention, the bytes of weights and of the products' inputs and
outputs, and what chips send each other for it. Everything is taken to overlap perfectly: a real
step is slower::

    work = policy_training(config, lora, batches, mesh, base_dtype="bfloat16", remat="full")
    work.bounds(chip_of("TPU v5 lite"))   # {"arithmetic": 0.9, "memory": 0.1, "network": 0.2}
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jax.sharding import Mesh

from jaxmodpo.data.batches import Batches
from jaxmodpo.models import flops
from jaxmodpo.models.decoder import parameter_table
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.lora import LoraConfig, adapter_table
from jaxmodpo.models.parameters import Table, count
from jaxmodpo.models.quantized import BaseDtype, is_projection, stored_table
from jaxmodpo.models.remat import Remat, recomputes_products
from jaxmodpo.models.roberta import parameter_table as encoder_table
from jaxmodpo.models.roberta_config import RobertaConfig
from jaxmodpo.policy.mesh import array_bytes, row_shards
from jaxmodpo.training.hardware import Chip


@dataclass(frozen=True)
class Work:
    """Of one update.

    Attributes:
        useful: floating-point operations that real tokens need, on all chips together.
        executed: operations done, with padding and what is computed again, on all chips together.
        memory: bytes that one chip reads and writes in its memory.
        network: bytes that one chip receives from others.
        chips: how many there are.
    """

    useful: float
    executed: float
    memory: float
    network: float
    chips: int

    def bounds(self, chip: Chip) -> dict[str, float]:
        """Return the seconds that arithmetic, memory and network need, each alone."""
        return {
            "arithmetic": self.executed / self.chips / chip.flops,
            "memory": self.memory / chip.bandwidth,
            "network": self.network / chip.network,
        }

    def seconds_at(self, utilization: float, chip: Chip) -> float:
        """Return the seconds of an update that makes this much use of the chips' arithmetic."""
        return self.useful / self.chips / chip.flops / utilization


def policy_training(
    config: DecoderConfig,
    lora: LoraConfig,
    batches: Batches,
    mesh: Mesh,
    *,
    base_dtype: BaseDtype,
    remat: Remat,
    reference_in_step: bool = False,
) -> Work:
    """Return an average update's work of training an adapter."""

    def operations(rows: np.ndarray) -> float:
        again = flops.recomputed(config, lora, rows, remat)
        return flops.training(config, lora, rows, reference_in_step) + again

    executed = _executed(batches, operations)
    useful = flops.training(config, lora, batches.examples.lengths, reference_in_step)
    table = parameter_table(config)
    stored = stored_table(table, base_dtype)
    # How often each layer is gone through: forward, forward again where it is recomputed, backward,
    # and once more where the reference is computed in the step. Weights come from memory and from
    # the other chips each time. What goes to the host's memory is not counted: no data sheet of a
    # chip says how fast.
    forward_passes = 1 + recomputes_products(remat)
    passes = batches.accumulation * (forward_passes + 1 + reference_in_step)
    positions = batches.positions
    adapter = adapter_table(table, lora)
    adapter_bytes = 4.0 * count(adapter) / (mesh.shape["fsdp"] * mesh.shape["tensor"])
    # The backward pass reads what the forward pass wrote and writes as much again.
    activations = _activations(table, config, mesh) * (forward_passes + 2 + reference_in_step)
    reduced = _reduced(config.num_hidden_layers, config.hidden_size, mesh) * (
        forward_passes + 1 + reference_in_step
    )
    # Gradients are added up once a microbatch (read and write); then AdamW reads and writes
    # parameters and two moments.
    optimizer_bytes = adapter_bytes * (2 * batches.accumulation + 6)
    # Copies of the model along data send each other the adapter's gradients, and nothing else.
    gradient_bytes = 2 * adapter_bytes * (mesh.shape["data"] > 1)
    return Work(
        useful=useful / batches.steps_per_epoch,
        executed=executed,
        memory=passes * _whole_weights(stored, mesh) + positions * activations + optimizer_bytes,
        network=passes * _gathered(stored, mesh) + positions * reduced + gradient_bytes,
        chips=mesh.size,
    )


def scoring(
    config: DecoderConfig, lora: LoraConfig, batches: Batches, mesh: Mesh, *, base_dtype: BaseDtype
) -> Work:
    """Return an average batch's work of scoring completions."""
    table = parameter_table(config)
    positions = batches.positions
    passes = batches.accumulation
    return Work(
        useful=flops.forward(config, lora, batches.examples.lengths) / batches.steps_per_epoch,
        executed=_executed(batches, functools.partial(flops.forward, config, lora)),
        memory=passes * _whole_weights(stored_table(table, base_dtype), mesh)
        + positions * _activations(table, config, mesh),
        network=passes * _gathered(stored_table(table, base_dtype), mesh)
        + positions * _reduced(config.num_hidden_layers, config.hidden_size, mesh),
        chips=mesh.size,
    )


def reward_training(config: RobertaConfig, batches: Batches, mesh: Mesh, *, remat: Remat) -> Work:
    """Return an average update's work of training a reward model, all of whose weights change."""
    table = encoder_table(config)
    # A backward pass through weights that learn takes two products for each one of the forward
    # pass: for the inputs' gradients, and for the weights'.

    def operations(rows: np.ndarray) -> float:
        again = flops.encoder_recomputed(config, rows, remat)
        return 3 * flops.encoder_forward(config, rows) + again

    useful_flops = flops.encoder_forward(config, batches.examples.lengths)
    positions = batches.positions
    weight_bytes = 4.0 * count(table) / (mesh.shape["fsdp"] * mesh.shape["tensor"])
    of_first_tokens = {name: table[name] for name in flops.FIRST_TOKEN_PRODUCTS}
    # The last layer's, which no other token's activations come from.
    left_out = _product_widths(of_first_tokens) / config.num_hidden_layers
    widths = _product_widths(table) - left_out
    product_bytes = 4 * widths / row_shards(mesh) / mesh.shape["tensor"]
    again = recomputes_products(remat)
    reduced = _reduced(config.num_hidden_layers - 1, config.hidden_size, mesh, 4)
    optimizer_bytes = weight_bytes * (2 * batches.accumulation + 6)
    gradient_bytes = 2 * weight_bytes * (mesh.shape["data"] > 1)
    return Work(
        useful=3 * useful_flops / batches.steps_per_epoch,
        executed=_executed(batches, operations),
        memory=(2 + again) * batches.accumulation * _whole_weights(table, mesh, 4)
        + positions * product_bytes * (4 + again)
        + optimizer_bytes,
        network=(3 + again) * batches.accumulation * _gathered(table, mesh, 4)
        + positions * reduced * (2 + again)
        + gradient_bytes,
        chips=mesh.size,
    )


def _product_widths(table: Table) -> int:
    """Return the widths of all matrix products' inputs and outputs together, over all layers."""
    widths = 0
    for spec in table.values():
        if is_projection(spec):
            layers, inputs, outputs = spec.shape
            widths += layers * (inputs + outputs)
    return widths


def _executed(batches: Batches, operations: Callable[[np.ndarray], float]) -> float:
    """Return an average update's operations, given those of rows of these lengths: rows are
    computed to their ends.
    """
    rows = batches.accumulation * batches.shape.rows
    total = 0.0
    lengths, update_counts = np.unique(batches.row_lengths, return_counts=True)
    for length, updates in zip(lengths, update_counts, strict=True):
        total += int(updates) * operations(np.full(rows, length))
    return total / batches.steps


def _whole_weights(table: Table, mesh: Mesh, size: int = 2) -> float:
    """Return the bytes of all layers as one chip multiplies them: gathered over ``fsdp``, sharded
    over ``tensor``.
    """
    return sum(array_bytes(spec, size) for spec in table.values()) / mesh.shape["tensor"]


def _gathered(table: Table, mesh: Mesh, size: int = 2) -> float:
    """Return the bytes of weights that a chip receives for one pass."""
    shards = mesh.shape["fsdp"]
    return _whole_weights(table, mesh, size) * (shards - 1) / shards


def _activations(table: Table, config: DecoderConfig, mesh: Mesh) -> float:
    """Return the bytes of inputs and outputs of all matrix products, for a position and a chip."""
    # Activations are bfloat16, logits float32; logits are written and read once.
    logits = 2 * 4 * config.vocab_size
    return (2 * _product_widths(table) + logits) / row_shards(mesh) / mesh.shape["tensor"]


def _reduced(layers: int, width: int, mesh: Mesh, size: int = 2) -> float:
    """Return the bytes of activations that a chip receives for a position in one pass: two sums in
    each layer.
    """
    shards = mesh.shape["tensor"]
    # A sum over shards sends each number twice, scattered and gathered, but for a chip's own share.
    from_others = 2 * (shards - 1) / shards
    sums = 2 * layers
    return sums * size * width * from_others / row_shards(mesh)
