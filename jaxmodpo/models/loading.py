"""Weights from safetensors to devices, tensor by tensor.

``load_decoder`` (``models/decoder.py``), ``load_roberta`` (``models/roberta.py``) and
``load_adapter`` (``models/adapters.py``) all come down to :func:`load_parameters`, which needs a
table of parameters and nothing else of a model.

Each tensor goes from the file straight to the devices that hold it, as its sharding says. On the
way it is transposed, cast, perhaps quantized, and written into the stack of its layers::

    file [out, in] → devices, as the stack is sharded → [in, out] → codes and scales → stack[layer]

A model of 14 GB is so loaded by a host with 1 GB to spare.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from jaxmodpo.errors import UserError
from jaxmodpo.models.checkpoint import file_shape, in_one_sentence, locate, open_files
from jaxmodpo.models.parameters import Spec, Table
from jaxmodpo.models.quantized import BaseDtype, quantize, stored_table


def dtype_named(name: str) -> Any:
    """Return ``float32`` or ``bfloat16`` as a NumPy dtype."""
    return {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}[name]


def load_parameters(
    folder: Path,
    table: Table,
    dtype: Any,
    *,
    weights_name: str = "model",
    base_dtype: BaseDtype | None = None,
    shardings: Mapping[str, Sharding] | None = None,
    optional: frozenset[str] = frozenset(),
    ignored_prefixes: tuple[str, ...] = (),
) -> dict[str, Array]:
    """Load every parameter of ``table`` from a folder's safetensors, tensor by tensor.

    Each tensor is read once, goes to the devices that hold it as its sharding says, is cast,
    transposed and perhaps quantized there, and set into the stack of its layers, in place: the host
    never holds more than one tensor's numbers, of which each process reads the part it needs.

    Args:
        folder: the model or adapter folder.
        table: what to load, from where, in which shape.
        dtype: of the arrays made.
        weights_name: the file's stem.
        base_dtype: ``int8`` or ``nf4`` quantize the projections; the result is that of
            ``stored_table``.
        shardings: a sharding per array of the result; without, the default device.
        optional: parameters that may be absent from the file (a fresh head) and are then left out.
        ignored_prefixes: tensors in the file that may be left unread.

    Raises:
        UserError: missing, unexpected or misshapen tensors, or some with NaN or infinity, all named
            in one message.
    """
    located = locate(
        folder,
        table,
        weights_name=weights_name,
        optional=optional,
        ignored_prefixes=ignored_prefixes,
    )
    opened = open_files(located.files)
    stored = stored_table(located.present, base_dtype or "float32")
    loaded: dict[str, Array] = {}
    is_finite: dict[str, Array] = {}
    for name, spec in located.present.items():
        arrays_of_weight = _stored_arrays(name, stored, located.present)
        by_suffix = _targets(name, arrays_of_weight, dtype, shardings or {})
        targets = tuple(by_suffix.values())
        # Quantized, the codes have the weight's own shape, and lie as the weight would.
        is_plain = "" in by_suffix
        main = by_suffix["" if is_plain else ".codes"]
        in_file = _in_file(main.sharding, spec)
        encode = _encoder(
            bool(spec.layers), spec.transposed, None if is_plain else base_dtype, dtype, targets
        )
        arrays = _empty_stacks(targets)() if spec.layers else {}
        for layer, key in enumerate(located.keys(spec)):
            tensor = _read(opened[located.files[key]], key, spec, in_file)
            # Waiting here is what bounds the host's memory: reading would run ahead of the devices.
            arrays, is_finite[key] = jax.block_until_ready(encode(arrays, tensor, layer))
        loaded |= {name + suffix: array for suffix, array in arrays.items()}
    # The flags are fetched together at the end: each is the outcome of work that was waited for
    # already.
    broken = [key for key, flag in is_finite.items() if not flag]
    _refuse_broken(folder, broken)
    return loaded


def _refuse_broken(folder: Path, broken: Sequence[str]) -> None:
    """Refuse a folder with tensors that hold NaN or infinity, by their names in the file."""
    if broken:
        raise UserError(
            f"{folder} holds NaN or infinity, so that nothing computed from it has a meaning:"
            f" {in_one_sentence(broken)}"
        )


class _Target(NamedTuple):
    """An array that a parameter is stored as: the weight itself, or its codes or scales.

    Hashable, so that compiled functions can be kept for it. It does not know its parameter's name,
    so that parameters of one shape share theirs: a model has four or five times as many parameters
    as shapes.

    Attributes:
        suffix: what the array's name has after the parameter's: nothing, ``.codes`` or ``.scales``.
        shape: with the stack's axis, if there is one.
        dtype: its numbers'.
        sharding: where it lies.
    """

    suffix: str
    shape: tuple[int, ...]
    dtype: Any
    sharding: Sharding


def _targets(
    parameter: str, specs: Mapping[str, Spec], dtype: Any, shardings: Mapping[str, Sharding]
) -> dict[str, _Target]:
    """Return the arrays to fill for one parameter, by their names' suffixes.

    Args:
        parameter: its name.
        specs: of :func:`_stored_arrays`.
        dtype: of an array whose row of the table has none of its own.
        shardings: by name; an array without one goes to the first device.
    """
    default = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    targets: dict[str, _Target] = {}
    for name, spec in specs.items():
        sharding = shardings.get(name, default)
        suffix = name.removeprefix(parameter)
        targets[suffix] = _Target(suffix, spec.shape, spec.dtype or dtype, sharding)
    return targets


def _stored_arrays(name: str, stored: Table, present: Table) -> dict[str, Spec]:
    """Return the arrays that a parameter is stored as: itself, or its codes and scales.

    A bias (``head.dense.bias``) has a name like that of a quantized weight's scales, and is told
    from them by having a row of its own in the model's table.
    """
    arrays: dict[str, Spec] = {}
    for stored_name, spec in stored.items():
        is_quantized_from = stored_name.startswith(f"{name}.") and stored_name not in present
        if stored_name == name or is_quantized_from:
            arrays[stored_name] = spec
    return arrays


def _read(file: Any, key: str, spec: Spec, sharding: Sharding) -> Array:
    """Read one tensor; each process reads only the slices that its own devices hold."""
    tensor = file.get_slice(key)
    return jax.make_array_from_callback(file_shape(spec), sharding, lambda index: tensor[index])


def _in_file(sharding: Sharding, spec: Spec) -> Sharding:
    """Return how one tensor in the file's layout lies where its parameter will.

    The stack's axis is gone and a transposed matrix has its axes the other way round, so that the
    transposition on the devices moves no number from one device to another.
    """
    if not isinstance(sharding, NamedSharding):
        return sharding
    missing_axes = len(spec.shape) - len(sharding.spec)
    axes = [*sharding.spec, *[None] * missing_axes]
    tensor_axes = axes[1:] if spec.layers else axes
    if spec.transposed:
        tensor_axes = tensor_axes[::-1]
    return NamedSharding(sharding.mesh, PartitionSpec(*tensor_axes))


@functools.lru_cache(maxsize=256)
def _empty_stacks(targets: tuple[_Target, ...]) -> Any:
    """Return the jitted function that makes the stacks, of zeros, which nobody else holds."""

    def zeros() -> dict[str, Array]:
        return {target.suffix: jnp.zeros(target.shape, target.dtype) for target in targets}

    shardings = {target.suffix: target.sharding for target in targets}
    return jax.jit(zeros, out_shardings=shardings)


@functools.lru_cache(maxsize=256)
def _encoder(
    stacked: bool,
    transposed: bool,
    base_dtype: BaseDtype | None,
    dtype: Any,
    targets: tuple[_Target, ...],
) -> Any:
    """Return the jitted function that sets one tensor into its (donated) stack, or makes its array.

    It also says whether every number of the tensor is finite, since the tensor is at hand here and
    read only once. The stack is donated: XLA writes the layer into the very memory that held the
    stack, where a copy would need room for the parameter twice.
    """

    def encode(
        stacks: dict[str, Array], tensor: Array, layer: Array
    ) -> tuple[dict[str, Array], Array]:
        is_finite = jnp.isfinite(tensor).all()
        weight = tensor.T if transposed else tensor
        if base_dtype is None:
            arrays: dict[str, Array] = {"": weight.astype(dtype)}
        else:
            codes_and_scales = quantize(weight, base_dtype)
            arrays = {f".{kind}": array for kind, array in codes_and_scales.items()}
        if not stacked:
            return arrays, is_finite
        updated: dict[str, Array] = {}
        for suffix, array in arrays.items():
            stack = stacks[suffix]
            updated[suffix] = jax.lax.dynamic_update_index_in_dim(stack, array, layer, axis=0)
        return updated, is_finite

    shardings = {target.suffix: target.sharding for target in targets}
    return jax.jit(encode, donate_argnums=0, out_shardings=(shardings, None))
