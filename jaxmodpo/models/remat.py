"""What a backward pass computes again instead of keeping it."""

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
    keep_products = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    return jax.checkpoint(block, policy=keep_products if remat == "dots" else None)
