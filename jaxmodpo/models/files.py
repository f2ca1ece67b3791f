"""Hugging Face folders in and out: ``config.json`` and safetensors, nothing else.

Each tensor goes from the file straight to the devices that hold it, as its sharding says. Missing, unexpected and
misshapen tensors are refused by name, all in one message. Pickle files and remote code are never
read.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
from jax import Array
from jax.sharding import Sharding
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jaxmodpo.artifacts import atomic_directory, read_json
from jaxmodpo.errors import UserError
from jaxmodpo.models.mistral import BaseParam, Mistral, MistralConfig, parameter_table
from jaxmodpo.models.parameters import Spec, Table

# Buffers that older transformers releases saved and that are computed here.
_IGNORED = ("rotary_emb.inv_freq", "embeddings.position_ids")


def read_model_config(folder: Path) -> dict[str, Any]:
    """Read ``config.json`` of a model folder."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} is not a model folder: it has no config.json")
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise UserError(f"{folder}/config.json must hold a mapping")
    return config


def tensor_files(folder: Path, weights_name: str = "model") -> dict[str, Path]:
    """Map each tensor's name to the safetensors file that holds it, single or indexed.

    Raises:
        UserError: no safetensors file, a listed file missing, a corrupt file, a tensor in two files.
    """
    index = folder / f"{weights_name}.safetensors.index.json"
    if index.is_file():
        names = sorted(set(read_json(index)["weight_map"].values()))
        paths = [folder / name for name in names]
    else:
        paths = [folder / f"{weights_name}.safetensors"]
    found: dict[str, Path] = {}
    for path in paths:
        if not path.is_file():
            pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
            hint = "; pickle files are never loaded: convert to safetensors first" if pickled else ""
            raise UserError(f"{folder} has no {path.name}{hint}")
        try:
            with safe_open(path, framework="numpy") as file:
                for name in file.keys():  # noqa: SIM118 (not a mapping)
                    if name in found:
                        raise UserError(f"{folder}: the tensor {name} is in both {found[name].name} and {path.name}")
                    found[name] = path
        except SafetensorError as error:
            raise UserError(f"{path} is corrupt or truncated: {error}") from error
    return found


def load_parameters(
    folder: Path,
    table: Table,
    dtype: Any,
    *,
    weights_name: str = "model",
    shardings: Mapping[str, Sharding] | None = None,
    optional: frozenset[str] = frozenset(),
    ignored_prefixes: tuple[str, ...] = (),
) -> dict[str, Array]:
    """Load every parameter of ``table`` from a folder's safetensors.

    Args:
        folder: the model or adapter folder.
        table: what to load, from where, in which shape.
        dtype: of the arrays made.
        weights_name: the file's stem.
        shardings: a sharding per parameter; without, the default device.
        optional: parameters that may be absent from the file (a fresh head) and are then left out.
        ignored_prefixes: tensors in the file that may be left unread.

    Raises:
        UserError: missing, unexpected or misshapen tensors, all named in one message.
    """
    files = tensor_files(folder, weights_name)
    opened = {path: safe_open(path, framework="numpy") for path in sorted(set(files.values()))}
    # A bare RobertaModel saves its tensors without the "roberta." that its heads' folders have.
    prefix = "" if any(spec.tensor_names()[0] in files for spec in table.values()) else "roberta."
    problems: list[str] = []
    wanted: set[str] = set()
    present: dict[str, Spec] = {}
    for name, spec in table.items():
        keys = [_file_key(key, prefix) for key in spec.tensor_names()]
        wanted.update(keys)
        missing = [key for key in keys if key not in files]
        if missing and name in optional:
            continue
        problems += [f"missing {key}" for key in missing]
        shape = _file_shape(spec)
        for key in keys:
            if key in files and (found := tuple(opened[files[key]].get_slice(key).get_shape())) != shape:
                problems.append(f"{key} has shape {list(found)}, not {list(shape)}")
        present[name] = spec
    problems += [
        f"unexpected {key}"
        for key in sorted(files)
        if key not in wanted and not key.endswith(_IGNORED) and not key.startswith(ignored_prefixes)
    ]
    if problems:
        more = f" and {len(problems) - 12} more" if len(problems) > 12 else ""
        raise UserError(f"{folder} does not fit the model its config.json describes: {'; '.join(problems[:12])}{more}")

    def read(spec: Spec, index: Any) -> np.ndarray:
        keys = [_file_key(key, prefix) for key in spec.tensor_names()]
        inner = index[1:] if spec.layers else index
        inner = inner[::-1] if spec.transposed else inner
        chosen = keys[index[0]] if spec.layers else keys
        parts = [opened[files[key]].get_slice(key)[inner].astype(np.dtype(dtype)) for key in chosen]
        parts = [part.T for part in parts] if spec.transposed else parts
        return np.stack(parts) if spec.layers else parts[0]

    loaded: dict[str, Array] = {}
    for name, spec in present.items():
        sharding = (shardings or {}).get(name) or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        loaded[name] = jax.make_array_from_callback(spec.shape, sharding, lambda index, spec=spec: read(spec, index))
    return loaded


def _file_key(key: str, prefix: str) -> str:
    return key.removeprefix(prefix) if prefix else key


def _file_shape(spec: Spec) -> tuple[int, ...]:
    shape = spec.shape[1:] if spec.layers else spec.shape
    return shape[::-1] if spec.transposed else shape


def save_model(
    folder: Path,
    config: Mapping[str, Any],
    table: Table,
    parameters: Mapping[str, Array],
    tokenizer_from: Path | None = None,
) -> None:
    """Write a Hugging Face folder, atomically: ``config.json``, ``model.safetensors`` and a tokenizer's files.

    Args:
        folder: where to.
        config: what ``config.json`` will hold.
        table: names and layouts of the tensors.
        parameters: the arrays.
        tokenizer_from: a folder whose tokenizer files are copied.
    """
    tensors: dict[str, np.ndarray] = {}
    for name, spec in table.items():
        array = np.asarray(parameters[name])
        layers = list(array) if spec.layers else [array]
        for key, part in zip(spec.tensor_names(), layers, strict=True):
            tensors[key] = np.ascontiguousarray(part.T if spec.transposed else part)
    kept = _tokenizer_files(tokenizer_from)
    with atomic_directory(folder) as temporary:
        save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
        (temporary / "config.json").write_text(json.dumps(dict(config), indent=2, sort_keys=True) + "\n")
        for path in kept:
            shutil.copyfile(path, temporary / path.name)


def _tokenizer_files(folder: Path | None) -> list[Path]:
    names = (
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "special_tokens_map.json",
        "vocab.json",
        "merges.txt",
        "chat_template.jinja",
        "added_tokens.json",
    )
    return [] if folder is None else [folder / name for name in names if (folder / name).is_file()]


def dtype_named(name: str) -> Any:
    """Return ``float32`` or ``bfloat16`` as a NumPy dtype."""
    return {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}[name]


def load_mistral(folder: Path, dtype: str = "bfloat16", shardings_for: Any | None = None) -> Mistral:
    """Load a Mistral model from a Hugging Face folder, without an adapter.

    Args:
        folder: ``config.json`` and safetensors.
        dtype: ``bfloat16`` or ``float32``.
        shardings_for: maps a parameter table to shardings (``training.mesh.shardings`` with its mesh), or None.

    Raises:
        UserError: not a model folder, an unsupported architecture, or weights that do not fit it.
    """
    config = MistralConfig.from_mapping(read_model_config(folder), f"{folder}/config.json")
    table = parameter_table(config)
    shardings = shardings_for(table) if shardings_for else None
    ignored = ("lm_head.",) if config.tie_word_embeddings else ()
    base = load_parameters(folder, table, dtype_named(dtype), shardings=shardings, ignored_prefixes=ignored)
    return Mistral(config, base)


def save_mistral(folder: Path, model: Mistral, config: Mapping[str, Any], tokenizer_from: Path | None = None) -> None:
    """Write a Mistral model's base weights; ``config`` is the ``config.json`` to go with them."""
    arrays = {name: variable[...] for name, variable in model.base.items() if isinstance(variable, BaseParam)}
    save_model(folder, config, parameter_table(model.config), arrays, tokenizer_from)
