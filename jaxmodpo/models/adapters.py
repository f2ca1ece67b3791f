"""PEFT folders in and out: ``adapter_config.json`` and ``adapter_model.safetensors``.

Beside them stands a small file of ours, which PEFT ignores: a hash of the base's weights. An
adapter on other weights of the same shape gives replies without any error, and they mean nothing.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmodpo.errors import UserError
from jaxmodpo.files import atomic_directory, read_json, write_json
from jaxmodpo.fingerprints import digest, fingerprint
from jaxmodpo.hub import local_folder, model_name
from jaxmodpo.models.adapter_config import base_named_in, read_adapter_config
from jaxmodpo.models.decoder import parameter_table
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.loading import load_parameters
from jaxmodpo.models.lora import LoraConfig, adapter_table
from jaxmodpo.models.tensors import save_tensors

logger = logging.getLogger(__name__)

BASE_FILE = "jaxmodpo_base.json"
"""file of an adapter's folder with the hash of the base's weights"""


def save_adapter(
    folder: Path,
    adapter: dict[str, Array],
    config: LoraConfig,
    model: DecoderConfig,
    base_model: str,
) -> None:
    """Write a PEFT folder, atomically: ``adapter_config.json``, ``adapter_model.safetensors`` and,
    where the base is a folder here, the hash of its weights.
    """
    tensors: dict[str, np.ndarray] = {}
    for name, spec in adapter_table(parameter_table(model), config).items():
        # Here all layers are one array, of matrices [in, out]; PEFT has a tensor for each layer,
        # with PyTorch's [out, in].
        stacked = np.asarray(adapter[name], np.float32)
        for layer, key in enumerate(spec.tensor_names()):
            tensors[key] = np.ascontiguousarray(stacked[layer].T)
    # PEFT declares lora_alpha an int, and takes other numbers too.
    alpha = int(config.alpha) if float(config.alpha).is_integer() else config.alpha
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": config.rank,
        "lora_alpha": alpha,
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
        # The base's name tells nothing of its weights: a folder may be filled anew.
        if weights := weights_fingerprint(Path(base_model)):
            write_json(temporary / BASE_FILE, {"weights": weights})


def load_adapter(
    folder: Path, model: DecoderConfig, base: Path
) -> tuple[LoraConfig, dict[str, Array]]:
    """Read a PEFT folder for a model of this shape.

    Args:
        folder: the adapter's.
        model: the base's shape.
        base: the base's folder. An adapter that recorded other weights is refused. One that
            recorded none and names another base is refused where it has another shape, and warned
            of where it fits, since the weights may be another's.

    Raises:
        UserError: not a plain LoRA adapter, one of another base or shape, or with numbers that are
            not finite.
    """
    config = read_adapter_config(folder)
    recorded = _recorded_weights(folder)
    weights = weights_fingerprint(base)
    if recorded is not None and weights is not None and recorded != weights:
        raise UserError(
            f"{folder} was trained on other weights than those of {base}, so that its numbers would"
            f" mean nothing there; give its own base, or, where these are the same weights in other"
            f" files, remove {BASE_FILE} from the adapter's folder"
        )
    made_for = base_named_in(folder)
    is_for_this_base = made_for is None or _same_base(made_for, base)
    table = adapter_table(parameter_table(model), config)
    try:
        arrays = load_parameters(folder, table, jnp.float32, weights_name="adapter_model")
    except UserError as error:
        # Shapes that do not fit are explained by the other base, where it is another.
        if is_for_this_base:
            raise
        raise UserError(
            f"{folder} was trained on {made_for} and does not fit {base}: {error}"
        ) from error
    if recorded is None and weights is not None and is_for_this_base:
        logger.warning(
            "%s does not record which weights it was trained on; it is used with %s",
            folder,
            base,
        )
    if recorded is None and not is_for_this_base:
        logger.warning(
            "%s was trained on %s and is used with %s: unless these are the same weights, its"
            " numbers mean nothing",
            folder,
            made_for,
            base,
        )
    return config, arrays


def weights_fingerprint(base: Path) -> str | None:
    """Return a hash of a base model's weight files, or None where there is no such folder here."""
    folder = local_folder(base)
    files = sorted(folder.glob("model*.safetensors")) if folder.is_dir() else []
    if not files:
        return None
    return digest([[file.name, fingerprint(file)] for file in files])


def _recorded_weights(adapter: Path) -> str | None:
    """Return the hash of the weights that an adapter was trained on, or None where it says none."""
    path = local_folder(adapter) / BASE_FILE
    if not path.is_file():
        return None
    recorded = read_json(path)
    if not isinstance(recorded, dict) or not isinstance(recorded.get("weights"), str):
        raise UserError(f'{path} must hold {{"weights": HASH}}, as training wrote it; or remove it')
    return recorded["weights"]


def _same_base(recorded: str, base: Path) -> bool:
    """Return whether an adapter's base may be this folder, by what can be known without reading any
    weights.
    """
    if Path(recorded).exists() and Path(recorded).resolve() == base.resolve():
        return True
    # Adapters move between machines: the name is all that stays.
    return model_name(recorded).lower() == model_name(str(base.resolve())).lower()
