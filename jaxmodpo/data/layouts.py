"""The layouts in which people keep a preference, each read as one :class:`jaxmodpo.records.Pair`.

Known are the authors' layout, TRL's (plain or conversational), UltraFeedback's and HH-RLHF's::

    {"question_id": "q1", "question_text": "…", "chosen": {"response_id": "a", "response_text":
    "…"}, "rejected": {…}} {"prompt": "…", "chosen": "…", "rejected": "…"}
    {"prompt": [{"role": "user", "content": "…"}], "chosen": [{"role": "assistant", "content":
    "…"}], "rejected": […]} {"chosen": "\\n\\nHuman: … \\n\\nAssistant: …", "rejected":
    "\\n\\nHuman: … \\n\\nAssistant: …"}

Which of a row's two conversations belongs to the prompt, and which to the replies, is decided here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jaxmodpo.errors import UserError
from jaxmodpo.fingerprints import digest
from jaxmodpo.parsing import serialized_messages
from jaxmodpo.records import Candidate, Pair, identifier, pair_from_mapping, plain_text

_TURN = re.compile(r"\n\n(?=(?:Human|Assistant):)")


def pair_of_row(row: Any, where: str) -> Pair | None:
    """Read one row in any known layout; ids that it does not give are digests of the texts.

    Args:
        row: as a file gave it.
        where: names file and row in errors.

    Returns:
        The pair, or None for a transcript whose two replies are equal.

    Raises:
        UserError: no known layout, a field that is missing, or two equal replies.
    """
    if not isinstance(row, Mapping):
        raise UserError(f"{where}: not a mapping")
    if "question_text" in row and "prompt" not in row:
        pair = pair_from_mapping(row, where)
        _refuse_equal(pair.chosen.response_text, pair.rejected.response_text, where)
        return pair
    missing = [name for name in ("chosen", "rejected") if not _has_value(row.get(name))]
    if missing:
        raise UserError(f"{where}: the field {' and '.join(missing)} is missing or empty")
    chosen = _messages_or_text(row["chosen"], f"{where}, chosen")
    rejected = _messages_or_text(row["rejected"], f"{where}, rejected")
    are_transcripts = _is_transcript(chosen) and _is_transcript(rejected)
    if are_transcripts:
        chosen, rejected = _transcript(chosen), _transcript(rejected)
    prompt, better, worse = _prompt_and_answers(row, chosen, rejected, where)
    question_text = _text(prompt, where)
    chosen_text = _text(better, where)
    rejected_text = _text(worse, where)
    # A user cannot mend HH-RLHF's published file, so that its rows without a preference are left
    # out.
    if are_transcripts and chosen_text == rejected_text:
        return None
    _refuse_equal(chosen_text, rejected_text, where)
    question_id = _id(row, "question_id", where) or digest(question_text)[:16]
    chosen_id = _id(row, "chosen_response_id", where) or f"{question_id}_{digest(chosen_text)[:12]}"
    rejected_id = (
        _id(row, "rejected_response_id", where) or f"{question_id}_{digest(rejected_text)[:12]}"
    )
    return Pair(
        question_id,
        question_text,
        Candidate(chosen_id, chosen_text),
        Candidate(rejected_id, rejected_text),
        conversation=_is_several(prompt) or len(better) > 1 or len(worse) > 1,
    )


def _prompt_and_answers(
    row: Mapping[str, Any], chosen: Any, rejected: Any, where: str
) -> tuple[Any, list[dict[str, str]], list[dict[str, str]]]:
    """Return a row's prompt, a text or messages, and its two answers as messages."""
    if _has_value(row.get("prompt")):
        prompt = _messages_or_text(row["prompt"], f"{where}, prompt")
        return _beside_prompt(prompt, chosen, rejected, where)
    if isinstance(chosen, list) and isinstance(rejected, list):
        return _divided(chosen, rejected, where)
    raise UserError(f"{where}: the field prompt is missing")


def _has_value(value: Any) -> bool:
    """Tell whether a field holds something: a missing cell is None, NaN or empty."""
    if hasattr(value, "__len__"):
        return len(value) > 0
    is_nan = value != value
    return value is not None and not is_nan


def _id(row: Mapping[str, Any], field: str, where: str) -> str:
    """Return the id that a row gives, or an empty text."""
    return identifier(row[field], f"{where}, {field}") if _has_value(row.get(field)) else ""


def _messages_or_text(value: Any, where: str) -> Any:
    """Return a list of messages, or a text; messages that a table keeps as JSON text become a list
    again.
    """
    if not isinstance(value, str):
        return value
    messages = serialized_messages(value)
    return plain_text(value, where) if messages is None else messages


def _beside_prompt(
    prompt: Any, chosen: Any, rejected: Any, where: str
) -> tuple[Any, list[dict[str, str]], list[dict[str, str]]]:
    """Return the prompt, a text or messages, and the answers of a row with a prompt, whose
    conversations may repeat it.

    UltraFeedback's rows hold the first message as ``prompt``, and the whole conversation, that
    message included, in ``chosen`` and ``rejected``. What they share is then the prompt, as TRL
    takes it; a row whose ``prompt`` is none of what they share contradicts itself.
    """
    if not (_is_conversation(chosen) and _is_conversation(rejected)):
        as_messages = prompt if isinstance(prompt, str) else _messages(prompt, where)
        return as_messages, _answer(chosen, where), _answer(rejected, where)
    shared, better, worse = _divided(chosen, rejected, where)
    if isinstance(prompt, str):
        prompt_texts = (
            [turn["content"] for turn in _transcript(prompt)]
            if _is_transcript(prompt)
            else [prompt]
        )
    else:
        prompt_texts = [message["content"] for message in _messages(prompt, where)]
    contents = [message["content"].strip() for message in shared]
    if not all(text.strip() in contents for text in prompt_texts if text.strip()):
        raise UserError(
            f"{where}: chosen and rejected are conversations that do not begin with the prompt"
        )
    return shared, better, worse


def _is_conversation(value: Any) -> bool:
    """Return whether a field holds several messages."""
    return isinstance(value, list) and len(value) > 1


def _refuse_equal(chosen: str, rejected: str, where: str) -> None:
    if chosen == rejected:
        raise UserError(f"{where}: chosen and rejected are the same text; leave the row out")


def _messages(value: Any, where: str) -> list[dict[str, str]]:
    """Return the role and the content of each message of a list."""
    if not isinstance(value, list) or not all(_is_message(message) for message in value):
        raise UserError(
            f"{where}: it must be a text, or a list of messages with role and content, both texts"
        )
    return [{"role": message["role"], "content": message["content"]} for message in value]


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(value.get(name), str) for name in ("role", "content")
    )


def _text(prompt: Any, where: str) -> str:
    """Return a prompt or an answer as one text, with the speaker before each of several
    messages.
    """
    if isinstance(prompt, str):
        return prompt
    messages = _messages(prompt, where)
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n".join(
        f"{message['role'].capitalize()}: {message['content']}" for message in messages
    )


def _answer(value: Any, where: str) -> list[dict[str, str]]:
    """Return an answer that stands beside a prompt: a text or one message."""
    if isinstance(value, str):
        return [{"role": "assistant", "content": value}]
    messages = _messages(value, where)
    if len(messages) != 1:
        raise UserError(f"{where}: beside a prompt, chosen and rejected must be one message each")
    return messages


def _is_several(messages: Any) -> bool:
    """Return whether a prompt is other than a text or one message of the user's."""
    if not isinstance(messages, list):
        return False
    return len(messages) != 1 or messages[0]["role"] != "user"


def _divided(
    chosen: list[Any], rejected: list[Any], where: str
) -> tuple[list[dict[str, str]], list[dict[str, str]], list[dict[str, str]]]:
    """Divide two conversations into the messages they share and those that follow in each, at least
    the last.
    """
    first, second = _messages(chosen, where), _messages(rejected, where)
    shared = 0
    while shared < min(len(first), len(second)) - 1 and first[shared] == second[shared]:
        shared += 1
    if shared == 0:
        raise UserError(f"{where}: chosen and rejected must begin with the same message")
    return first[:shared], first[shared:], second[shared:]


def _is_transcript(value: Any) -> bool:
    """Return whether a field holds a conversation in HH-RLHF's form."""
    return isinstance(value, str) and value.lstrip().startswith("Human:")


def _transcript(text: str) -> list[dict[str, str]]:
    """Return the messages of a conversation in HH-RLHF's form."""
    messages = []
    for turn in _TURN.split("\n\n" + text.lstrip())[1:]:
        speaker, _, content = turn.partition(":")
        messages.append(
            {"role": "user" if speaker == "Human" else "assistant", "content": content.strip()}
        )
    return messages
