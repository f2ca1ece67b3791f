"""The ``export`` command: an adapter merged into its base model, as a folder that stands alone."""

from __future__ import annotations

import json
import logging
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.errors import UserError
from jaxmodpo.files import atomic_directory, write_json
from jaxmodpo.hub import local_folder
from jaxmodpo.models.adapters import load_adapter
from jaxmodpo.models.decoder import parameter_table
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.files import (
    Located,
    copy_tokenizer,
    locate,
    read_decoder_config,
    read_model_config,
)
from jaxmodpo.models.tensors import save_tensors
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.ranges import Count, Incidental, Settings

logger = logging.getLogger(__name__)

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class ExportConfig(Settings, help_group="output"):
    """Merge an adapter into its base model: a full Hugging Face folder, for transformers, vLLM and
    others.
    """

    model: Path
    """the base model's Hugging Face folder"""
    adapter: Path
    """a PEFT folder, trained on this base"""
    output_dir: Incidental[Path]
    """the merged model is written to output_dir/model"""
    shard_mib: Count = 4096
    """start a new safetensors file before one grows beyond this"""

    def cost(self, estimator: Estimates) -> Cost:
        return Cost(disk=estimator.model_bytes(self.model))


@in_phase("export")
def export(config: ExportConfig, phase: Phase) -> None:
    """Run ``export``."""
    model = read_decoder_config(config.model)
    ignored = ("lm_head.",) if model.tie_word_embeddings else ()
    found = locate(config.model, parameter_table(model), ignored_prefixes=ignored)
    deltas = _Deltas(config, model, found)
    shards = _plan(found, config.shard_mib * MIB)
    with atomic_directory(config.output_dir / "model") as folder:
        for path in _settings_files(config.model):
            shutil.copyfile(path, folder / path.name)
        copy_tokenizer(config.model, folder)
        settings = read_model_config(config.model)
        if settings.get("tie_word_embeddings") and not model.tie_word_embeddings:
            # The folder has a head of its own, which not every reader would look for.
            write_json(folder / "config.json", settings | {"tie_word_embeddings": False})
        total, places = 0, {}
        for number, keys in enumerate(shards, 1):
            name = (
                "model.safetensors"
                if len(shards) == 1
                else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            )
            tensors = {key: deltas.merged(key) for key in keys}
            save_tensors(tensors, folder / name)
            total += sum(tensor.nbytes for tensor in tensors.values())
            places |= dict.fromkeys(keys, name)
            logger.info("wrote %s", name)
        if len(shards) > 1:
            index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    phase.finish(tensors=len(places), bytes=total, files=len(shards), merged=deltas.count)


class _Deltas:
    """The base's tensors one by one, with what the adapter changes added in float32."""

    def __init__(self, config: ExportConfig, model: DecoderConfig, found: Located):
        lora, arrays = load_adapter(config.adapter, model, config.model)
        self.files = found.files
        self.scale = lora.scale
        table = parameter_table(model)
        self.factors: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for name in lora.targets:
            a, b = (np.asarray(arrays[f"{name}.{part}"], np.float32) for part in "AB")
            for layer, key in enumerate(found.keys(table[f"layers.{name}"])):
                self.factors[key] = a[layer], b[layer]

    @property
    def count(self) -> int:
        return len(self.factors)

    def merged(self, key: str) -> np.ndarray:
        """Return W + s (A B)ᵀ as the file lays it out, rounded once to the file's type.

        Raises:
            UserError: the sum is beyond what that type can hold, as float16 ends at 65,504.
        """
        with safe_open(self.files[key], framework="numpy") as file:
            weight: np.ndarray = file.get_tensor(key)
        if key not in self.factors:
            return weight
        a, b = self.factors[key]
        with np.errstate(over="ignore"):
            merged = (weight.astype(np.float32) + self.scale * (a @ b).T).astype(weight.dtype)
        if not np.isfinite(merged.astype(np.float32)).all():
            raise UserError(
                f"{self.files[key]}: {key} with the adapter added has values that {weight.dtype}"
                " cannot hold; save the base model as bfloat16 or float32 first"
            )
        return merged


def _plan(found: Located, limit: int) -> list[list[str]]:
    """Cut the table's tensors into files of at most ``limit`` bytes, or of one larger tensor."""
    shards: list[list[str]] = [[]]
    size = 0
    for spec in found.present.values():
        for key in found.keys(spec):
            with safe_open(found.files[key], framework="numpy") as file:
                tensor: Any = file.get_slice(key)
                bytes_each = 4 if tensor.get_dtype() == "F32" else 2
                needed = bytes_each * math.prod(tensor.get_shape())
            if shards[-1] and size + needed > limit:
                shards.append([])
                size = 0
            shards[-1].append(key)
            size += needed
    return shards


def _settings_files(folder: Path) -> list[Path]:
    folder = local_folder(folder)
    return [
        folder / name
        for name in ("config.json", "generation_config.json")
        if (folder / name).is_file()
    ]
