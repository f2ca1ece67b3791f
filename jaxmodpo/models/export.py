"""The ``export`` command: an adapter merged into its base model, as a folder that stands alone.

The base's tensors are read, changed and written one file at a time, so that a model need not fit
into memory. A merged weight is W + s (A B)ᵀ, computed in float32 and rounded once.
"""

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
from jaxmodpo.models.checkpoint import Located, locate
from jaxmodpo.models.decoder import parameter_table
from jaxmodpo.models.decoder_config import DecoderConfig, read_decoder_config
from jaxmodpo.models.model_folder import copy_tokenizer, read_model_config
from jaxmodpo.models.tensors import save_tensors
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.ranges import CommandSettings, Count, Incidental

logger = logging.getLogger(__name__)

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class ExportConfig(CommandSettings, help_group="output"):
    """Merge an adapter into its base model: a full Hugging Face folder, for transformers, vLLM and
    others.
    """

    model: Path
    """Hugging Face folder of the base model."""
    adapter: Path
    """PEFT folder of the adapter, which was trained on this base."""
    output_dir: Incidental[Path]
    """Folder of the output. The merged model is written to model/ in it."""
    shard_mib: Count = 4096
    """Largest size of one safetensors file, in MiB. The memory that the command needs grows with
    it."""

    def cost(self, estimator: Estimates) -> Cost:
        return Cost(disk=estimator.model_bytes(self.model))


@in_phase("export")
def export(config: ExportConfig, phase: Phase) -> None:
    """Run ``export``."""
    model = read_decoder_config(config.model)
    ignored = ("lm_head.",) if model.tie_word_embeddings else ()
    located = locate(config.model, parameter_table(model), ignored_prefixes=ignored)
    deltas = _Deltas(config, model, located)
    shards = _plan(located, config.shard_mib * MIB)
    with atomic_directory(config.output_dir / "model") as folder:
        for path in _settings_files(config.model):
            shutil.copyfile(path, folder / path.name)
        copy_tokenizer(config.model, folder)
        settings = read_model_config(config.model)
        if settings.get("tie_word_embeddings") and not model.tie_word_embeddings:
            # The folder has a head of its own, which not every reader would look for.
            write_json(folder / "config.json", settings | {"tie_word_embeddings": False})
        total_bytes = 0
        file_of_tensor: dict[str, str] = {}
        for number, keys in enumerate(shards, 1):
            name = _shard_name(number, len(shards))
            tensors = {key: deltas.merged(key) for key in keys}
            save_tensors(tensors, folder / name)
            total_bytes += sum(tensor.nbytes for tensor in tensors.values())
            file_of_tensor |= dict.fromkeys(keys, name)
            logger.info("wrote %s", name)
        if len(shards) > 1:
            _write_index(folder, total_bytes, file_of_tensor)
    phase.finish(
        tensors=len(file_of_tensor), bytes=total_bytes, files=len(shards), merged=deltas.count
    )


def _shard_name(number: int, count: int) -> str:
    """Return the name that transformers gives a shard, the only one of a small model included."""
    if count == 1:
        return "model.safetensors"
    return f"model-{number:05d}-of-{count:05d}.safetensors"


def _write_index(folder: Path, total_bytes: int, file_of_tensor: dict[str, str]) -> None:
    index = {
        "metadata": {"total_size": total_bytes},
        "weight_map": dict(sorted(file_of_tensor.items())),
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


class _Deltas:
    """The base's tensors one by one, with what the adapter changes added in float32."""

    def __init__(self, config: ExportConfig, model: DecoderConfig, located: Located):
        lora, arrays = load_adapter(config.adapter, model, config.model)
        self.files = located.files
        self.scale = lora.scale
        table = parameter_table(model)
        self.factors: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for name in lora.targets:
            a = np.asarray(arrays[f"{name}.A"], np.float32)
            b = np.asarray(arrays[f"{name}.B"], np.float32)
            for layer, key in enumerate(located.keys(table[f"layers.{name}"])):
                self.factors[key] = (a[layer], b[layer])

    @property
    def count(self) -> int:
        """How many tensors the adapter changes."""
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
        # An overflow becomes an infinity, which is told below with the tensor's name, and not a
        # warning without one.
        with np.errstate(over="ignore"):
            change = self.scale * (a @ b).T
            merged = weight.astype(np.float32) + change
            merged = merged.astype(weight.dtype)
        if not np.isfinite(merged.astype(np.float32)).all():
            raise UserError(
                f"{self.files[key]}: {key} with the adapter added has values that {weight.dtype}"
                " cannot hold; save the base model as bfloat16 or float32 first"
            )
        return merged


def _plan(located: Located, limit: int) -> list[list[str]]:
    """Cut the table's tensors into files of at most ``limit`` bytes, or of one larger tensor."""
    shards: list[list[str]] = [[]]
    size = 0
    for spec in located.present.values():
        for key in located.keys(spec):
            with safe_open(located.files[key], framework="numpy") as file:
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
    paths = [folder / "config.json", folder / "generation_config.json"]
    return [path for path in paths if path.is_file()]
