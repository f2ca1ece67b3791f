"""How an adapter was prompted in training: a small file of ours beside ``adapter_config.json``, which PEFT ignores.

An adapter learns to reply to one form of prompt. Scored or sampled under another it gives other numbers, and
nothing in a PEFT folder says so.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from jaxmodpo.data.text import PROMPT

logger = logging.getLogger(__name__)

FILE = "jaxmodpo_prompt.json"


def record_prompt(adapter: Path, prompt_style: str) -> None:
    """Write beside an adapter how its questions were put."""
    template = PROMPT if prompt_style == "instruct" else "the tokenizer's chat template"
    settings = {"prompt_style": prompt_style, "template": template}
    (adapter / FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def warn_of_other_prompt(adapter: Path | None, prompt_style: str) -> None:
    """Warn if an adapter was trained under another prompt style; a folder of another tool does not say."""
    if adapter is None or not (adapter / FILE).is_file():
        return
    try:
        settings = json.loads((adapter / FILE).read_text(encoding="utf-8"))
    except ValueError:
        settings = None
    trained = settings.get("prompt_style") if isinstance(settings, dict) else None
    if trained is None:
        logger.warning("%s does not say how the adapter was prompted", adapter / FILE)
    elif trained != prompt_style:
        logger.warning(
            "%s was trained with --prompt-style %s and is used here with %s: its figures are those of another prompt",
            adapter,
            trained,
            prompt_style,
        )
