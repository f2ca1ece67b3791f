"""Parameter soup: the weighted mean of what several adapters change."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jaxmodpo.artifacts import Phase, read_json
from jaxmodpo.errors import UserError
from jaxmodpo.models.adapters import load_adapter, save_adapter
from jaxmodpo.models.decoder import DecoderConfig
from jaxmodpo.models.files import read_model_config
from jaxmodpo.models.lora import average
from jaxmodpo.training.policy import check_weights


@dataclass(frozen=True, kw_only=True)
class SoupConfig:
    """Average adapters of one base model, exactly: Σ w_i B_i A_i (α_i / r_i)."""

    adapters: tuple[Path, ...]
    """PEFT folders, two or more"""
    weights: tuple[float, ...]
    """on the simplex, one per adapter"""
    output_dir: Path
    """the averaged adapter is written to output_dir/adapter"""
    model: Path | None = None
    """the base model's folder; by default the one that the first adapter names"""


def soup(config: SoupConfig) -> Phase:
    """Run ``soup``."""
    if len(config.adapters) < 2:
        raise UserError("soup needs at least two --adapters")
    check_weights(config.weights, [str(folder) for folder in config.adapters])
    inputs = {f"adapter {number}": folder for number, folder in enumerate(config.adapters, 1)}
    phase = Phase.open("soup", config, config.output_dir, inputs)
    if phase.finished:
        return phase
    base = config.model or Path(read_json(config.adapters[0] / "adapter_config.json")["base_model_name_or_path"])
    model = DecoderConfig.from_mapping(read_model_config(base), f"{base}/config.json")
    lora, merged = average([load_adapter(folder, model) for folder in config.adapters], list(config.weights))
    save_adapter(config.output_dir / "adapter", merged, lora, model, str(base))
    phase.finish(rank=lora.rank)
    return phase
