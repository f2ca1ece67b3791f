"""What a loss compares: pairs, pairs of several objectives, or rankings, as places of a question's
replies.

Five ranked replies make ten pairs. Each reply is computed once; a pair is two numbers, the places
of its replies. One *comparison* is what one value of the loss is of: chosen and rejected of a pair;
chosen and rejected of each objective in turn, for Joint-Loss DPO; a chosen reply alone, for SFT; a
ranking, best first, for a reward model. Comparisons lie in a list, as long as nobody trains on
them; :meth:`Comparisons.by_question` makes an example of each question::

    comparisons = policy_pairs([pairs], text)       # a comparison for each pair, in their order
    comparisons = comparisons.with_fields(reward_margins=margins)   # [pairs, …]
    questions = comparisons.by_question()
    questions.examples.tokens                       # [questions, replies, tokens]
    logps = policy.logps(questions.examples, rows=4)    # [questions, replies]
    questions.of_comparisons(logps)                 # [pairs, 2]: chosen and rejected

An example has these fields besides:

- ``comparisons`` ``[n, K, C]`` int32, the places of its comparisons' replies among its ``S``;
- ``comparison_weights`` ``[n, K]`` float32, 1 for a comparison and 0 for a place that is empty,
  which repeats the example's first comparison;
- every field of the comparisons, ``[n, K, …]``.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from jaxmodpo.data.examples import Examples
from jaxmodpo.errors import UserError

logger = logging.getLogger(__name__)

MOST_REPLIES = 8
"""replies of an example; a question with more is split, or others would be padded to its size"""

MOST_COMPARISONS = 64
"""comparisons of an example, likewise; eight replies have 28 pairs"""


@dataclass(frozen=True)
class Comparisons:
    """Comparisons of replies, in the order of whoever made them.

    Attributes:
        replies: ``N`` examples of one sequence each, every reply that is compared.
        rows: ``[R, C]`` int, each comparison's replies; −1 behind the last of a shorter ranking.
        questions: ``[R]`` int, equal for comparisons of one question.
        fields: further arrays ``[R, …]`` by name, such as margins or ranks.
    """

    replies: Examples
    rows: np.ndarray
    questions: np.ndarray
    fields: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def with_fields(self, **fields: np.ndarray) -> Comparisons:
        """Return the same comparisons with further fields, which must have a row for each."""
        for name, array in fields.items():
            assert len(array) == len(self), name
        return replace(self, fields={**self.fields, **fields})

    def subset(self, indices: np.ndarray) -> Comparisons:
        """Return the comparisons at ``indices``; a reply that none of them has will not be
        computed.
        """
        fields = {name: array[indices] for name, array in self.fields.items()}
        return Comparisons(self.replies, self.rows[indices], self.questions[indices], fields)

    def by_question(self) -> Questions:
        """Make an example of each question: its replies once, and its comparisons as their places.

        Examples stand in the order of their questions' first comparisons. Replies of equal tokens
        are one. The replies of a single comparison keep its order; those of several are put into an
        order that is their own, so that the same replies, differently compared, are the same
        arrays, and what was computed of them is found again.

        A question of more than :data:`MOST_REPLIES` replies becomes several examples: a comparison
        goes to the first one that has its replies or places for them.
        """
        identities = [_identity(self.replies, number) for number in range(len(self.replies))]
        drafts: list[_ExampleDraft] = []
        drafts_of_question: dict[int, list[_ExampleDraft]] = {}
        for number, question in enumerate(self.questions.tolist()):
            compared = self._distinct_replies(number, identities)
            of_question = drafts_of_question.setdefault(question, [])
            draft = next((draft for draft in of_question if draft.has_room(compared)), None)
            if draft is None:
                draft = _ExampleDraft({}, [])
                of_question.append(draft)
                drafts.append(draft)
            draft.add(number, compared)
        return self._laid_out(drafts, identities)

    def _distinct_replies(self, number: int, identities: Sequence[bytes]) -> dict[bytes, int]:
        """Return a comparison's replies by identity, in its order; equal ones once."""
        replies: dict[bytes, int] = {}
        for reply in self.rows[number].tolist():
            if reply >= 0:
                replies.setdefault(identities[reply], reply)
        return replies

    def _laid_out(self, drafts: Sequence[_ExampleDraft], identities: Sequence[bytes]) -> Questions:
        """Write examples into arrays."""
        most_replies = max(len(draft.replies) for draft in drafts)
        most_comparisons = max(len(draft.numbers) for draft in drafts)
        # The replies of each example, and the numbers of its comparisons.
        members = np.full((len(drafts), most_replies), -1)
        numbers = np.zeros((len(drafts), most_comparisons), np.int64)
        weights = np.zeros((len(drafts), most_comparisons), np.float32)
        example_of = np.zeros(len(self), np.int64)
        reply_places = np.zeros(self.rows.shape, np.int32)
        for example, draft in enumerate(drafts):
            order = draft.reply_order()
            members[example, : len(order)] = [draft.replies[identity] for identity in order]
            count = len(draft.numbers)
            # Places behind the last comparison repeat the first one, with the weight 0: their
            # fields are then numbers that a loss can be computed of.
            numbers[example] = draft.numbers[0]
            numbers[example, :count] = draft.numbers
            weights[example, :count] = 1
            example_of[draft.numbers] = example
            place_of = {identity: number for number, identity in enumerate(order)}
            for number in draft.numbers:
                for column, reply in enumerate(self.rows[number].tolist()):
                    # A ranking that is shorter than others keeps the 0 where it has no reply.
                    if reply >= 0:
                        reply_places[number, column] = place_of[identities[reply]]
        fields = {name: array[numbers] for name, array in self.fields.items()}
        fields["comparisons"] = reply_places[numbers]
        fields["comparison_weights"] = weights
        examples = self._examples(members, fields)
        return Questions(examples, example_of, reply_places, first=numbers[:, 0])

    def _examples(self, members: np.ndarray, fields: dict[str, np.ndarray]) -> Examples:
        """Return the examples that hold the replies numbered in ``members``, ``[n, S]``; −1 is an
        empty place, of zeros.
        """
        is_there = members >= 0
        replies = self.replies
        tokens = np.where(is_there[..., None], replies.tokens[members, 0], 0)
        prompt_lengths = np.where(is_there, replies.prompt_lengths[members, 0], 0)
        lengths = np.where(is_there, replies.lengths[members, 0], 0)
        return Examples(tokens, prompt_lengths, lengths, fields)


@dataclass(frozen=True)
class Questions:
    """Comparisons as examples, and the way back.

    Attributes:
        examples: one for each question, or several where it has too many replies.
        example_of: ``[R]``, each comparison's example.
        places: ``[R, C]``, its replies' places there.
        first: ``[n]``, each example's first comparison.
    """

    examples: Examples
    example_of: np.ndarray
    places: np.ndarray
    first: np.ndarray

    def of_comparisons(self, values: np.ndarray) -> np.ndarray:
        """Return what was computed of each reply, ``[n, S]``, for each comparison, ``[R, C]``."""
        return values[self.example_of[:, None], self.places]


@dataclass(frozen=True)
class _ExampleDraft:
    """An example that is being filled.

    Attributes:
        replies: by what makes them the same, in the order in which they came.
        numbers: of its comparisons.
    """

    replies: dict[bytes, int]
    numbers: list[int]

    def has_room(self, replies: Mapping[bytes, int]) -> bool:
        """Return whether a comparison of these replies can be added."""
        together = len(self.replies.keys() | replies.keys())
        return together <= MOST_REPLIES and len(self.numbers) < MOST_COMPARISONS

    def add(self, number: int, replies: Mapping[bytes, int]) -> None:
        """Add a comparison, and those of its replies that the example lacks."""
        for identity, reply in replies.items():
            self.replies.setdefault(identity, reply)
        self.numbers.append(number)

    def reply_order(self) -> list[bytes]:
        """Return the replies' identities in the order of the example's places."""
        # A single comparison keeps its order. Of several, the order is the replies' own, so that
        # the same replies give the same arrays however they are compared.
        if len(self.numbers) == 1:
            return list(self.replies)
        return sorted(self.replies)


def _identity(replies: Examples, number: int) -> bytes:
    """Return a digest of a reply's tokens and of where its prompt ends."""
    prompt_length = int(replies.prompt_lengths[number, 0])
    length = replies.lengths[number, 0]
    tokens = replies.tokens[number, 0, :length]
    hasher = hashlib.blake2b(digest_size=16)
    hasher.update(prompt_length.to_bytes(4, "little"))
    hasher.update(tokens.tobytes())
    return hasher.digest()


def equal_pairs(comparisons: Comparisons) -> np.ndarray:
    """Return which comparisons hold a chosen and a rejected reply of the very same tokens, ``[R]``
    bool.

    Texts that differ may be equal once they are cut. Such a pair prefers nothing.
    """
    replies = comparisons.replies
    # Chosen and rejected alternate, once for each objective.
    chosen_replies = comparisons.rows[:, 0::2]
    rejected_replies = comparisons.rows[:, 1::2]
    tokens_equal = replies.tokens[chosen_replies, 0] == replies.tokens[rejected_replies, 0]
    # Token 0 at a text's end looks like the padding behind a shorter one.
    same_length = replies.lengths[chosen_replies, 0] == replies.lengths[rejected_replies, 0]
    is_same_reply = tokens_equal.all(axis=-1) & same_length
    return is_same_reply.any(axis=-1)


def leave_out_equal_pairs(comparisons: Comparisons) -> tuple[Comparisons, np.ndarray]:
    """Leave out the pairs whose two replies are equal once they are cut, and say how many those
    were.

    Returns:
        The remaining comparisons, and which of the given ones were left out, ``[R]`` bool.

    Raises:
        UserError: nothing remains.
    """
    equal = equal_pairs(comparisons)
    if equal.all():
        raise UserError(
            "all pairs are equal once cut to --max-length: nothing is left to train on; raise it"
        )
    if equal.any():
        logger.warning(
            "%d pairs left out: their two replies are equal once cut to --max-length", equal.sum()
        )
    return comparisons.subset(~equal), equal
