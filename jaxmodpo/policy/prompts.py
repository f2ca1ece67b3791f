"""How a command puts questions to a model: the tokenization that its settings name, on one day.

Some chat templates write today's date. A run that is resumed on another day, an adapter that is
sampled from on another day than it was trained on, and the trials of a search that lasts over
midnight name the first day all along.
"""

from __future__ import annotations

import dataclasses
import datetime
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from jaxmodpo.data.prompting import prompt_day, warn_of_other_prompt
from jaxmodpo.data.text import PolicyText, PromptStyle, load_tokenizer
from jaxmodpo.models.decoder_config import read_decoder_config
from jaxmodpo.models.model_folder import read_end_tokens
from jaxmodpo.phase import Phase
from jaxmodpo.policy.distributed import broadcast

logger = logging.getLogger(__name__)


class PromptSettings(Protocol):
    """What a command's settings say of its prompts."""

    @property
    def prompt_style(self) -> PromptStyle: ...
    @property
    def prompt_date(self) -> str | None: ...
    @property
    def max_prompt_length(self) -> int: ...


class PromptedSettings(PromptSettings, Protocol):
    """What a training command's settings say of its model and the model's prompts."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def model(self) -> Path: ...
    @property
    def max_length(self) -> int: ...


class ReplyingSettings(PromptSettings, Protocol):
    """What a command's settings say of a base model and adapters that reply to prompts."""

    @property
    def model(self) -> Path | None: ...
    @property
    def max_new_tokens(self) -> int: ...
    def models(self) -> dict[str, Path | None]: ...


Runs = TypeVar("Runs", bound=PromptedSettings)


def load_policy_text(
    model: Path,
    prompt_style: PromptStyle,
    max_prompt_length: int,
    max_length: int,
    *,
    day: str | None = None,
    adapters: Iterable[Path | None] = (),
    phase: Phase | None = None,
) -> PolicyText:
    """Return the tokenization of a base model's folder, on one day; warn where an adapter learned
    other prompts.

    Args:
        model: the base model's folder.
        prompt_style: see :class:`PolicyText`, as the two lengths.
        max_prompt_length: tokens.
        max_length: tokens.
        day: as the settings have it, if they do.
        adapters: that are used; None for the base alone. The first one's day is taken, since one
            tokenization serves them all.
        phase: what the tokens are for, which keeps the day if the template writes one.
    """
    tokenizer = load_tokenizer(model)
    end = tokenizer.eos_token_id
    ends = read_end_tokens(model, end) if isinstance(end, int) else ()
    rows = read_decoder_config(model).vocab_size
    folders = [adapter for adapter in adapters if adapter is not None]
    first_adapter = folders[0] if folders else None
    # The leader's day: processes that start around midnight would write two dates.
    day = broadcast(lambda: _day(day, first_adapter, phase))
    text = PolicyText(tokenizer, prompt_style, max_prompt_length, max_length, day, rows, ends)
    if not text.has_bos and tokenizer.bos_token_id is not None:
        logger.info(
            "the chat template writes no %s, and none is put before it, as in transformers",
            tokenizer.bos_token,
        )
    if text.surroundings.dated:
        logger.info(
            "the chat template writes a date into every prompt: %s; --prompt-date sets another", day
        )
        if phase is not None:
            phase.remember(prompt_date=day)
    for folder in folders:
        warn_of_other_prompt(folder, text)
    return text


def _day(day_of_settings: str | None, adapter: Path | None, phase: Phase | None) -> str:
    """Return the day that a run's prompts name: the settings', the adapter's, that of an earlier
    life, or today.
    """
    # The user's word first. Then what the adapter was trained on, since it learned that prompt, and
    # only then what this run has written so far.
    recorded = phase.manifest.prompt_date if phase is not None else None
    return day_of_settings or prompt_day(adapter) or recorded or datetime.date.today().isoformat()


def on_one_day(config: Runs, phase: Phase) -> Runs:
    """Return the settings of a command that makes several runs, such that all of them name one day
    in their prompts.
    """
    if config.prompt_style != "chat":
        return config
    day = broadcast(lambda: _day(config.prompt_date, None, phase))
    phase.remember(prompt_date=day)
    changes: dict[str, Any] = {"prompt_date": day}
    return dataclasses.replace(config, **changes)


def policy_text(config: PromptedSettings, phase: Phase) -> PolicyText:
    """Return the tokenization that a training command's settings name."""
    return load_policy_text(
        config.model,
        config.prompt_style,
        config.max_prompt_length,
        config.max_length,
        day=config.prompt_date,
        phase=phase,
    )


def replying_text(config: ReplyingSettings, phase: Phase | None) -> PolicyText:
    """Return the tokenization that serves all models of a command that samples replies.

    Args:
        config: the command's settings, which name a model.
        phase: keeps the day of the prompts, as in :func:`load_policy_text`.
    """
    assert config.model is not None
    return load_policy_text(
        config.model,
        config.prompt_style,
        config.max_prompt_length,
        config.max_prompt_length + config.max_new_tokens,
        day=config.prompt_date,
        adapters=config.models().values(),
        phase=phase,
    )
