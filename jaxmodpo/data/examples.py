"""Training examples as arrays: what every method's batches are made of.

An example is a group of token sequences that must be in the same step: one for SFT, chosen and
rejected for a pair, two per objective for Joint-Loss DPO. All have one fixed length, so that a
step compiles once.

Pairs become examples of two sequences each, and get a number of their own from elsewhere::

    examples = policy_pairs([pairs], text)                  # tokens [n, 2, T]
    examples = examples.with_fields(margins=margins)        # [n], one for each pair
    examples.lengths - examples.prompt_lengths              # [n, 2], tokens of the completions
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from jaxmodpo.data.text import PolicyText, RewardText, pad_rows
from jaxmodpo.errors import UserError
from jaxmodpo.records import Candidate, Pair, Ranking

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


def equal_pairs(examples: Examples) -> np.ndarray:
    """Return which examples hold a chosen and a rejected sequence of the very same tokens, ``[n]``
    bool.

    Texts that differ may be equal once they are cut. Such a pair prefers nothing.
    """
    # Chosen and rejected alternate, once for each objective.
    same_tokens = (examples.tokens[:, 0::2] == examples.tokens[:, 1::2]).all(-1)
    # Token 0 at a text's end looks like the padding behind a shorter one.
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


class _Sequence(NamedTuple):
    """One sequence of an example.

    Attributes:
        tokens: all of them.
        prompt_length: how many, from the start, are not learned.
    """

    tokens: list[int]
    prompt_length: int


def _examples(groups: Sequence[Sequence[_Sequence]], shortest: int = 0) -> Examples:
    """Collect examples in arrays, as long as the longest sequence and at least ``shortest``."""
    flat = [sequence for group in groups for sequence in group]
    longest = max(len(sequence.tokens) for sequence in flat)
    length = -(-max(longest, shortest) // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
    shape = (len(groups), len(groups[0]))
    prompt_lengths = np.array([sequence.prompt_length for sequence in flat], np.int32)
    lengths = np.array([len(sequence.tokens) for sequence in flat], np.int32)
    tokens = pad_rows([sequence.tokens for sequence in flat], length)
    return Examples(
        tokens=tokens.reshape(*shape, length),
        prompt_lengths=prompt_lengths.reshape(shape),
        lengths=lengths.reshape(shape),
        fields={},
    )


def _sequence(question: str, candidate: Candidate, text: PolicyText) -> _Sequence:
    """Tokenize a question with one of its replies."""
    example = text.example(question, candidate.response_text, is_cut=candidate.is_cut)
    return _Sequence(*example)


def _refuse_conversations(pairs: Sequence[Pair], text: PolicyText) -> None:
    """Refuse conversations where a chat template would give each of their messages a turn of its
    own.

    Raises:
        UserError: with ``chat``, a prompt is several messages, or one that is not the user's.
    """
    if text.prompt_style != "chat":
        return
    conversations = [pair for pair in pairs if pair.conversation]
    if conversations:
        raise UserError(
            f"--prompt-style chat: the prompts of {len(conversations)} of {len(pairs)} pairs, that of"
            f" question {conversations[0].question_id} first, are conversations with several messages or"
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
    groups: list[list[_Sequence]] = []
    for aligned in zip(*pair_sets, strict=True):
        # The objectives' pairs of one question meet in one loss; those of two would mean nothing.
        question_ids = {pair.question_id for pair in aligned}
        assert len(question_ids) == 1, f"one example of several questions: {aligned[0].question_id}"
        group: list[_Sequence] = []
        for pair in aligned:
            for candidate in (pair.chosen, pair.rejected):
                group.append(_sequence(pair.question_text, candidate, text))
        groups.append(group)
    return _examples(groups)


def policy_chosen(pairs: Sequence[Pair], text: PolicyText) -> Examples:
    """Tokenize the chosen responses alone, for SFT."""
    _refuse_conversations(pairs, text)
    groups: list[list[_Sequence]] = []
    for pair in pairs:
        groups.append([_sequence(pair.question_text, pair.chosen, text)])
    return _examples(groups)


def reward_pairs(pairs: Sequence[Pair], text: RewardText) -> Examples:
    """Tokenize pairs for a reward model."""
    groups: list[list[_Sequence]] = []
    for pair in pairs:
        groups.append(_replies_to(pair.question_text, (pair.chosen, pair.rejected), text))
    return _examples(groups)


def _replies_to(
    question: str, candidates: Sequence[Candidate], text: RewardText
) -> list[_Sequence]:
    """Tokenize a question with each of its replies; a reward model learns no token, so that nothing
    is prompt.
    """
    sequences = []
    for candidate in candidates:
        sequences.append(_Sequence(text.example(question, candidate.response_text), 0))
    return sequences


def reward_rankings(rankings: Sequence[Ranking], text: RewardText) -> Examples:
    """Tokenize rankings for a reward model: sequences are candidates, best first.

    The field ``ranks`` ``[n, S]`` holds their ranks, equal ones of ties; it is 0 in the places that
    shorter rankings leave empty, whose tokens repeat the last candidate's.
    """
    longest_ranking = max(len(ranking.candidates) for ranking in rankings)
    ranks = np.zeros((len(rankings), longest_ranking), np.float32)
    groups = []
    for row, ranking in zip(ranks, rankings, strict=True):
        sequences = _replies_to(ranking.question_text, ranking.candidates, text)
        empty_places = longest_ranking - len(sequences)
        groups.append(sequences + [sequences[-1]] * empty_places)
        row[: len(sequences)] = ranking.ranks
    return _examples(groups).with_fields(ranks=ranks)


def completions(
    prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]], length: int | None = None
) -> Examples:
    """Put sampled replies, as tokens, behind their prompts: one sequence each, of at least
    ``length`` tokens.
    """
    groups: list[list[_Sequence]] = []
    for prompt, reply in zip(prompts, replies, strict=True):
        groups.append([_Sequence([*prompt, *reply], len(prompt))])
    return _examples(groups, shortest=length or 0)
