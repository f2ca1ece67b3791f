"""PEFT folders in and out: ``adapter_config.json`` and ``adapter_model.safetensors``."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmodpo.errors import UserError
from jaxmodpo.files import atomic_directory
from jaxmodpo.hub import model_name
from jaxmodpo.models.adapter_config import base_named_in, read_adapter_config
from jaxmodpo.models.decoder import parameter_table
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.loading import load_parameters
from jaxmodpo.models.lora import LoraConfig, adapter_table
from jaxmodpo.models.tensors import save_tensors

logger = logging.getLogger(__name__)


def save_adapter(
    folder: Path,
    adapter: dict[str, Array],
    config: LoraConfig,
    model: DecoderConfig,
    base_model: str,
) -> None:
    """Write a PEFT folder, atomically: ``adapter_config.json`` and
    ``adapter_model.safetensors``.
    """
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
        save_tensors(tensors, temporary / "adapter_model.safetensors")
        (temporary / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def load_adapter(
    folder: Path, model: DecoderConfig, base: Path
) -> tuple[LoraConfig, dict[str, Array]]:
    """Read a PEFT folder for a model of this shape.

    Args:
        folder: the adapter's.
        model: the base's shape.
        base: the base's folder. An adapter that names another base is refused where it has another
            shape, and warned of where it fits, since the weights may be another's.

    Raises:
        UserError: not a plain LoRA adapter, one of another shape, or with numbers that are not
            finite.
    """
    config = read_adapter_config(folder)
    made_for = base_named_in(folder)
    table = adapter_table(parameter_table(model), config)
    try:
        arrays = load_parameters(folder, table, jnp.float32, weights_name="adapter_model")
    except UserError as error:
        if made_for is None or _same_base(made_for, base):
            raise
        raise UserError(
            f"{folder} was trained on {made_for} and does not fit {base}: {error}"
        ) from error
    if made_for is not None and not _same_base(made_for, base):
        logger.warning(
            "%s was trained on %s and is used with %s: unless these are the same weights, its"
            " numbers mean nothing",
            folder,
            made_for,
            base,
        )
    return config, arrays


def _same_base(recorded: str, base: Path) -> bool:
    """Return whether an adapter's base may be this folder, by what can be known without reading any
    weights.
    """
    if Path(recorded).exists() and Path(recorded).resolve() == base.resolve():
        return True
    # Adapters move between machines: the name is all that stays.
    return model_name(recorded).lower() == model_name(str(base.resolve())).lower()
