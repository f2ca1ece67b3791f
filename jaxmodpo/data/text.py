"""The one place where a question and a response become tokens.

Sampling, training and scoring all tokenise here, so that a log-probability means the same thing
in each of them. A policy reads ``[bos] + prompt + response + [eos]``, prompt and response encoded
on their own without special tokens; a reward model reads the pair ``<s> question </s></s> response </s>``.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from jaxmodpo.errors import UserError

logger = logging.getLogger(__name__)

PromptStyle = Literal["instruct", "chat"]

INSTRUCTION = "You are a therapist. Respond to this person's question:\n{question}"
PROMPT = f"[INST] {INSTRUCTION} [/INST]"

SHORTEST_REWARD_TEXT = 6
"""tokens: a pair's four marks, and one of the question and of the response"""


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a local folder; remote code is never run.

    Raises:
        UserError: no tokenizer there, or one that needs code of its own.
    """
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise UserError(f"{folder} has no tokenizer (tokenizer.json)")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"the tokenizer in {folder} cannot be loaded: {str(error).splitlines()[0]}") from error


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a hash of all that decides how a tokenizer cuts texts."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    said = [type(tokenizer).__name__, rules, tokenizer.chat_template, tokenizer.bos_token_id, tokenizer.eos_token_id]
    return hashlib.sha256(repr(said).encode()).hexdigest()


@dataclass
class Cut:
    """How often, and by how many tokens, texts were too long."""

    prompts: int = 0
    responses: int = 0
    tokens: int = 0

    @property
    def counts(self) -> tuple[int, int, int]:
        return self.prompts, self.responses, self.tokens

    def add(self, prompts: int, responses: int, tokens: int) -> None:
        self.prompts, self.responses, self.tokens = (
            self.prompts + prompts,
            self.responses + responses,
            self.tokens + tokens,
        )

    def warn(self) -> None:
        """Say in the log what was cut, if anything was."""
        if self.tokens:
            logger.warning(
                "texts cut to fit: %d prompts and %d replies lost %d tokens", self.prompts, self.responses, self.tokens
            )

    def as_dict(self) -> dict[str, int]:
        return {"prompts_cut": self.prompts, "responses_cut": self.responses, "tokens_cut": self.tokens}


@dataclass
class PolicyText:
    """Turns questions and responses into a policy's tokens.

    Attributes:
        tokenizer: the model's own.
        prompt_style: ``instruct`` is the paper's prompt; ``chat`` the tokenizer's template on the bare question.
        max_prompt_length: tokens of ``[bos] + prompt``; what is too long loses its start (after the bos).
        max_length: tokens of all; a response that is too long loses its end, its eos too.
        cut: what was cut so far.
    """

    tokenizer: PreTrainedTokenizerBase
    prompt_style: PromptStyle = "instruct"
    max_prompt_length: int = 512
    max_length: int = 1024
    cut: Cut = field(default_factory=Cut)

    def __post_init__(self) -> None:
        if not 2 <= self.max_prompt_length < self.max_length:
            raise UserError(
                f"max_prompt_length must be at least 2 and below max_length; got {self.max_prompt_length}, "
                f"{self.max_length}"
            )
        if self.tokenizer.eos_token_id is None or self.tokenizer.bos_token_id is None:
            raise UserError("the policy's tokenizer needs a bos and an eos token")
        if self.prompt_style == "chat" and not self.tokenizer.chat_template:
            raise UserError("prompt_style chat needs a tokenizer with a chat template")

    @property
    def eos(self) -> int:
        """The token that ends a response."""
        return cast(int, self.tokenizer.eos_token_id)

    def prompt(self, question: str) -> list[int]:
        """Return ``[bos] + prompt`` with exactly one bos."""
        bos = cast(int, self.tokenizer.bos_token_id)
        if self.prompt_style == "chat":
            text = cast(
                str,
                self.tokenizer.apply_chat_template(
                    [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
                ),
            )
            text = text.removeprefix(cast(str, self.tokenizer.bos_token))
        else:
            text = PROMPT.format(question=question)
        tokens = self.tokenizer.encode(text, add_special_tokens=False)
        excess = len(tokens) + 1 - self.max_prompt_length
        if excess > 0:
            self.cut.prompts += 1
            self.cut.tokens += excess
            tokens = tokens[excess:]
        return [bos, *tokens]

    def example(self, question: str, response: str) -> tuple[list[int], int]:
        """Return all tokens, and how many of them are the prompt's."""
        prompt = self.prompt(question)
        completion = self.tokenizer.encode(response, add_special_tokens=False)
        completion.append(self.eos)
        room = self.max_length - len(prompt)
        if len(completion) > room:
            self.cut.responses += 1
            self.cut.tokens += len(completion) - room
            completion = completion[:room]
        return prompt + completion, len(prompt)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return a completion's text, without special tokens or surrounding space."""
        return cast(str, self.tokenizer.decode(list(tokens), skip_special_tokens=True)).strip()


@dataclass
class RewardText:
    """Turns questions and responses into a reward model's tokens; the response is what gets cut."""

    tokenizer: PreTrainedTokenizerBase
    max_length: int = 512
    cut: Cut = field(default_factory=Cut)

    def __post_init__(self) -> None:
        for name in ("cls_token_id", "sep_token_id"):
            if getattr(self.tokenizer, name) is None:
                raise UserError(f"the reward model's tokenizer has no {name.removesuffix('_id')}")
        if self.max_length < SHORTEST_REWARD_TEXT:
            raise UserError(f"max_length must be at least {SHORTEST_REWARD_TEXT}, not {self.max_length}")

    def example(self, question: str, response: str) -> list[int]:
        """Return ``<s> question </s></s> response </s>`` of at most ``max_length`` tokens.

        A question that leaves the response less than half the room keeps its end.
        """
        start, end = cast(int, self.tokenizer.cls_token_id), cast(int, self.tokenizer.sep_token_id)
        asked = self.tokenizer.encode(question, add_special_tokens=False)
        replied = self.tokenizer.encode(response, add_special_tokens=False)
        room = self.max_length - 4
        if len(asked) + len(replied) > room:
            asked_room = max(room // 2, room - len(replied))
            if len(asked) > asked_room:
                self.cut.prompts += 1
                self.cut.tokens += len(asked) - asked_room
                asked = asked[-asked_room:]
            if len(asked) + len(replied) > room:
                self.cut.responses += 1
                self.cut.tokens += len(asked) + len(replied) - room
                replied = replied[: room - len(asked)]
        return [start, *asked, end, end, *replied, end]


def pad_rows(rows: Sequence[Sequence[int]], length: int, pad: int = 0) -> np.ndarray:
    """Return rows as ``[rows, length]`` int32, padded on the right; which pad id is used matters to nobody."""
    padded = np.full((len(rows), length), pad, np.int32)
    for number, row in enumerate(rows):
        padded[number, : len(row)] = row
    return padded
