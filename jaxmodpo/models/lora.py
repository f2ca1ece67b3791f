"""Low-rank adapters as PEFT defines them: parameters, the forward pass, and exact averages.

A projection W becomes x W + s · dropout(x) A B with s = α / r (α / √r with rslora). A is drawn
Kaiming-uniform, B starts at zero, so a fresh adapter changes nothing, to the last bit. Adapters are
float32 and stacked over layers like the weights they belong to.

The scale s stands beside the parameters and not in them, as in a PEFT folder: two adapters with the
same A and B and another α are two different changes of the model. α is divided by r so that a
rank can be changed without tuning the learning rate again; at high ranks that makes the change too
small, and α / √r is what keeps it (rank-stabilized LoRA).

The change of one projection::

    config = LoraConfig(rank=16, alpha=32)      # s = 2
    change = config.scale * adapter["q_proj.A"][layer] @ adapter["q_proj.B"][layer]
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxmodpo.errors import UserError
from jaxmodpo.models.dropout import Draws, dropped
from jaxmodpo.models.parameters import Spec, Table
from jaxmodpo.models.products import product

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["alpha", "dropout"],
    meta_fields=["rank", "targets", "rslora"],
)
@dataclass(frozen=True)
class LoraConfig:
    """What PEFT's ``adapter_config.json`` says.

    A pytree: what is compiled for one alpha and dropout serves others too.

    Attributes:
        rank: r, the inner dimension.
        alpha: α, the numerator of the scale.
        dropout: on the adapter's input, in training only.
        targets: which of the seven projections are adapted.
        rslora: scale α / √r instead of α / r.
    """

    rank: int = 64
    alpha: float = 128.0
    dropout: float = 0.05
    targets: tuple[str, ...] = PROJECTIONS
    rslora: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.alpha, int | float):
            return  # inside a compiled function
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise UserError(
                f"LoRA needs rank ≥ 1, alpha > 0 and dropout in [0, 1); got {self.rank},"
                f" {self.alpha}, {self.dropout}"
            )
        unknown = sorted(set(self.targets) - set(PROJECTIONS))
        if unknown or not self.targets:
            projections = ", ".join(PROJECTIONS)
            targets = ", ".join(unknown) or "none"
            raise UserError(f"LoRA targets must be some of {projections}; got {targets}")

    @property
    def scale(self) -> float:
        """The factor s of A B."""
        divisor = math.sqrt(self.rank) if self.rslora else self.rank
        return self.alpha / divisor


def adapter_table(base: Table, config: LoraConfig) -> dict[str, Spec]:
    """Return the adapter's parameters, ``{projection}.A`` and ``{projection}.B``, for a base
    model's table.
    """
    table: dict[str, Spec] = {}
    for name in config.targets:
        spec = base[f"layers.{name}"]
        layers, width_in, width_out = spec.shape
        layer_axis, input_axis, output_axis = spec.axes
        stem = "base_model.model." + spec.key.removesuffix(".weight")
        # The rank is small: its axis lies on no axis of a mesh.
        table[f"{name}.A"] = Spec(
            shape=(layers, width_in, config.rank),
            axes=(layer_axis, f"adapter_{input_axis}", None),
            key=f"{stem}.lora_A.weight",
            initializer="kaiming",
            transposed=True,
        )
        table[f"{name}.B"] = Spec(
            shape=(layers, config.rank, width_out),
            axes=(layer_axis, None, f"adapter_{output_axis}"),
            key=f"{stem}.lora_B.weight",
            initializer="zeros",
            transposed=True,
        )
    return table


def apply(
    x: Array,
    weights: dict[str, Array],
    name: str,
    scale: ArrayLike,
    dropout: tuple[ArrayLike, Draws] | None,
    own_ranks_Br: Array | None = None,
) -> Array:
    """Return the adapter's contribution to projection ``name``, or 0 where it has none.

    Args:
        x: ``[..., in]``, the projection's input.
        weights: one layer's adapter, ``{name}.A`` ``[in, r]`` and ``{name}.B`` ``[r, out]``.
        scale: s.
        dropout: rate and draws in training, the draws of tokens ``[...]``; None drops nothing.
        own_ranks_Br: which ranks of adapters that stand side by side are a row's own, ``[B, r]``,
            with an input ``[B, T, in]``; None where all are.
    """
    if f"{name}.A" not in weights:
        return jnp.zeros((), x.dtype)
    if dropout is not None:
        rate, draws = dropout
        # Three projections of a layer read the same input; each drops values of its own, as the
        # separate modules of PEFT do.
        x = dropped(x, draws.numbered(PROJECTIONS.index(name)), rate)
    a = weights[f"{name}.A"].astype(x.dtype)
    b = weights[f"{name}.B"].astype(x.dtype)
    # From the left, so that nothing of the width of the model squared is formed.
    inner = product(x, a)
    if own_ranks_Br is not None:
        inner = jnp.where(own_ranks_Br[:, None], inner, 0)
    return jnp.asarray(scale * product(inner, b), x.dtype)


def side_by_side(
    adapters: Sequence[tuple[LoraConfig, Mapping[str, np.ndarray]]],
) -> tuple[LoraConfig, dict[str, np.ndarray], np.ndarray]:
    """Put adapters of one base model beside each other along the rank, so that the rows of one
    batch can each have their own::

        A = [A_1 | A_2]        a row of the second adapter:  x A = [ . . | x A_2]
        B = [s_1 B_1           only its own ranks pass, so that it gets s_2 A_2 B_2
             s_2 B_2]

    Args:
        adapters: settings and parameters. Ranks, scales and target projections may differ.

    Returns:
        The settings (rank Σ r_i, scale 1) and parameters of them all, and which ranks are whose,
        ``[adapters, Σ r_i]``.
    """
    ranks = [config.rank for config, _ in adapters]
    adapted: set[str] = set()
    for config, _ in adapters:
        adapted.update(config.targets)
    targets = [name for name in PROJECTIONS if name in adapted]
    # On the host: no device need hold all of what is shared out among several.
    parameters: dict[str, np.ndarray] = {}
    for name in targets:
        # Any adapter of this projection tells its shape, which those without it need for zeros.
        arrays_with_target = next(arrays for _, arrays in adapters if f"{name}.A" in arrays)
        layers, width_in, _ = arrays_with_target[f"{name}.A"].shape
        _, _, width_out = arrays_with_target[f"{name}.B"].shape
        factors_a: list[np.ndarray] = []
        factors_b: list[np.ndarray] = []
        for config, arrays in adapters:
            if name in config.targets:
                factors_a.append(arrays[f"{name}.A"])
                factors_b.append(config.scale * arrays[f"{name}.B"])
            else:
                factors_a.append(np.zeros((layers, width_in, config.rank), np.float32))
                factors_b.append(np.zeros((layers, config.rank, width_out), np.float32))
        parameters[f"{name}.A"] = np.concatenate(factors_a, axis=2)
        parameters[f"{name}.B"] = np.concatenate(factors_b, axis=1)
    rank = sum(ranks)
    lora = LoraConfig(rank, float(rank), 0.0, tuple(targets))
    adapter_numbers = np.arange(len(adapters))
    owner_of_rank = np.repeat(adapter_numbers, ranks)
    is_owner = owner_of_rank == adapter_numbers[:, None]  # [adapters, Σ r_i]
    return lora, parameters, is_owner


Averaging = Literal["exact", "factors", "slerp"]


def average(
    adapters: Sequence[tuple[LoraConfig, dict[str, Array]]],
    weights: Sequence[float],
    how: Averaging = "exact",
) -> tuple[LoraConfig, dict[str, Array]]:
    """Average adapters of one base model.

    ``exact``: the new adapter's change of each projection is Σ w_i s_i A_i B_i. The factors are
    concatenated along the rank, ``[A_1, A_2, …]`` against ``[s_1 w_1 B_1; s_2 w_2 B_2; …]``, so
    that any ranks and scales go together; the result has rank Σ r_i and scale 1. ``factors``: A and
    B are averaged each for itself, which gives (Σ w_i A_i)(Σ w_i s_i B_i), another thing, with
    cross terms; it keeps the rank, which must be one. ``slerp``: of two adapters, each layer's
    changes are turned into one another along a great circle instead of a chord, as in
    :func:`great_circle`.

    Args:
        adapters: configurations and parameters, all with the same target projections.
        weights: one per adapter, on the simplex.
        how: see above.

    Raises:
        UserError: different targets; ``factors`` of different ranks; ``slerp`` of more than two.
    """
    configs = [config for config, _ in adapters]
    _check_average(configs, how)
    merged: dict[str, Array] = {}
    for name in configs[0].targets:
        a: list[Array] = []
        b: list[Array] = []
        for config, arrays in adapters:
            a.append(arrays[f"{name}.A"])
            b.append(config.scale * arrays[f"{name}.B"])
        if how == "factors":
            merged[f"{name}.A"] = _weighted_sum(weights, a)
            merged[f"{name}.B"] = _weighted_sum(weights, b)
            continue
        # A weight for each adapter, or on a great circle for each adapter and layer.
        shares = jnp.asarray(weights)[:, None]
        if how == "slerp":
            shares = great_circle(a, b, weights[1])
        weighted_b: list[Array] = []
        for share, factor in zip(shares, b, strict=True):
            weighted_b.append(share[:, None, None] * factor)
        merged[f"{name}.A"] = jnp.concatenate(a, axis=2)
        merged[f"{name}.B"] = jnp.concatenate(weighted_b, axis=1)
    ranks = [config.rank for config in configs]
    rank = ranks[0] if how == "factors" else sum(ranks)
    # Every scale is in B by now, so that the result's own is 1: α equals r.
    merged_config = dataclasses.replace(configs[0], rank=rank, alpha=float(rank), rslora=False)
    return merged_config, merged


def _check_average(configs: Sequence[LoraConfig], how: Averaging) -> None:
    """Raise a UserError where adapters cannot be averaged that way; see :func:`average`."""
    targets = configs[0].targets
    for config in configs[1:]:
        if set(config.targets) != set(targets):
            raise UserError(
                f"adapters to average must adapt the same projections; got {', '.join(targets)} "
                f"and {', '.join(config.targets)}"
            )
    ranks = [config.rank for config in configs]
    if how == "factors" and len(set(ranks)) > 1:
        listed = ", ".join(map(str, ranks))
        raise UserError(f"factors can be averaged only at one rank; got {listed} (use exact)")
    if how == "slerp" and len(configs) != 2:
        raise UserError(f"slerp lies between two adapters; got {len(configs)}")


def _weighted_sum(weights: Sequence[float], factors: Sequence[Array]) -> Array:
    total = jnp.zeros_like(factors[0])
    for weight, factor in zip(weights, factors, strict=True):
        total = total + weight * factor
    return total


def great_circle(a: Sequence[Array], b: Sequence[Array], t: float) -> Array:
    """Return what two changes D_i = A_i B_i contribute to their spherical interpolation at t, ``[2,
    layers]``.

    With Ω the angle between D_1 and D_2, sin((1 − t) Ω) / sin Ω and sin(t Ω) / sin Ω; where they
    are nearly parallel, or one is zero, 1 − t and t. The products D are never formed: ⟨D_1, D_2⟩ is
    the sum of A_1ᵀA_2 ∘ B_1B_2ᵀ.

    Args:
        a: two of ``[layers, in, r]``.
        b: two of ``[layers, r, out]``.
        t: from 0, the first, to 1, the second.

    References:
        Shoemake, *Animating rotation with quaternion curves*, 1985.
    """

    def inner(i: int, j: int) -> Array:
        # In full float32: TPUs would otherwise round both inputs to bfloat16, and an arccosine near
        # 1 turns an error of 1e-3 into an angle of 0.04.
        of_a = jnp.einsum("lir,lis->lrs", a[i], a[j], precision="highest")
        of_b = jnp.einsum("lro,lso->lrs", b[i], b[j], precision="highest")
        return jnp.sum(of_a * of_b, axis=(1, 2))

    squared_norms = inner(0, 0) * inner(1, 1)
    norms = jnp.sqrt(squared_norms)
    cosine = inner(0, 1) / jnp.maximum(norms, 1e-30)
    # Rounding may carry a cosine past 1, where it has no angle.
    angle = jnp.arccos(jnp.clip(cosine, -1.0, 1.0))
    sine = jnp.sin(angle)
    # Nearly parallel changes have no great circle of their own, and a chord is as good.
    is_straight = (sine < 1e-4) | (squared_norms == 0)
    # Where it is straight the quotient is not used, and must not divide by zero all the same.
    divisor = jnp.where(is_straight, 1.0, sine)
    sines = jnp.stack([jnp.sin((1 - t) * angle), jnp.sin(t * angle)])
    curved = sines / divisor
    straight = jnp.asarray([1 - t, t])[:, None]
    return jnp.where(is_straight, straight, curved)
