"""The one place where a question and a response become tokens.

Sampling, training and scoring all tokenize here, so that a log-probability means the same thing in
each of them. A policy reads ``[bos] + prompt + response + [eos]``, prompt and response encoded on
their own without special tokens; a chat template writes the bos itself, or leaves it out. A reward
model reads the pair ``<s> question </s></s> response </s>``. Control tokens that questions and
responses name are plain text.

One question, and a reply to it::

    text = PolicyText(load_tokenizer(folder), max_prompt_length=512, max_length=1024)
    tokens, prompt_length = text.example("I cannot sleep.", "That is hard.")
    text.decode(tokens[prompt_length:])     # "That is hard."
    text.cut.tokens                         # 0: nothing was too long
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from jaxmodpo.data.chat_template import Surroundings, surroundings
from jaxmodpo.data.controls import ControlTokens
from jaxmodpo.errors import UserError
from jaxmodpo.hub import local_folder, refuse_missing

logger = logging.getLogger(__name__)

PromptStyle = Literal["instruct", "chat"]

INSTRUCTION = "You are a therapist. Respond to this person's question:\n{question}"
PROMPT = f"[INST] {INSTRUCTION} [/INST]"
INSTRUCT = Surroundings(
    head=PROMPT.partition("{question}")[0], tail=PROMPT.partition("{question}")[2]
)

_WORD_START = re.compile(r"(?<=\s)\S")

LONGEST_WORD = 30
"""characters that a question may lose besides, so that it does not begin within a word"""

SHORTEST_REWARD_TEXT = 6
"""tokens: a pair's four marks, and one of the question and of the response"""


def check_day(text: str | None) -> None:
    """Refuse a --prompt-date that is no day; None is the day on which the command is run.

    Raises:
        UserError: naming it.
    """
    if text is not None and not is_day(text):
        raise UserError(f"--prompt-date must be a day such as 2026-01-31, not {text!r}")


def check_lengths(max_prompt_length: int, max_length: int) -> None:
    """Refuse settings that leave no token for a reply behind the longest prompt.

    Raises:
        UserError: with both lengths.
    """
    if max_prompt_length >= max_length:
        raise UserError(
            f"--max-prompt-length must be below --max-length, not {max_prompt_length} of"
            f" {max_length}"
        )


def is_day(text: str) -> bool:
    """Return whether a text is a day as ``YYYY-MM-DD``."""
    try:
        return datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a local folder; remote code is never run.

    Raises:
        UserError: no tokenizer there, or one that needs code of its own.
    """
    folder = local_folder(folder)
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        if (folder / "tokenizer.model").is_file():
            raise UserError(
                f"{folder} has its tokenizer as tokenizer.model alone, and tokenizer.json is"
                " needed; transformers writes it, where sentencepiece is installed, by"
                " AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
            )
        refuse_missing(folder)
        raise UserError(f"{folder} has no tokenizer (tokenizer.json)")
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        return cast("PreTrainedTokenizerBase", tokenizer)
    # tokenizers raises plain ones, and transformers whatever a wrong shape leads to.
    except Exception as error:
        words = " ".join(str(error).split())[:300] or "no reason is given"
        raise UserError(
            f"the tokenizer in {folder} cannot be loaded ({type(error).__name__}: {words}); compare"
            " its tokenizer.json and tokenizer_config.json with the published ones, and the"
            " versions of transformers and tokenizers"
        ) from error


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a hash of all that decides how a tokenizer cuts texts."""
    rules_and_tokens = [
        type(tokenizer).__name__,
        _cutting_rules(tokenizer),
        tokenizer.chat_template,
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
    ]
    return hashlib.sha256(repr(rules_and_tokens).encode()).hexdigest()


def _cutting_rules(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return all rules of a fast tokenizer as text, and of one in Python the vocabulary."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return repr(sorted(tokenizer.get_vocab().items()))
    return backend.to_str()


@dataclass
class Cut:
    """How often, and by how many tokens, texts were too long, and what else they lost.

    Attributes:
        prompts: too long ones.
        responses: too long ones.
        tokens: lost by both.
        ended: responses that were written with their end token.
        named: texts that name a control token, which is plain text there.
    """

    prompts: int = 0
    responses: int = 0
    tokens: int = 0
    ended: int = 0
    named: int = 0

    @property
    def counts(self) -> tuple[int, ...]:
        """All counts in the order of the fields, as a cache keeps them beside tokens."""
        return dataclasses.astuple(self)

    def add(self, *counts: int) -> None:
        """Add what another one counted."""
        names = [field.name for field in dataclasses.fields(self)]
        for name, count in zip(names, counts, strict=True):
            setattr(self, name, getattr(self, name) + count)

    def warn(self) -> None:
        """Say in the log what texts lost, if anything."""
        if self.tokens:
            logger.warning(
                "texts cut to fit: %d prompts and %d replies lost %d tokens",
                self.prompts,
                self.responses,
                self.tokens,
            )
        if self.ended:
            logger.warning(
                "%d replies are written with their end token, which was left out: each reply gets"
                " one anyway",
                self.ended,
            )
        if self.named:
            logger.warning(
                "%d texts name a control token of the model; it is plain text there", self.named
            )

    def as_dict(self) -> dict[str, int]:
        """Return the counts under the names that manifests have for them."""
        return {
            "prompts_cut": self.prompts,
            "responses_cut": self.responses,
            "tokens_cut": self.tokens,
            "end_tokens_left_out": self.ended,
            "texts_naming_control_tokens": self.named,
        }


@dataclass
class PolicyText:
    """Turns questions and responses into a policy's tokens.

    Attributes:
        tokenizer: the model's own.
        prompt_style: ``instruct`` is the paper's prompt; ``chat`` the tokenizer's template on the
            bare question.
        max_prompt_length: tokens of the prompt with its bos; a question that is too long for it
            loses its start.
        max_length: tokens of all; a response that is too long loses its end, its eos too.
        day: ``YYYY-MM-DD``, which a chat template takes for today; by default today.
        rows: of the model's embedding, if known; see :class:`jaxmodpo.data.controls.ControlTokens`.
        end_tokens: that end a response besides eos; one that is written at a response's end is no
            part of its text.
        cut: what was cut so far.
    """

    tokenizer: PreTrainedTokenizerBase
    prompt_style: PromptStyle = "instruct"
    max_prompt_length: int = 512
    max_length: int = 1024
    day: str | None = None
    rows: int | None = None
    end_tokens: Sequence[int] = ()
    cut: Cut = field(default_factory=Cut)

    def __post_init__(self) -> None:
        if not 2 <= self.max_prompt_length < self.max_length:
            raise UserError(
                "max_prompt_length must be at least 2 and below max_length; got"
                f" {self.max_prompt_length}, {self.max_length}"
            )
        if self.tokenizer.eos_token_id is None:
            raise UserError("the policy's tokenizer needs an eos token")
        if self.tokenizer.bos_token_id is None and self.prompt_style == "instruct":
            raise UserError(
                "the policy's tokenizer has no bos token, which --prompt-style instruct begins with"
            )
        check_day(self.day)
        # Fixed here: a run that goes on past midnight keeps the prompt that it began with.
        self.day = self.day or datetime.date.today().isoformat()
        if self.prompt_style == "chat":
            self.surroundings, prompt_source = self._chat()
            # A chat template writes the bos token itself, where the model learned it; one without
            # any gets none, as in transformers' apply_chat_template.
            self._start: list[int] = []
        else:
            self.surroundings = INSTRUCT
            prompt_source = PROMPT
            self._start = [cast(int, self.tokenizer.bos_token_id)]
        around = self.surroundings
        # The template's source too, since it may write a mark only in longer conversations.
        own_text = f"{around.head} {prompt_source} {around.tail}"
        self._controls = ControlTokens(self.tokenizer, own_text, self.rows)
        self.control_tokens = self._controls.ids
        self._ends = self._controls.marks([self.eos, *self.end_tokens])
        # Said now and not at the first question: no question would fit.
        needed = len(self._prompt("")[0])
        if needed >= self.max_prompt_length:
            raise UserError(
                f"max_prompt_length {self.max_prompt_length} leaves no room for a question: the"
                f" text around it takes {needed} tokens"
            )

    def _chat(self) -> tuple[Surroundings, str]:
        """Return what the chat template writes around a question, and the template."""
        folder = str(self.tokenizer.name_or_path)
        try:
            template = self.tokenizer.get_chat_template()
        except ValueError as error:
            raise UserError(
                f"--prompt-style chat: {folder} has no chat template to use: {error}"
            ) from error
        day = cast(str, self.day)
        return surroundings(template, self.tokenizer.special_tokens_map, day, folder), template

    @property
    def has_bos(self) -> bool:
        """Whether prompts have a bos token."""
        return self.tokenizer.bos_token_id in self._prompt("")[0]

    @property
    def eos(self) -> int:
        """The token that ends a response."""
        return cast(int, self.tokenizer.eos_token_id)

    def prompt(self, question: str) -> list[int]:
        """Return a prompt's tokens: a bos before the paper's prompt, and whatever a chat template
        writes.
        """
        tokens, named = self._prompt(question)
        if not tokens:
            raise UserError(
                "a question without text gives a prompt without tokens, to which no model can reply"
            )
        self.cut.named += named
        if len(tokens) <= self.max_prompt_length:
            return tokens
        shorter, _ = self._prompt(self._shortened(question))
        self.cut.prompts += 1
        self.cut.tokens += len(tokens) - len(shorter)
        return shorter

    def _shortened(self, question: str) -> str:
        """Return the longest end of a question with which the prompt fits, from a word's start
        where one is near.

        The text around the question stays whole, since a prompt without its head is none that the
        model knows.
        """

        def fits(start: int) -> bool:
            return len(self._prompt(question[start:])[0]) <= self.max_prompt_length

        # Halving: what begins at ``too_long`` does not fit, and what begins at ``start`` does. A
        # cut by tokens would be simpler, and could split a character or make other tokens of the
        # rest.
        too_long = 0
        start = len(question)
        while too_long + 1 < start:
            middle = (too_long + start) // 2
            if fits(middle):
                start = middle
            else:
                too_long = middle
        word = _WORD_START.search(question, start, start + LONGEST_WORD)
        if word and fits(word.start()):
            start = word.start()
        return question[start:]

    def _prompt(self, question: str) -> tuple[list[int], bool]:
        """Return a whole prompt's tokens, and whether the question names a control token."""
        around = self.surroundings
        # Encoded as one text: at the border a token may hold the end of the head and the beginning
        # of the question, as it did when the model was trained.
        tokens, named = self._controls.encode(around.fit(question), around.head, around.tail)
        return [*self._start, *tokens], named

    def example(
        self, question: str, response: str, *, is_cut: bool = False
    ) -> tuple[list[int], int]:
        """Return all tokens, and how many of them are the prompt's.

        Args:
            question: its text.
            response: its text.
            is_cut: whether the reply was cut when it was sampled; then no end token follows.
        """
        prompt = self.prompt(question)
        text = without_ends(response, self._ends)
        # Apart from the prompt: the prompt's tokens must be the same whatever the reply is, or the
        # log-probabilities of two replies would have two conditions.
        completion, named = self._controls.encode(text)
        # A reply that was cut has no eos, and one that is cut here loses it: the model must not
        # learn to stop in mid-sentence.
        if not is_cut or not completion:
            completion.append(self.eos)
        self.cut.ended += text != response
        self.cut.named += named
        room = self.max_length - len(prompt)
        if len(completion) > room:
            self.cut.responses += 1
            self.cut.tokens += len(completion) - room
            completion = completion[:room]
        return prompt + completion, len(prompt)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return a completion's text, without special tokens or surrounding space."""
        return cast(str, self.tokenizer.decode(list(tokens), skip_special_tokens=True)).strip()


def without_ends(text: str, ends: Sequence[str]) -> str:
    """Return a text without the end tokens that are written at its end, as exports of chat
    templates have them.
    """
    while True:
        trimmed = text.rstrip()
        endings = [end for end in ends if end and trimmed.endswith(end)]
        if not endings:
            return text
        text = trimmed.removesuffix(endings[0])


@dataclass
class RewardText:
    """Turns questions and responses into a reward model's tokens; the response is what gets cut."""

    tokenizer: PreTrainedTokenizerBase
    max_length: int = 512
    rows: int | None = None
    cut: Cut = field(default_factory=Cut)

    def __post_init__(self) -> None:
        for name in ("cls_token_id", "sep_token_id"):
            if getattr(self.tokenizer, name) is None:
                raise UserError(f"the reward model's tokenizer has no {name.removesuffix('_id')}")
        if self.max_length < SHORTEST_REWARD_TEXT:
            raise UserError(
                f"max_length must be at least {SHORTEST_REWARD_TEXT}, not {self.max_length}"
            )
        self._controls = ControlTokens(self.tokenizer, rows=self.rows)

    def example(self, question: str, response: str) -> list[int]:
        """Return ``<s> question </s></s> response </s>`` of at most ``max_length`` tokens.

        A question that leaves the response less than half the room keeps its end.
        """
        start = cast(int, self.tokenizer.cls_token_id)
        end = cast(int, self.tokenizer.sep_token_id)
        question_tokens, question_names_control = self._controls.encode(question)
        response_tokens, response_names_control = self._controls.encode(response)
        self.cut.named += question_names_control + response_names_control
        # Four marks stand around and between the two texts.
        room = self.max_length - 4
        if len(question_tokens) + len(response_tokens) > room:
            question_room = max(room // 2, room - len(response_tokens))
            # A question's end says what is asked; a reply's beginning says how it replies.
            if len(question_tokens) > question_room:
                self.cut.prompts += 1
                self.cut.tokens += len(question_tokens) - question_room
                question_tokens = question_tokens[-question_room:]
            if len(question_tokens) + len(response_tokens) > room:
                self.cut.responses += 1
                self.cut.tokens += len(question_tokens) + len(response_tokens) - room
                response_tokens = response_tokens[: room - len(question_tokens)]
        return [start, *question_tokens, end, end, *response_tokens, end]


def pad_rows(rows: Sequence[Sequence[int]], length: int, pad: int = 0) -> np.ndarray:
    """Return rows as ``[rows, length]`` int32, padded on the right; which pad id is used matters to
    nobody.
    """
    padded = np.full((len(rows), length), pad, np.int32)
    for number, row in enumerate(rows):
        padded[number, : len(row)] = row
    return padded
