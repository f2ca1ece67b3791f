"""Rotary position embeddings: what ``config.json`` says of them, and the rotation itself.

A head's width is split into pairs of numbers, and each pair is turned by an angle that grows with
the position, fast for the first pair and slowly for the last. A query and a key turned like this
have a product that depends on the distance between them alone. Llama 3.1 and later stretch the slow
turns, so that longer texts than those of pretraining meet no angle that the model has not seen::

    rope = Rope.from_mapping({"rope_theta": 500_000.0}, "config.json")
    q_BTHC = rotate(q_BTHC, rotation(rope, head_width, positions_BT))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmodpo.errors import UserError
from jaxmodpo.parsing import JsonObject
from jaxmodpo.ranges import Positive
from jaxmodpo.schema import read_as, shown

_ROPE_FIELDS = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
"""the rotary parameters that each ``rope_type`` has"""


@dataclass(frozen=True)
class Rope:
    """Rotary position embeddings: the base θ, and how Llama 3.1 stretches the slow frequencies.

    Attributes:
        theta: frequency i of a head of width C is θ^(−2i/C).
        factor: slow frequencies are divided by it; 1 leaves all as they are.
        low_frequency_factor: wavelengths above ``original_length`` / this are divided wholly.
        high_frequency_factor: wavelengths below ``original_length`` / this are not; between, a
            linear mix.
        original_length: the context length of pretraining; None divides every frequency by
            ``factor``.
    """

    theta: float = 10_000.0
    factor: float = 1.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_length: int | None = None

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any], source: str) -> Rope:
        """Read ``rope_parameters``, or ``rope_theta`` and ``rope_scaling`` of older files.

        Raises:
            UserError: a kind that is not supported, values that are no numbers, or two places that
                disagree.
        """
        rope = _rope_parameters(settings, source)
        theta = _rope_theta(settings.get("rope_theta"), rope.pop("rope_theta", None), source)
        numbers = {"rope_theta": theta, **rope}
        for name, value in numbers.items():
            if name not in ("type", "rope_type") and value is not None:
                read_as(value, Positive, source, name)
        older_type = rope.pop("type", "default")
        kind = rope.pop("rope_type", older_type)
        # A kind that is taken for another would give wrong positions, and no error anywhere.
        if not isinstance(kind, str) or kind not in _ROPE_FIELDS:
            raise UserError(
                f"{source}: rope_type '{kind}' is not supported; only {', '.join(_ROPE_FIELDS)} are"
            )
        _check_rope_fields(rope, kind, source)
        if kind == "default":
            return cls(float(theta))
        factor = float(rope["factor"])
        if kind == "linear":
            return cls(float(theta), factor)
        low = rope["low_freq_factor"]
        high = rope["high_freq_factor"]
        if low >= high:
            raise UserError(
                f"{source}: low_freq_factor {low} must be less than high_freq_factor {high}"
            )
        original_length = int(rope["original_max_position_embeddings"])
        return cls(float(theta), factor, float(low), float(high), original_length)

    def frequencies(self, head_width: int) -> np.ndarray:
        """Return the ``head_width / 2`` angular frequencies, radians a position, float32."""
        # In float64: the last frequencies of a large θ are small, and positions multiply them by
        # tens of thousands.
        doubled_indices = np.arange(0, head_width, 2, dtype=np.float64)  # 2i of each pair i
        plain = self.theta ** (-doubled_indices / head_width)
        if self.original_length is None:
            return (plain / self.factor).astype(np.float32)
        # How often each pair turned within the context of pretraining. A pair that turned many
        # times has seen every angle, and tells near tokens apart: it is left alone. One that never
        # got round is divided by the factor, so that longer texts stay within the angles seen.
        turns = self.original_length * plain / (2 * np.pi)
        low = self.low_frequency_factor
        high = self.high_frequency_factor
        kept_share = np.clip((turns - low) / (high - low), 0.0, 1.0)
        stretched_part = (1 - kept_share) * plain / self.factor
        kept_part = kept_share * plain
        mixed = stretched_part + kept_part
        return mixed.astype(np.float32)


def _rope_parameters(settings: Mapping[str, Any], source: str) -> JsonObject:
    """Return the rotary parameters from the place where the file has them."""
    newer = settings.get("rope_parameters")
    older = settings.get("rope_scaling")
    for name, parameters in (("rope_parameters", newer), ("rope_scaling", older)):
        if parameters is not None and not isinstance(parameters, Mapping):
            raise UserError(f"{source}: {name} must be a mapping, not {shown(parameters)}")
    if newer and older and newer != older:
        raise UserError(
            f"{source}: rope_parameters and rope_scaling disagree; remove the one that does not"
            " hold"
        )
    return dict(newer or older or {})


def _rope_theta(outside: Any, inside: Any, source: str) -> Any:
    """Return θ as it stands beside the rotary parameters or inside them; 10,000 where it stands
    nowhere.
    """
    if outside is not None and inside is not None and outside != inside:
        raise UserError(
            f"{source}: rope_theta is {outside}, and {inside} in the rotary parameters; remove one"
        )
    theta = outside if inside is None else inside
    return 10_000.0 if theta is None else theta


def _check_rope_fields(rope: Mapping[str, Any], kind: str, source: str) -> None:
    """Refuse rotary parameters that lack a field of their kind, or have one of another."""
    supported = _ROPE_FIELDS[kind]
    problems: list[str] = []
    for name, value in rope.items():
        if name not in supported and value is not None:
            problems.append(f"'{name}' is not supported")
    for name in supported:
        if rope.get(name) is None:
            problems.append(f"'{name}' is missing")
    if problems:
        raise UserError(
            f"{source}: in the rotary parameters of type '{kind}', {' and '.join(problems)}"
        )


def rotation(rope: Rope, head_width: int, positions_BT: Array) -> tuple[Array, Array]:
    """Return cosines and sines of the rotary angles, ``[B, T, 1, C/2]`` float32."""
    # In float32 whatever the model's type is: bfloat16 has no 257 between 256 and 258.
    positions_BT11 = positions_BT[..., None, None].astype(jnp.float32)
    angles = positions_BT11 * rope.frequencies(head_width)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: Array, angles: tuple[Array, Array]) -> Array:
    """Rotate the two halves of each head against each other, by what :func:`rotation` returns.

    The paper pairs neighboring numbers of a head. Hugging Face's weights have their rows permuted,
    so that a number's partner stands half a head away: another layout, and the same model.
    """
    cosines, sines = angles
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned_first = first * cosines - second * sines
    turned_second = second * cosines + first * sines
    turned = jnp.concatenate([turned_first, turned_second], axis=-1)
    return turned.astype(x.dtype)
