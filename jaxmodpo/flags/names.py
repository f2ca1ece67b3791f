"""Which setting an unknown name stands for: what other trainers call it, or a misspelling."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from jaxmodpo.errors import nearest

OTHER_NAMES = {
    "lr": "learning_rate",
    "lora_r": "lora_rank",
    "r": "lora_rank",
    "per_device_train_batch_size": "batch_size",
    "train_batch_size": "batch_size",
    "gradient_accumulation_steps": "gradient_accumulation",
    "num_train_epochs": "epochs",
    "num_epochs": "epochs",
    "max_seq_length": "max_length",
    "max_completion_length": "max_new_tokens",
    "max_tokens": "max_new_tokens",
    "output": "output_dir",
    "out": "output_dir",
    "model_name_or_path": "model",
    "logging_steps": "log_every",
    "save_steps": "save_every",
    "eval_steps": "eval_every",
}
"""what other trainers call a setting of ours"""


def flag_of(setting: str) -> str:
    """Return the flag of a setting: ``--batch-size`` for ``batch_size``."""
    return "--" + setting.replace("_", "-")


def setting_of(argument: str) -> str:
    """Return the setting that a flag names, with or without a value attached: ``batch_size`` for
    ``--batch-size=4``.
    """
    flag = argument.partition("=")[0]
    return flag.removeprefix("--").replace("-", "_")


def suggested_setting(name: str, settings: Collection[str]) -> str:
    """Return how an error on an unknown key of a file ends: the setting that was meant, if any."""
    return _suggestion(name, OTHER_NAMES.get(name, ""), settings, separator="_")


def suggested_flag(flag: str, flags: Collection[str]) -> str:
    """Return how an error on an unknown flag ends: the flag that was meant, if any."""
    setting = OTHER_NAMES.get(setting_of(flag), "")
    return _suggestion(flag, flag_of(setting), flags, separator="-")


def _suggestion(name: str, translated: str, candidates: Collection[str], separator: str) -> str:
    """Return ``; did you mean 'NAME'?`` or nothing.

    Args:
        name: the unknown name.
        translated: what we call what other trainers call so; no candidate if it is not theirs.
        candidates: the names that there are.
        separator: what stands between the words of a name.
    """
    if translated in candidates:
        return f"; did you mean '{translated}'?"
    if difflib.get_close_matches(name, candidates, n=1, cutoff=0.8):
        return nearest(name, candidates)
    # A last word alone, as rank of lora_rank, looks more like other short names to difflib.
    ending = separator + name.removeprefix("--")
    same_ending = [candidate for candidate in candidates if candidate.endswith(ending)]
    if same_ending:
        return f"; did you mean '{min(same_ending, key=len)}'?"
    return nearest(name, candidates)
