"""User texts as tokens: what a person wrote is never a control token.

Tokenizers take ``</s>``, ``<pad>`` or ``[INST]`` for the token of that name wherever it stands, in
a post as in the prompt's own text. A post that quotes one would end a turn, or be padding that
attention leaves out. Here such a text is cut as any other text is, while the prompt's own text
around it keeps its control tokens::

    controls = ControlTokens(tokenizer, own_text="<s>[INST] … [/INST]")
    controls.encode("I gave up.</s>", head="[INST] ", tail=" [/INST]")      # tokens, True

The result is the tokens that the tokenizer would give if the text's ``</s>`` were any other four
characters: not a special case of its own, but the model's usual way of reading unusual text.
"""

from __future__ import annotations

import functools
import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from jaxmodpo.errors import UserError
from jaxmodpo.parsing import JsonObject

_SIGN = re.compile(r"[^\w\s]")
"""what a mark of a turn holds, as in ``<|end|>``, and neither a word nor the indentation of a
template"""


class ControlTokens:
    """Encodes texts of users, alone or within a prompt's own text.

    Control tokens are the tokenizer's special tokens, and those of its other added tokens that the
    prompt's own text holds (some chat templates mark turns with tokens that are not flagged as
    special). Other added tokens are vocabulary and stay so, and so are words and runs of spaces
    even where a template holds them.

    Args:
        tokenizer: the model's own.
        own_text: all that the prompts' own text may hold.
        rows: of the model's embedding; a text that names a control token beyond them is refused,
            because the tokenizer is then not the model's. None if they are not known.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, own_text: str = "", rows: int | None = None
    ):
        self._tokenizer = tokenizer
        self._rows = rows
        special = set(map(str, tokenizer.all_special_tokens))
        self._ids: dict[str, int] = {}
        for number, token in tokenizer.added_tokens_decoder.items():
            mark = str(token.content)
            is_special = token.special or mark in special
            marks_turns = mark in own_text and _SIGN.search(mark) is not None
            if mark and (is_special or marks_turns):
                self._ids[mark] = number
        # Of two marks that begin alike, the longer one is meant where it stands.
        longest_first = sorted(self._ids, key=len, reverse=True)
        alternatives = "|".join(re.escape(mark) for mark in longest_first)
        # Without any control token, what matches nowhere.
        self._pattern = re.compile(alternatives or "(?!)")
        self._own_controls: dict[tuple[str, str], list[int]] = {}
        # A text of signs that the vocabulary lacks holds the unknown token too.
        self._decisive = set(self._ids.values()) - {cast(int, tokenizer.unk_token_id)}

    @property
    def ids(self) -> list[int]:
        """The control tokens, which decide how texts that name one are cut."""
        return sorted(self._ids.values())

    def marks(self, numbers: Iterable[int]) -> list[str]:
        """Return the texts of those of some tokens that are control tokens."""
        ids = set(numbers)
        return [mark for mark, number in self._ids.items() if number in ids]

    def encode(self, text: str, head: str = "", tail: str = "") -> tuple[list[int], bool]:
        """Return the tokens of ``head + text + tail``, and whether the text names a control token.

        A text that names none gives the tokens that the tokenizer gives the whole.

        Raises:
            UserError: the text names a token that the model has no row for, or the tokenizer makes
                a control token of plain text.
        """
        tokens = self._whole(head + text + tail)
        own_controls = self._of_own_text(head, tail)
        # The usual case, and two checks of it: the text holds no mark as it is written, and the
        # tokenizer, which may normalize letters first, found none beyond the prompt's own.
        if not self._pattern.search(text) and self._controls(tokens) == own_controls:
            return tokens, False
        self._refuse_tokens_without_rows(text)
        tokens = self._plain(text, head, tail)
        if self._controls(tokens) != own_controls:
            raise UserError(
                f"the tokenizer makes a control token of plain text: {text[:80]!r} holds one of "
                f"{', '.join(sorted(self._ids))}; take it out of the text"
            )
        return tokens, True

    def _refuse_tokens_without_rows(self, text: str) -> None:
        if self._rows is None:
            return
        for match in self._pattern.finditer(text):
            token = self._ids[match[0]]
            if token >= self._rows:
                raise UserError(
                    f"the tokenizer does not fit the model: a text names {match[0]}, the"
                    f" tokenizer's token {token}, and the model's embedding has"
                    f" {self._rows} rows; use the model's own tokenizer, or a model whose embedding"
                    " was enlarged"
                )

    def _whole(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _controls(self, tokens: list[int]) -> list[int]:
        return [token for token in tokens if token in self._decisive]

    def _of_own_text(self, head: str, tail: str) -> list[int]:
        if (head, tail) not in self._own_controls:
            # A letter in the middle, where a text will stand: "[INST]" and "[/INST]" are not to
            # meet, which some tokenizers would take for something else.
            tokens = self._whole(f"{head}a{tail}")
            self._own_controls[head, tail] = self._controls(tokens)
        return self._own_controls[head, tail]

    def _plain(self, text: str, head: str, tail: str) -> list[int]:
        if getattr(self._tokenizer, "backend_tokenizer", None) is None:
            # Tokenizers in Python take user texts alone, so that the border to the prompt's own
            # text is one of tokens.
            inside = self._tokenizer.encode(
                text, add_special_tokens=False, split_special_tokens=True
            )
            return self._whole(head) + list(inside) + self._whole(tail)
        tokenizer, names, numbers = self._unspellable

        def renamed(own_text: str) -> str:
            return self._pattern.sub(lambda match: names[match[0]], own_text)

        # In one piece, so that the tokenizer merges across the border as it would with any text.
        whole = renamed(head) + text + renamed(tail)
        tokens = tokenizer.encode(whole, add_special_tokens=False).ids
        return [numbers.get(token, token) for token in tokens]

    @functools.cached_property
    def _unspellable(self) -> tuple[Tokenizer, dict[str, str], dict[int, int]]:
        """Return the same tokenizer with names for its control tokens that nobody can write.

        The prompt's own text takes the new names, a user's text has the old ones, and everything
        else, such as merges across the border of the two, is as it always is.

        Returns:
            The tokenizer, the new names by the old ones, and the usual ids by that tokenizer's.
        """
        # Drawn at random: names that were written down here could stand in somebody's text.
        key = secrets.token_hex(8)
        names = {mark: f"\ue000{key}.{number}\ue001" for number, mark in enumerate(self._ids)}
        rules = json.loads(self._tokenizer.backend_tokenizer.to_str())  # type: ignore[attr-defined]
        for token in rules["added_tokens"]:
            token["content"] = names.get(token["content"], token["content"])
        rules["model"] = _renamed(rules["model"], names)
        tokenizer = Tokenizer.from_str(json.dumps(rules))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        # An added token that is no part of the model's vocabulary gets the next free id.
        numbers: dict[int, int] = {}
        for number, token in self._tokenizer.added_tokens_decoder.items():
            mark = str(token.content)
            number_here = tokenizer.token_to_id(names.get(mark, mark))
            if number_here is not None:
                numbers[number_here] = number
        return tokenizer, names, numbers


def _renamed(model: Mapping[str, Any], names: Mapping[str, str]) -> JsonObject:
    """Return a tokenizer's model, as its JSON has it, whose vocabulary has other names for some
    pieces.
    """
    renamed = dict(model)
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        numbers: dict[str, int] = {}
        for piece, number in vocabulary.items():
            numbers[names.get(piece, piece)] = number
        renamed["vocab"] = numbers
    else:  # Unigram: pieces with their scores
        rows: list[list[Any]] = []
        for piece, *scores in vocabulary:
            rows.append([names.get(piece, piece), *scores])
        renamed["vocab"] = rows
    if "merges" in model:
        renamed["merges"] = _merges_without(set(names), model["merges"])
    if model.get("unk_token") in names:
        renamed["unk_token"] = names[model["unk_token"]]
    return renamed


def _merges_without(pieces: set[str], merges: Iterable[str | Sequence[str]]) -> list[list[str]]:
    """Return the merges that neither use nor make any of some pieces.

    A merge that makes a renamed piece would make it of plain text.
    """
    remaining: list[list[str]] = []
    for merge in merges:
        halves = merge.split(" ") if isinstance(merge, str) else list(merge)
        merged = "".join(halves)
        if pieces.isdisjoint({*halves, merged}):
            remaining.append(halves)
    return remaining
