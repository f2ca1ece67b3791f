"""``adapter_config.json``: an adapter is a plain change of the base we hold, or it is refused by
name.

PEFT keeps adding variants of LoRA that share one file format: some add terms to the forward pass,
some change the base's weights when they are created, and do so again when PEFT loads them. Whatever
this module does not know may be one of them, so that every field is read, known to be harmless, or
refused.
"""

from __future__ import annotations

from pathlib import Path

from jaxmodpo.errors import UserError
from jaxmodpo.files import read_json
from jaxmodpo.hub import local_folder, refuse_missing
from jaxmodpo.models.lora import PROJECTIONS, LoraConfig
from jaxmodpo.parsing import JsonObject
from jaxmodpo.schema import Fields

# What says where the adapter came from or how it is stored, not what it computes.
_HARMLESS = frozenset(
    (
        *("peft_version", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode"),
        # These say something only together with another field, which is refused itself.
        *(
            "megatron_core",
            "qalora_group_size",
            "ensure_weight_tying",
            "runtime_config",
            "exclude_modules",
        ),
    )
)

# Initializations that set A and B alone: once they are loaded, nothing of them is left.
_PLAIN_STARTS = ("gaussian", "orthogonal", "eva")

_CHANGES_THE_BASE = (
    "PEFT changes the base's weights when it creates or loads such an adapter, so that it is no"
    " plain LoRA of it; convert it in PEFT (save_pretrained with"
    " path_initial_model_for_weight_conversion, the adapter as it was before training) or merge it"
    " there (merge_and_unload) and use the merged model"
)


def read_adapter_settings(folder: Path) -> JsonObject:
    """Read ``adapter_config.json`` as it is.

    Raises:
        UserError: there is none, or it is no mapping.
    """
    path = local_folder(folder) / "adapter_config.json"
    if not path.is_file():
        refuse_missing(folder)
        raise UserError(f"{folder} is not a PEFT adapter: it has no adapter_config.json")
    settings = read_json(path)
    if not isinstance(settings, dict):
        raise UserError(f"{path} must hold a mapping of settings, not {type(settings).__name__}")
    return settings


def base_named_in(folder: Path) -> str | None:
    """Return the base model that an adapter says it was made for, or None."""
    name = read_adapter_settings(folder).get("base_model_name_or_path")
    return name if isinstance(name, str) and name else None


def read_adapter_config(folder: Path) -> LoraConfig:
    """Read a LoRA adapter's settings; a PEFT feature that would change the mathematics is refused
    by name.

    Raises:
        UserError: no adapter, another kind of adapter, or a setting that is missing, not supported
            or of another type.
    """
    settings = read_adapter_settings(folder)
    if settings.get("peft_type") != "LORA":
        raise UserError(
            f"{folder} is a PEFT adapter of type {settings.get('peft_type')}; only LORA is"
            " supported"
        )
    fields = Fields(settings, f"{folder}/adapter_config.json")
    fields.only("peft_type", "LORA")
    fields.only("task_type", "CAUSAL_LM")
    fields.only("bias", "none")
    fields.only("fan_in_fan_out", False)
    for name in ("rank_pattern", "alpha_pattern"):
        if fields.take(name):
            raise UserError(
                f"{fields.source}: {name} is not supported; use one rank and alpha throughout"
            )
    _check_start(fields)
    config = LoraConfig(
        rank=fields.integer("r"),
        alpha=fields.number("lora_alpha", above=0),
        dropout=fields.rate("lora_dropout", 0.0),
        targets=_targets(fields),
        rslora=fields.boolean("use_rslora", False),
    )
    fields.refuse_rest(_HARMLESS)
    return config


def _check_start(fields: Fields) -> None:
    """Refuse an adapter whose initialization took something out of the base's weights."""
    start = fields.take("init_lora_weights", True)
    if not isinstance(start, bool) and start not in _PLAIN_STARTS:
        raise UserError(
            f"{fields.source}: init_lora_weights '{start}' is not supported: {_CHANGES_THE_BASE}"
        )
    # EVA's settings say how A was drawn; with another start they are not EVA's.
    if start == "eva":
        fields.take("eva_config")
    for name in ("loftq_config", "corda_config", "lora_ga_config", "kasa_config"):
        if fields.take(name):
            raise UserError(f"{fields.source}: {name} is not supported: {_CHANGES_THE_BASE}")


def _targets(fields: Fields) -> tuple[str, ...]:
    targets = fields.take("target_modules")
    if isinstance(targets, str):
        raise UserError(
            f"{fields.source}: target_modules must be a list of projections, not a pattern"
        )
    if not isinstance(targets, list) or not all(isinstance(name, str) for name in targets):
        raise UserError(
            f"{fields.source}: target_modules must be a list of projections, not {targets}"
        )
    # PEFT may list every layer's module by its full name; a layer left out shows up as a missing
    # tensor.
    names = {name.rsplit(".", 1)[-1] for name in targets}
    if unknown := sorted(names - set(PROJECTIONS)) or ([] if names else ["none"]):
        raise UserError(
            f"{fields.source}: target_modules must be some of {', '.join(PROJECTIONS)}, not"
            f" {', '.join(unknown)}"
        )
    return tuple(name for name in PROJECTIONS if name in names)
