"""The layouts in which people keep a preference, each read as one :class:`jaxmodpo.records.Pair`.

Known are the authors' layout, TRL's (plain or conversational), UltraFeedback's and HH-RLHF's. A row
of each, shortened::

    authors     question_id, question_text, chosen {response_id, response_text}, rejected {…}
    TRL         {"prompt": "…", "chosen": "…", "rejected": "…"}
    TRL         {"prompt": [{"role": "user", …}], "chosen": [{"role": "assistant", …}], …}
    Ultra…      {"prompt": "…", "chosen": [{"role": "user", …}, {"role": "assistant", …}], …}
    HH-RLHF     {"chosen": "\\n\\nHuman: … \\n\\nAssistant: …", "rejected": "…"}

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

Messages = list[dict[str, str]]
"""messages of a conversation, each with its role and its content"""

_TURN = re.compile(r"\n\n(?=(?:Human|Assistant):)")


def pair_of_row(row: Any, location: str) -> Pair | None:
    """Read one row in any known layout; ids that it does not give are digests of the texts.

    Args:
        row: as a file gave it.
        location: names file and row in errors.

    Returns:
        The pair, or None for a transcript whose two replies are equal.

    Raises:
        UserError: no known layout, a field that is missing, or two equal replies.
    """
    if not isinstance(row, Mapping):
        raise UserError(f"{location}: not a mapping")
    if "question_text" in row and "prompt" not in row:
        pair = pair_from_mapping(row, location)
        _refuse_equal(pair.chosen.response_text, pair.rejected.response_text, location)
        return pair
    absent = [name for name in ("chosen", "rejected") if not _has_value(row.get(name))]
    if absent:
        raise UserError(f"{location}: the field {' and '.join(absent)} is missing or empty")
    chosen_reply = _messages_or_text(row["chosen"], f"{location}, chosen")
    rejected_reply = _messages_or_text(row["rejected"], f"{location}, rejected")
    are_transcripts = _is_transcript(chosen_reply) and _is_transcript(rejected_reply)
    if are_transcripts:
        chosen_reply = _transcript(chosen_reply)
        rejected_reply = _transcript(rejected_reply)
    prompt, better, worse = _prompt_and_answers(row, chosen_reply, rejected_reply, location)
    question_text = _text(prompt, location)
    chosen_text = _text(better, location)
    rejected_text = _text(worse, location)
    # A user cannot mend HH-RLHF's published file, so that its rows without a preference are left
    # out.
    if are_transcripts and chosen_text == rejected_text:
        return None
    _refuse_equal(chosen_text, rejected_text, location)
    # Digests of the texts: the same text has the same id in every file and every run.
    question_id = _id(row, "question_id", location) or digest(question_text)[:16]
    chosen_id = _id(row, "chosen_response_id", location)
    rejected_id = _id(row, "rejected_response_id", location)
    is_conversation = _is_several(prompt) or len(better) > 1 or len(worse) > 1
    return Pair(
        question_id,
        question_text,
        Candidate(chosen_id or _reply_id(question_id, chosen_text), chosen_text),
        Candidate(rejected_id or _reply_id(question_id, rejected_text), rejected_text),
        conversation=is_conversation,
    )


def _reply_id(question_id: str, text: str) -> str:
    return f"{question_id}_{digest(text)[:12]}"


def _prompt_and_answers(
    row: Mapping[str, Any], chosen: Any, rejected: Any, location: str
) -> tuple[Any, Messages, Messages]:
    """Return a row's prompt, a text or messages, and its two answers as messages."""
    if _has_value(row.get("prompt")):
        prompt = _messages_or_text(row["prompt"], f"{location}, prompt")
        return _beside_prompt(prompt, chosen, rejected, location)
    if isinstance(chosen, list) and isinstance(rejected, list):
        return _divided(chosen, rejected, location)
    raise UserError(f"{location}: the field prompt is missing")


def _has_value(value: Any) -> bool:
    """Tell whether a field holds something: a missing cell is None, NaN or empty."""
    if hasattr(value, "__len__"):
        return len(value) > 0
    # Nothing but NaN differs from itself. Tables read by pandas have it where a cell is empty.
    is_nan = value != value
    return value is not None and not is_nan


def _id(row: Mapping[str, Any], field: str, location: str) -> str:
    """Return the id that a row gives, or an empty text."""
    if not _has_value(row.get(field)):
        return ""
    return identifier(row[field], f"{location}, {field}")


def _messages_or_text(value: Any, location: str) -> Any:
    """Return a list of messages, or a text; messages that a table keeps as JSON text become a list
    again.
    """
    if not isinstance(value, str):
        return value
    messages = serialized_messages(value)
    return plain_text(value, location) if messages is None else messages


def _beside_prompt(
    prompt: Any, chosen: Any, rejected: Any, location: str
) -> tuple[Any, Messages, Messages]:
    """Return the prompt, a text or messages, and the answers of a row with a prompt, whose
    conversations may repeat it.

    UltraFeedback's rows hold the first message as ``prompt``, and the whole conversation, that
    message included, in ``chosen`` and ``rejected``. What they share is then the prompt, as TRL
    takes it; a row whose ``prompt`` is none of what they share contradicts itself.
    """
    if not (_is_conversation(chosen) and _is_conversation(rejected)):
        as_messages = prompt if isinstance(prompt, str) else _messages(prompt, location)
        return as_messages, _answer(chosen, location), _answer(rejected, location)
    shared, better, worse = _divided(chosen, rejected, location)
    # Stripped, since a prompt that was copied from a conversation often lost a space at its end.
    contents = [message["content"].strip() for message in shared]
    prompt_texts = [text.strip() for text in _texts_of_prompt(prompt, location)]
    if any(text and text not in contents for text in prompt_texts):
        raise UserError(
            f"{location}: chosen and rejected are conversations that do not begin with the prompt"
        )
    return shared, better, worse


def _texts_of_prompt(prompt: Any, location: str) -> list[str]:
    """Return the texts of a prompt's messages, in whichever form it has them."""
    if not isinstance(prompt, str):
        return [message["content"] for message in _messages(prompt, location)]
    if _is_transcript(prompt):
        return [message["content"] for message in _transcript(prompt)]
    return [prompt]


def _is_conversation(value: Any) -> bool:
    """Return whether a field holds several messages."""
    return isinstance(value, list) and len(value) > 1


def _refuse_equal(chosen: str, rejected: str, location: str) -> None:
    if chosen == rejected:
        raise UserError(f"{location}: chosen and rejected are the same text; leave the row out")


def _messages(value: Any, location: str) -> Messages:
    """Return the role and the content of each message of a list."""
    if not isinstance(value, list) or not all(_is_message(message) for message in value):
        raise UserError(
            f"{location}: it must be a text, or a list of messages with role and content, both texts"
        )
    return [{"role": message["role"], "content": message["content"]} for message in value]


def _is_message(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    return isinstance(value.get("role"), str) and isinstance(value.get("content"), str)


def _text(prompt: Any, location: str) -> str:
    """Return a prompt or an answer as one text, with the speaker before each of several
    messages.
    """
    if isinstance(prompt, str):
        return prompt
    messages = _messages(prompt, location)
    if len(messages) == 1:
        return messages[0]["content"]
    lines = [f"{message['role'].capitalize()}: {message['content']}" for message in messages]
    return "\n".join(lines)


def _answer(value: Any, location: str) -> Messages:
    """Return an answer that stands beside a prompt: a text or one message."""
    if isinstance(value, str):
        return [{"role": "assistant", "content": value}]
    messages = _messages(value, location)
    if len(messages) != 1:
        raise UserError(
            f"{location}: beside a prompt, chosen and rejected must be one message each"
        )
    return messages


def _is_several(messages: Any) -> bool:
    """Return whether a prompt is other than a text or one message of the user's."""
    if not isinstance(messages, list):
        return False
    return len(messages) != 1 or messages[0]["role"] != "user"


def _divided(
    chosen: list[Any], rejected: list[Any], location: str
) -> tuple[Messages, Messages, Messages]:
    """Divide two conversations into the messages they share and those that follow in each, at least
    the last.
    """
    first = _messages(chosen, location)
    second = _messages(rejected, location)
    # The last message of each is a reply, even where the two are equal.
    longest_prompt = min(len(first), len(second)) - 1
    shared = 0
    while shared < longest_prompt and first[shared] == second[shared]:
        shared += 1
    if shared == 0:
        raise UserError(f"{location}: chosen and rejected must begin with the same message")
    return first[:shared], first[shared:], second[shared:]


def _is_transcript(value: Any) -> bool:
    """Return whether a field holds a conversation in HH-RLHF's form."""
    return isinstance(value, str) and value.lstrip().startswith("Human:")


def _transcript(text: str) -> Messages:
    """Return the messages of a conversation in HH-RLHF's form."""
    messages: Messages = []
    # Every turn begins behind a blank line but the first, which gets one: what stands before the
    # first turn is then empty, and left out.
    for turn in _TURN.split("\n\n" + text.lstrip())[1:]:
        speaker, _, content = turn.partition(":")
        role = "user" if speaker == "Human" else "assistant"
        messages.append({"role": role, "content": content.strip()})
    return messages
