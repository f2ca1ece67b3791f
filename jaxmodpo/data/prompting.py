"""How an adapter was prompted in training: a small file of ours beside ``adapter_config.json``,
which PEFT ignores.

An adapter learns to reply to one form of prompt. Scored or sampled under another it gives other
numbers, and nothing in a PEFT folder says so::

    record_prompt(adapter, text)                # after training
    warn_of_other_prompt(adapter, text)         # before it is used, with the text of that command
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from jaxmodpo.data.text import PROMPT, PolicyText, is_day
from jaxmodpo.files import write_json
from jaxmodpo.hub import local_folder
from jaxmodpo.parsing import JsonObject

logger = logging.getLogger(__name__)

FILE = "jaxmodpo_prompt.json"


def record_prompt(adapter: Path, text: PolicyText) -> None:
    """Write beside an adapter how its questions were put, and on what day where that is part of the
    prompt.
    """
    around = text.surroundings
    template = PROMPT if text.prompt_style == "instruct" else "the tokenizer's chat template"
    settings: JsonObject = {
        "prompt_style": text.prompt_style,
        "template": template,
        "before_question": around.head,
        "after_question": around.tail,
    }
    if around.dated:
        settings["prompt_date"] = text.day
    _write(adapter, settings)


def record_common_prompt(adapter: Path, sources: Sequence[Path]) -> None:
    """Write beside an adapter made of others how they were prompted; warn where they differ, and
    write nothing.
    """
    recorded = [_read(source) for source in sources]
    if any(settings != recorded[0] for settings in recorded):
        logger.warning(
            "the adapters %s were prompted in different ways, or some do not say how",
            ", ".join(map(str, sources)),
        )
    elif recorded[0] is not None:
        _write(adapter, recorded[0])


def prompt_day(adapter: Path | None) -> str | None:
    """Return the day that an adapter's prompts named, ``YYYY-MM-DD``, or None where they named
    none.
    """
    day = (_read(adapter) or {}).get("prompt_date")
    return day if isinstance(day, str) and is_day(day) else None


def warn_of_other_prompt(adapter: Path | None, text: PolicyText) -> None:
    """Warn if an adapter was trained under another prompt; a folder of another tool does not
    say.
    """
    if adapter is None:
        return
    adapter = local_folder(adapter)
    if not (adapter / FILE).is_file():
        return
    settings = _read(adapter) or {}
    trained = settings.get("prompt_style")
    # A template of the same name may write another text with a newer tokenizer: the text counts.
    around = [settings.get("before_question"), settings.get("after_question")]
    if trained is None:
        logger.warning("%s does not say how the adapter was prompted", adapter / FILE)
    elif trained != text.prompt_style:
        logger.warning(
            "%s was trained with --prompt-style %s and is used here with %s: its figures are those"
            " of another prompt",
            adapter,
            trained,
            text.prompt_style,
        )
    elif around not in ([None, None], [text.surroundings.head, text.surroundings.tail]):
        logger.warning(
            "%s was trained with other text around its questions (%s says which) than the"
            " tokenizer's template writes here: its figures are those of another prompt",
            adapter,
            FILE,
        )


def _write(adapter: Path, settings: JsonObject) -> None:
    write_json(adapter / FILE, settings)


def _read(adapter: Path | None) -> JsonObject | None:
    """Return what an adapter's file says, or None where there is none that can be read."""
    path = adapter and local_folder(adapter) / FILE
    if path is None or not path.is_file():
        return None
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return settings if isinstance(settings, dict) else None
