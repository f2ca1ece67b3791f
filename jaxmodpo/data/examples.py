"""Training examples as arrays: what every method's batches are made of.

An example is a group of token sequences that must be in the same step: one for SFT, chosen and
rejected for a pair, two per objective for Joint-Loss DPO. All have one fixed length, so that a
step compiles once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from jaxmodpo.data.text import PolicyText, RewardText, pad_rows
from jaxmodpo.errors import UserError
from jaxmodpo.records import Pair, Ranking

logger = logging.getLogger(__name__)

# Lengths are rounded up to a multiple of this, so that data sets of similar length share a compiled
# step.
LENGTH_MULTIPLE = 8


@dataclass(frozen=True)
class Examples:
    """``n`` examples of ``S`` sequences, ``T`` tokens each.

    Attributes:
        tokens: ``[n, S, T]`` int32, padded on the right.
        prompt_lengths: ``[n, S]`` int32, tokens that are not learned; 0 for reward models.
        lengths: ``[n, S]`` int32, all real tokens.
        fields: further arrays ``[n, …]`` float32 by name: reference log-probabilities, margins.
    """

    tokens: np.ndarray
    prompt_lengths: np.ndarray
    lengths: np.ndarray
    fields: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.tokens)

    def with_fields(self, **fields: np.ndarray) -> Examples:
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


def equal_pairs(examples: Examples) -> np.ndarray:
    """Return which examples hold a chosen and a rejected sequence of the very same tokens, ``[n]``
    bool.

    Texts that differ may be equal once they are cut. Such a pair prefers nothing.
    """
    chosen, rejected = examples.tokens[:, 0::2], examples.tokens[:, 1::2]
    same_tokens = (chosen == rejected).all(-1)
    same_length = examples.lengths[:, 0::2] == examples.lengths[:, 1::2]
    return (same_tokens & same_length).any(-1)


def leave_out_equal_pairs(examples: Examples) -> tuple[Examples, np.ndarray]:
    """Leave out the pairs whose two replies are equal once they are cut, and say how many those
    were.

    Returns:
        The remaining examples, and which of the given ones were left out, ``[n]`` bool.

    Raises:
        UserError: nothing remains.
    """
    equal = equal_pairs(examples)
    if equal.all():
        raise UserError(
            "all pairs are equal once cut to --max-length: nothing is left to train on; raise it"
        )
    if equal.any():
        logger.warning(
            "%d pairs left out: their two replies are equal once cut to --max-length", equal.sum()
        )
    return examples.subset(~equal), equal


def _examples(groups: Sequence[Sequence[tuple[list[int], int]]], least: int = 0) -> Examples:
    longest = max(least, max(len(tokens) for group in groups for tokens, _ in group))
    length = -(-longest // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
    sequences = len(groups[0])
    flat = [tokens for group in groups for tokens, _ in group]
    return Examples(
        tokens=pad_rows(flat, length).reshape(len(groups), sequences, length),
        prompt_lengths=np.array([[prompt for _, prompt in group] for group in groups], np.int32),
        lengths=np.array([[len(tokens) for tokens, _ in group] for group in groups], np.int32),
        fields={},
    )


def _refuse_conversations(pairs: Sequence[Pair], text: PolicyText) -> None:
    """Refuse conversations where a chat template would give each of their messages a turn of its
    own.

    Raises:
        UserError: with ``chat``, a prompt is several messages, or one that is not the user's.
    """
    if text.prompt_style != "chat":
        return
    several = [pair for pair in pairs if pair.conversation]
    if several:
        raise UserError(
            f"--prompt-style chat: the prompts of {len(several)} of {len(pairs)} pairs, that of"
            f" question {several[0].question_id} first, are conversations with several messages or"
            " a system's; the chat template is applied to one message of the user's alone; leave"
            " those pairs out, or give --prompt-style instruct, which puts conversations as text"
        )


def policy_pairs(pair_sets: Sequence[Sequence[Pair]], text: PolicyText) -> Examples:
    """Tokenize aligned pair sets: sequences are chosen, rejected of the first set, then of the
    next.

    Args:
        pair_sets: one list of pairs per objective, all of the same length and questions in the same
            order.
        text: the tokenization.
    """
    for pairs in pair_sets:
        _refuse_conversations(pairs, text)
    for row in zip(*pair_sets, strict=True):
        assert len({pair.question_id for pair in row}) == 1, (
            f"one example of several questions: {row[0].question_id}"
        )
    return _examples(
        [
            [
                text.example(pair.question_text, candidate.response_text)
                for pair in row
                for candidate in (pair.chosen, pair.rejected)
            ]
            for row in zip(*pair_sets, strict=True)
        ]
    )


def policy_chosen(pairs: Sequence[Pair], text: PolicyText) -> Examples:
    """Tokenize the chosen responses alone, for SFT."""
    _refuse_conversations(pairs, text)
    return _examples(
        [[text.example(pair.question_text, pair.chosen.response_text)] for pair in pairs]
    )


def reward_pairs(pairs: Sequence[Pair], text: RewardText) -> Examples:
    """Tokenize pairs for a reward model."""
    return _examples(
        [
            [
                (text.example(pair.question_text, c.response_text), 0)
                for c in (pair.chosen, pair.rejected)
            ]
            for pair in pairs
        ]
    )


def reward_rankings(rankings: Sequence[Ranking], text: RewardText) -> Examples:
    """Tokenize rankings for a reward model: sequences are candidates, best first.

    The field ``ranks`` ``[n, S]`` holds their ranks, equal ones of ties; it is 0 in the places that
    shorter rankings leave empty, whose tokens repeat the last candidate's.
    """
    places = max(len(ranking.candidates) for ranking in rankings)
    ranks = np.zeros((len(rankings), places), np.float32)
    groups = []
    for row, ranking in zip(ranks, rankings, strict=True):
        tokens = [
            (text.example(ranking.question_text, c.response_text), 0) for c in ranking.candidates
        ]
        groups.append(tokens + [tokens[-1]] * (places - len(tokens)))
        row[: len(tokens)] = ranking.ranks
    return _examples(groups).with_fields(ranks=ranks)


def completions(
    prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]], length: int | None = None
) -> Examples:
    """Put sampled replies, as tokens, behind their prompts: one sequence each, of at least
    ``length`` tokens.
    """
    return _examples(
        [[([*p, *r], len(p))] for p, r in zip(prompts, replies, strict=True)], length or 0
    )
