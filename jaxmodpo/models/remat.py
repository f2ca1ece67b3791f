"""What a backward pass computes again instead of keeping it.

Without this, every layer keeps all its intermediate arrays until the backward pass comes to it: the
larger part of memory in training. A *rematerialized* layer keeps less and computes the rest again.

==========  =========================================  ============================================
policy      kept of each layer                         what the backward pass pays for it
==========  =========================================  ============================================
``none``    everything                                 nothing
``dots``    its input and its matrix products          norms, attention and activations once more
``full``    its input alone                            the layer's whole forward pass once more
==========  =========================================  ============================================

The gradient is the same: the same operations on the same inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax

Remat = Literal["full", "dots", "none"]
"""full: whole layers; dots: all but matrix products; none: everything is kept"""


def rematerialized(block: Callable[..., Any], remat: Remat) -> Callable[..., Any]:
    """Return the body of a scan over layers, under a policy.

    Args:
        block: computes one layer.
        remat: the policy.
    """
    if remat == "none":
        return block
    if remat == "full":
        return jax.checkpoint(block)
    # Products with a batch dimension are attention's scores, which grow with the square of the
    # length and are cheap to compute: the last thing to keep.
    keep_products = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    return jax.checkpoint(block, policy=keep_products)
