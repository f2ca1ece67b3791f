"""PEFT folders in and out: ``adapter_config.json`` and ``adapter_model.safetensors``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from safetensors.numpy import save_file

from jaxmodpo.artifacts import atomic_directory, read_json
from jaxmodpo.errors import UserError
from jaxmodpo.models.decoder import DecoderConfig, parameter_table
from jaxmodpo.models.files import load_parameters
from jaxmodpo.models.lora import PROJECTIONS, LoraConfig, adapter_table


def save_adapter(
    folder: Path, adapter: dict[str, Array], config: LoraConfig, model: DecoderConfig, base_model: str
) -> None:
    """Write a PEFT folder, atomically: ``adapter_config.json`` and ``adapter_model.safetensors``."""
    tensors: dict[str, np.ndarray] = {}
    for name, spec in adapter_table(parameter_table(model), config).items():
        stacked = np.asarray(adapter[name], np.float32)
        for layer, key in enumerate(spec.tensor_names()):
            tensors[key] = np.ascontiguousarray(stacked[layer].T)
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": config.rank,
        "lora_alpha": int(config.alpha) if float(config.alpha).is_integer() else config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": sorted(config.targets),
        "use_rslora": config.rslora,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
    }
    with atomic_directory(folder) as temporary:
        save_file(tensors, temporary / "adapter_model.safetensors", metadata={"format": "pt"})
        (temporary / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n")


_PLAIN = {"bias": "none", "use_dora": False, "fan_in_fan_out": False, "modules_to_save": None}


def read_adapter_settings(folder: Path) -> dict[str, Any]:
    """Read ``adapter_config.json`` as it is.

    Raises:
        UserError: there is none, or it is no mapping.
    """
    path = folder / "adapter_config.json"
    if not path.is_file():
        raise UserError(f"{folder} is not a PEFT adapter: it has no adapter_config.json")
    settings = read_json(path)
    if not isinstance(settings, dict):
        raise UserError(f"{path} must hold a mapping of settings, not {type(settings).__name__}")
    return settings


def read_adapter_config(folder: Path) -> LoraConfig:
    """Read a LoRA adapter's settings; a PEFT feature that would change the mathematics is refused by name.

    Raises:
        UserError: no adapter, another kind of adapter, or a setting that is missing, not supported or of another type.
    """
    settings = read_adapter_settings(folder)
    if settings.get("peft_type") != "LORA":
        raise UserError(f"{folder} is a PEFT adapter of type {settings.get('peft_type')}; only LORA is supported")
    for name, plain in _PLAIN.items():
        if settings.get(name, plain) not in (plain, []):
            raise UserError(f"{folder}/adapter_config.json: {name}={settings[name]} is not supported")
    for name in ("rank_pattern", "alpha_pattern"):
        if settings.get(name):
            raise UserError(f"{folder}/adapter_config.json: {name} is not supported; use one rank and alpha throughout")
    for name in ("r", "lora_alpha"):
        if not isinstance(settings.get(name), int | float):
            raise UserError(f"{folder}/adapter_config.json: {name} must be a number, not {settings.get(name)}")
    targets, dropout = settings.get("target_modules"), settings.get("lora_dropout", 0.0)
    if not isinstance(dropout, int | float):
        raise UserError(f"{folder}/adapter_config.json: lora_dropout must be a number, not {dropout}")
    if isinstance(targets, str):
        raise UserError(f"{folder}/adapter_config.json: target_modules must be a list of projections, not a pattern")
    if not isinstance(targets, list) or not all(isinstance(name, str) for name in targets):
        raise UserError(f"{folder}/adapter_config.json: target_modules must be a list of projections, not {targets}")
    return LoraConfig(
        rank=settings["r"],
        alpha=float(settings["lora_alpha"]),
        dropout=float(dropout),
        # PEFT may list every layer's module by its full name; a layer left out shows up as a missing tensor.
        targets=_targets([name.rsplit(".", 1)[-1] for name in targets]),
        rslora=bool(settings.get("use_rslora", False)),
    )


def _targets(names: list[str]) -> tuple[str, ...]:
    unknown = sorted(set(names) - set(PROJECTIONS))
    return (*(name for name in PROJECTIONS if name in names), *unknown)


def load_adapter(folder: Path, model: DecoderConfig) -> tuple[LoraConfig, dict[str, Array]]:
    """Read a PEFT folder for a model of this shape."""
    config = read_adapter_config(folder)
    table = adapter_table(parameter_table(model), config)
    return config, load_parameters(folder, table, jnp.float32, weights_name="adapter_model")
