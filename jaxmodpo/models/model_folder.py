"""The small files of a Hugging Face model folder: its configurations and its tokenizer.

Weights are found by :mod:`jaxmodpo.models.checkpoint` and loaded by :mod:`jaxmodpo.models.loading`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jax import Array

from jaxmodpo.errors import UserError
from jaxmodpo.files import atomic_directory, read_json
from jaxmodpo.hub import local_folder, refuse_missing
from jaxmodpo.models.parameters import Table
from jaxmodpo.models.tensors import save_tensors
from jaxmodpo.parsing import JsonObject

_SAMPLING_DEFAULTS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "typical_p",
    "no_repeat_ngram_size",
    "suppress_tokens",
    "bad_words_ids",
)
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "added_tokens.json",
)


def read_model_config(folder: Path) -> JsonObject:
    """Read ``config.json`` of a model folder."""
    folder = local_folder(folder)
    path = folder / "config.json"
    if not path.is_file():
        refuse_missing(folder)
        raise UserError(f"{folder} is not a model folder: it has no config.json")
    config = read_json(path)
    if not isinstance(config, dict):
        raise UserError(f"{path} must hold a mapping")
    return config


def read_end_tokens(folder: Path, tokenizer_end: int) -> tuple[int, ...]:
    """Return the tokens that end a reply: the tokenizer's, and those of the folder's
    ``generation_config.json``.

    Chat models list several there, and transformers' ``generate`` ends at any of them. In a folder
    without that file it takes those of ``config.json``.

    Raises:
        UserError: an ``eos_token_id`` that is neither an id nor a list of ids.
    """
    path = local_folder(folder) / "generation_config.json"
    if not path.is_file():
        path = path.with_name("config.json")
    settings = read_json(path) if path.is_file() else {}
    if not isinstance(settings, dict):
        raise UserError(f"{path} must hold a mapping of settings, not {type(settings).__name__}")
    end_tokens = settings.get("eos_token_id")
    if end_tokens is None:
        return (tokenizer_end,)
    ids = end_tokens if isinstance(end_tokens, list) else [end_tokens]
    for token in ids:
        # JSON's true is an int in Python.
        if isinstance(token, bool) or not isinstance(token, int) or token < 0:
            raise UserError(
                f"{path}: eos_token_id must be an id or a list of ids, not {json.dumps(end_tokens)}"
            )
    # A dictionary drops repetitions and keeps the order, the tokenizer's own token first.
    return tuple(dict.fromkeys([tokenizer_end, *ids]))


def read_sampling_defaults(folder: Path) -> JsonObject:
    """Return what a folder's ``generation_config.json`` says of how to draw; nothing where there is
    none.
    """
    path = local_folder(folder) / "generation_config.json"
    settings = read_json(path) if path.is_file() else {}
    if not isinstance(settings, dict):
        raise UserError(f"{path} must hold a mapping of settings, not {type(settings).__name__}")
    return {name: settings[name] for name in _SAMPLING_DEFAULTS if settings.get(name) is not None}


def copy_tokenizer(folder: Path, target: Path) -> None:
    """Copy a tokenizer's files, the chat templates that have names among them."""
    folder = local_folder(folder)
    templates = sorted((folder / "additional_chat_templates").glob("*.jinja"))
    for path in [*(folder / name for name in _TOKENIZER_FILES), *templates]:
        if not path.is_file():
            continue
        copy = target / path.relative_to(folder)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, copy)


def save_model(
    folder: Path,
    config: Mapping[str, Any],
    table: Table,
    parameters: Mapping[str, Array],
    tokenizer_from: Path | None = None,
) -> None:
    """Write a Hugging Face folder, atomically: ``config.json``, ``model.safetensors`` and a
    tokenizer's files.

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
        # A stack of layers becomes a tensor for each of them, as every other reader expects.
        layers = list(array) if spec.layers else [array]
        for key, layer in zip(spec.tensor_names(), layers, strict=True):
            tensors[key] = np.ascontiguousarray(layer.T if spec.transposed else layer)
    with atomic_directory(folder) as temporary:
        save_tensors(tensors, temporary / "model.safetensors")
        settings = json.dumps(dict(config), indent=2, sort_keys=True)
        (temporary / "config.json").write_text(settings + "\n")
        if tokenizer_from is not None:
            copy_tokenizer(tokenizer_from, temporary)
