"""What a backward pass computes again instead of keeping it.

Without this, every layer keeps all its intermediate arrays until the backward pass comes to it: the
larger part of memory in training. A *rematerialized* layer keeps less and computes the rest again.
The policies form a ladder, from the fastest to the one that needs the least memory:

=============  =========================================  ==========================================
policy         kept of each layer                         what the backward pass pays for it
=============  =========================================  ==========================================
``none``       everything                                 nothing
``dots``       its input and its matrix products          norms, attention and activations once more
``attention``  its input, attention's output and          matrix products, norms and activations
               statistics                                 once more
``full``       its input alone                            the layer's forward pass once more
``offload``    nothing: its input lies in the host's      the same, and the way there and back
               memory
=============  =========================================  ==========================================

A decoder's last product of a layer is never computed again, since no gradient needs it. The
gradient is the same: the same operations on the same inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import jax
from jax.ad_checkpoint import checkpoint_name

Remat = Literal["none", "dots", "attention", "full", "offload"]
"""none: everything is kept; dots: matrix products; attention: attention's output and statistics;
full: nothing but a layer's input; offload: not even that, it lies in the host's memory"""

RematSetting = Literal["auto", "none", "dots", "attention", "full", "offload"]
"""a policy, or auto for the first of the ladder whose step fits the devices"""

LADDER: tuple[Remat, ...] = get_args(Remat)
"""the policies, from the fastest to the one that needs the least memory"""

KEPT_ATTENTION = "attention"
"""what an implementation of attention calls the arrays that ``attention`` keeps"""

_LAYER_INPUT = "layer_input"

_CUDNN_ATTENTION = "dot_product_attention_fwd_wrapper"
"""how JAX calls cuDNN's forward pass, whose output and statistics nobody outside of it can name"""


def recomputes_products(remat: Remat) -> bool:
    """Return whether the backward pass goes through a layer's weights once more."""
    return remat in ("attention", "full", "offload")


def recomputes_attention(remat: Remat) -> bool:
    """Return whether the backward pass mixes values once more."""
    return remat in ("dots", "full", "offload")


def rematerialized(block: Callable[..., Any], remat: Remat) -> Callable[..., Any]:
    """Return the body of a scan over layers, under a policy.

    Args:
        block: computes one layer from what the layer before it gave, an array, and its weights.
        remat: the policy.
    """
    if remat == "none":
        return block
    if remat == "full":
        return jax.checkpoint(block)
    policies = jax.checkpoint_policies
    if remat == "attention":
        return jax.checkpoint(block, policy=_keeps_attention)
    if remat == "dots":
        # Products with a batch dimension are attention's scores, which grow with the square of the
        # length and are cheap to compute: the last thing to keep.
        return jax.checkpoint(block, policy=policies.dots_with_no_batch_dims_saveable)
    to_host = policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=[_LAYER_INPUT],
        offload_src="device",
        offload_dst="pinned_host",
    )

    def with_named_input(x: jax.Array, layer: Any) -> Any:
        return block(checkpoint_name(x, _LAYER_INPUT), layer)

    return jax.checkpoint(with_named_input, policy=to_host)


def rematerialized_by_number(block: Callable[..., Any], remat: Remat) -> Callable[..., Any]:
    """Return the body of a scan over layers' numbers, under a policy.

    Args:
        block: computes one layer from what the layer before it gave, an array, and the layer's
            number, by which it takes its weights (:func:`layer_of`).
        remat: the policy.
    """
    if remat == "none":
        # Kept, the weights of all layers would be copied; they lie in the stack anyway. In a scan
        # nothing has to keep XLA from sharing what both passes compute.
        return jax.checkpoint(block, policy=_keeps_all_but_weights, prevent_cse=False)
    return rematerialized(block, remat)


def layer_of(stacked: Mapping[str, jax.Array], number: jax.Array) -> dict[str, jax.Array]:
    """Return one layer's arrays, of arrays that are stacked along their first axis."""
    layer: dict[str, jax.Array] = {}
    for name, array in stacked.items():
        layer[name] = jax.lax.dynamic_index_in_dim(array, number, keepdims=False)
    return layer


def _keeps_all_but_weights(primitive: Any, *inputs: Any, **parameters: Any) -> bool:
    """Say of an operation's results whether ``none`` keeps them, where layers go by numbers."""
    # The two that take a layer out of a stack.
    return primitive.name not in ("dynamic_slice", "squeeze")


def _keeps_attention(primitive: Any, *inputs: Any, **parameters: Any) -> bool:
    """Say of an operation's results whether ``attention`` keeps them."""
    if primitive.name == _CUDNN_ATTENTION:
        return True
    names_kept = jax.checkpoint_policies.save_only_these_names(KEPT_ATTENTION)
    return bool(names_kept(primitive, *inputs, **parameters))
