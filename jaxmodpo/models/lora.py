"""Low-rank adapters as PEFT defines them: parameters, the forward pass, and exact averages.

A projection W becomes x W + s · dropout(x) A B with s = α / r (α / √r with rslora). A is drawn
Kaiming-uniform, B starts at zero, so a fresh adapter changes nothing, to the last bit. Adapters are
float32 and stacked over layers like the weights they belong to.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from jaxmodpo.errors import UserError
from jaxmodpo.models.parameters import Spec, Table

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class LoraConfig:
    """What PEFT's ``adapter_config.json`` says.

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
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise UserError(
                f"LoRA needs rank ≥ 1, alpha > 0 and dropout in [0, 1); got {self.rank}, {self.alpha}, {self.dropout}"
            )
        unknown = sorted(set(self.targets) - set(PROJECTIONS))
        if unknown or not self.targets:
            raise UserError(
                f"LoRA targets must be some of {', '.join(PROJECTIONS)}; got {', '.join(unknown) or 'none'}"
            )

    @property
    def scale(self) -> float:
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


def adapter_table(base: Table, config: LoraConfig) -> dict[str, Spec]:
    """Return the adapter's parameters, ``{projection}.A`` and ``{projection}.B``, for a base model's table."""
    table: dict[str, Spec] = {}
    for name in config.targets:
        spec = base[f"layers.{name}"]
        layers, width_in, width_out = spec.shape
        stem = "base_model.model." + spec.key.removesuffix(".weight")
        table[f"{name}.A"] = Spec(
            (layers, width_in, config.rank),
            (spec.axes[0], f"adapter_{spec.axes[1]}", None),
            f"{stem}.lora_A.weight",
            "kaiming",
            True,
        )
        table[f"{name}.B"] = Spec(
            (layers, config.rank, width_out),
            (spec.axes[0], None, f"adapter_{spec.axes[2]}"),
            f"{stem}.lora_B.weight",
            "zeros",
            True,
        )
    return table


def apply(x: Array, weights: dict[str, Array], name: str, scale: float, dropout: tuple[float, Array] | None) -> Array:
    """Return the adapter's contribution to projection ``name``, or 0 where it has none.

    Args:
        x: ``[..., in]``, the projection's input.
        weights: one layer's adapter, ``{name}.A`` ``[in, r]`` and ``{name}.B`` ``[r, out]``.
        scale: s.
        dropout: rate and key in training, None otherwise.
    """
    if f"{name}.A" not in weights:
        return jnp.zeros((), x.dtype)
    if dropout is not None and dropout[0] > 0:
        rate, key = dropout
        kept = jax.random.bernoulli(jax.random.fold_in(key, PROJECTIONS.index(name)), 1 - rate, x.shape)
        x = jnp.where(kept, x / (1 - rate), 0).astype(x.dtype)
    a, b = (weights[f"{name}.{part}"].astype(x.dtype) for part in "AB")
    return scale * ((x @ a) @ b)


def average(
    adapters: list[tuple[LoraConfig, dict[str, Array]]], weights: list[float]
) -> tuple[LoraConfig, dict[str, Array]]:
    """Average adapters exactly: the new adapter's change of each projection is Σ w_i s_i A_i B_i.

    The factors are concatenated along the rank, ``[s_1 w_1 B_1; s_2 w_2 B_2; …]`` against ``[A_1, A_2, …]``,
    which is exact for any ranks and scales; the result has rank Σ r_i and scale 1. Averaging A and
    B themselves would be another thing: (Σ w A)(Σ w B) has cross terms.

    Args:
        adapters: configurations and parameters, all with the same target projections.
        weights: one per adapter, on the simplex.

    Raises:
        UserError: different targets.
    """
    targets = adapters[0][0].targets
    for config, _ in adapters[1:]:
        if set(config.targets) != set(targets):
            raise UserError(
                f"adapters to average must adapt the same projections; got {', '.join(targets)} "
                f"and {', '.join(config.targets)}"
            )
    merged: dict[str, Array] = {}
    for name in targets:
        merged[f"{name}.A"] = jnp.concatenate([a[f"{name}.A"] for _, a in adapters], axis=2)
        merged[f"{name}.B"] = jnp.concatenate(
            [w * c.scale * a[f"{name}.B"] for w, (c, a) in zip(weights, adapters, strict=True)], axis=1
        )
    rank = sum(config.rank for config, _ in adapters)
    dropout = adapters[0][0].dropout
    return dataclasses.replace(adapters[0][0], rank=rank, alpha=float(rank), dropout=dropout, rslora=False), merged
