"""From replies to what the loss compares: the step that lies between a model, which computes each
reply of a question once, and a loss, which has a row for each comparison::

    logps = compared(logps, batch)      # [examples, replies] → [comparisons, 2]
    rows = comparison_rows(batch)       # row_weights [comparisons], and so on

A batch without ``comparisons`` (:mod:`jaxmodpo.data.comparisons`) has one for each example: its
sequences as they lie.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from jaxmodpo.data.batches import LAYOUT_ARRAYS
from jaxmodpo.training.step import Batch

REPLY_FIELDS = ("reference_logps",)
"""fields of examples that hold a number for each reply; the others are comparisons'"""


def compared(values: Array, batch: Batch) -> Array:
    """Return each comparison's share of what was computed of every reply.

    Args:
        values: ``[P, S]``.
        batch: with ``comparisons`` ``[P, K, C]``.

    Returns:
        ``[P × K, C]``.
    """
    if "comparisons" not in batch:
        return values
    places = batch["comparisons"]
    # A choice and a sum, not a gather: its gradient would be a scatter, whose order of additions
    # GPUs leave to chance, and a reply stands in several comparisons. Adding zeros changes no bit.
    is_chosen = places[..., None] == jnp.arange(values.shape[1])  # [P, K, C, S]
    values_or_zeros = jnp.where(is_chosen, values[:, None, None, :], 0.0)
    chosen = jnp.sum(values_or_zeros, axis=-1)
    return chosen.reshape(-1, places.shape[-1])


def comparison_rows(batch: Batch) -> Batch:
    """Return a batch's fields with a row for each comparison, and each row's weight.

    Every comparison of an update weighs the same, whichever question it is of: ``row_weights`` are
    1, and 0 for what only fills the batch up.
    """
    if "comparisons" not in batch:
        return batch
    weights = batch["row_weights"][:, None] * batch["comparison_weights"]
    rows = {"row_weights": weights.reshape(-1)}
    layout = {*LAYOUT_ARRAYS, "row_weights", "comparisons", "comparison_weights"}
    for name, array in batch.items():
        if name in REPLY_FIELDS:
            rows[name] = compared(array, batch)
        elif name not in layout:
            rows[name] = array.reshape(-1, *array.shape[2:])
    return rows
