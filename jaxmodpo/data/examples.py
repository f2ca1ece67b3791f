"""Training examples as arrays: what every method's batches are made of.

An example is a question: its distinct replies, each once and each behind the question's prompt. A
model computes every reply once, however many pairs it stands in. What the loss compares are fields
of the example (:mod:`jaxmodpo.data.comparisons`). All sequences have one fixed length, so that a
step compiles once.

Two questions, of two replies and of one::

    examples = collected(
        [
            [TokenSequence([1, 5, 6, 2], 2), TokenSequence([1, 5, 7], 2)],
            [TokenSequence([1, 8], 1)],
        ]
    )
    examples.tokens.shape                       # (2 examples, 2 replies, 8 tokens)
    examples.lengths                            # [[4, 3], [2, 0]]: a place that is empty has none
    examples.lengths - examples.prompt_lengths  # tokens of the completions
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from jaxmodpo.data.text import pad_rows
from jaxmodpo.errors import UserError

# Lengths are rounded up to a multiple of this, so that data sets of similar length share a compiled
# step.
LENGTH_MULTIPLE = 8


@dataclass(frozen=True)
class Examples:
    """``n`` examples of at most ``S`` sequences, ``T`` tokens each.

    Attributes:
        tokens: ``[n, S, T]`` int32, padded on the right.
        prompt_lengths: ``[n, S]`` int32, tokens that are not learned; 0 for reward models.
        lengths: ``[n, S]`` int32, all real tokens; 0 where an example has fewer sequences, and then
            those that it has stand first.
        fields: further arrays ``[n, …]`` by name: reference log-probabilities, comparisons and so
            on.
    """

    tokens: np.ndarray
    prompt_lengths: np.ndarray
    lengths: np.ndarray
    fields: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.tokens)

    def with_fields(self, **fields: np.ndarray) -> Examples:
        """Return the same examples with further fields, which must have a row for each."""
        for name, array in fields.items():
            assert len(array) == len(self), name
        return replace(self, fields={**self.fields, **fields})

    def subset(self, indices: np.ndarray) -> Examples:
        """Return the examples at ``indices``."""
        fields = {name: array[indices] for name, array in self.fields.items()}
        return Examples(
            self.tokens[indices], self.prompt_lengths[indices], self.lengths[indices], fields
        )


def check_tokens(largest: int, rows: int) -> None:
    """Refuse a token that the embedding has no row for, since JAX would take the last row in its
    place.

    Padding is 0, so that a tokenizer's unused padding token beyond the table does no harm.

    Raises:
        UserError: ``largest``, a token in use, is not below ``rows``.
    """
    if largest >= rows:
        raise UserError(
            f"the tokenizer does not fit the model: a text holds token {largest}, and the model's"
            f" embedding has {rows} rows (0 to {rows - 1}); use the model's own tokenizer, or a"
            " model whose embedding was enlarged"
        )


class TokenSequence(NamedTuple):
    """One sequence of an example.

    Attributes:
        tokens: all of them.
        prompt_length: how many, from the start, are not learned.
    """

    tokens: list[int]
    prompt_length: int


def collected(groups: Iterable[Sequence[TokenSequence]], shortest: int = 0) -> Examples:
    """Collect examples in arrays, as long as the longest sequence and at least ``shortest``."""
    groups = list(groups)
    longest = max(len(sequence.tokens) for group in groups for sequence in group)
    length = -(-max(longest, shortest) // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
    longest_group = max(len(group) for group in groups)
    tokens = np.zeros((len(groups), longest_group, length), np.int32)
    prompt_lengths = np.zeros((len(groups), longest_group), np.int32)
    lengths = np.zeros((len(groups), longest_group), np.int32)
    for number, group in enumerate(groups):
        count = len(group)
        tokens[number, :count] = pad_rows([sequence.tokens for sequence in group], length)
        prompt_lengths[number, :count] = [sequence.prompt_length for sequence in group]
        lengths[number, :count] = [len(sequence.tokens) for sequence in group]
    return Examples(tokens, prompt_lengths, lengths, fields={})


def completions(
    prompts: Sequence[Sequence[int]],
    replies: Sequence[Sequence[int]],
    length: int | None = None,
) -> Examples:
    """Put sampled replies, as tokens, behind their prompts: one sequence each, of at least
    ``length`` tokens.
    """
    groups: list[list[TokenSequence]] = []
    for prompt, reply in zip(prompts, replies, strict=True):
        groups.append([TokenSequence([*prompt, *reply], len(prompt))])
    return collected(groups, shortest=length or 0)
