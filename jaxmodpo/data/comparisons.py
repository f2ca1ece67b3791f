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
        parts: list[_Part] = []
        parts_of: dict[int, list[_Part]] = {}
        for number, question in enumerate(self.questions.tolist()):
            replies: dict[bytes, int] = {}
            for reply in self.rows[number].tolist():
                if reply >= 0:
                    replies.setdefault(identities[reply], reply)
            of_question = parts_of.setdefault(question, [])
            part = next((part for part in of_question if part.has_room(replies)), None)
            if part is None:
                part = _Part({}, [])
                of_question.append(part)
                parts.append(part)
            for identity, reply in replies.items():
                part.replies.setdefault(identity, reply)
            part.numbers.append(number)
        return self._laid_out(parts, identities)

    def _laid_out(self, parts: Sequence[_Part], identities: Sequence[bytes]) -> Questions:
        """Write examples into arrays."""
        most_replies = max(len(part.replies) for part in parts)
        most_comparisons = max(len(part.numbers) for part in parts)
        # The replies of each example, and the numbers of its comparisons.
        members = np.full((len(parts), most_replies), -1)
        numbers = np.zeros((len(parts), most_comparisons), np.int64)
        weights = np.zeros((len(parts), most_comparisons), np.float32)
        example_of = np.zeros(len(self), np.int64)
        places = np.zeros(self.rows.shape, np.int32)
        for example, part in enumerate(parts):
            order = list(part.replies) if len(part.numbers) == 1 else sorted(part.replies)
            members[example, : len(order)] = [part.replies[identity] for identity in order]
            numbers[example] = part.numbers[0]
            numbers[example, : len(part.numbers)] = part.numbers
            weights[example, : len(part.numbers)] = 1
            example_of[part.numbers] = example
            place_of = {identity: place for place, identity in enumerate(order)}
            for number in part.numbers:
                for column, reply in enumerate(self.rows[number].tolist()):
                    # A ranking that is shorter than others names any reply where it has none.
                    places[number, column] = place_of[identities[reply]] if reply >= 0 else 0
        is_there = members >= 0
        tokens = np.where(is_there[..., None], self.replies.tokens[members, 0], 0)
        prompt_lengths = np.where(is_there, self.replies.prompt_lengths[members, 0], 0)
        lengths = np.where(is_there, self.replies.lengths[members, 0], 0)
        fields = {name: array[numbers] for name, array in self.fields.items()}
        fields["comparisons"] = places[numbers]
        fields["comparison_weights"] = weights
        return Questions(
            Examples(tokens, prompt_lengths, lengths, fields), example_of, places, numbers[:, 0]
        )


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
class _Part:
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


def _identity(replies: Examples, number: int) -> bytes:
    """Return a digest of a reply's tokens and of where its prompt ends."""
    hasher = hashlib.blake2b(digest_size=16)
    hasher.update(int(replies.prompt_lengths[number, 0]).to_bytes(4, "little"))
    hasher.update(replies.tokens[number, 0, : replies.lengths[number, 0]].tobytes())
    return hasher.digest()


def equal_pairs(comparisons: Comparisons) -> np.ndarray:
    """Return which comparisons hold a chosen and a rejected reply of the very same tokens, ``[R]``
    bool.

    Texts that differ may be equal once they are cut. Such a pair prefers nothing.
    """
    replies = comparisons.replies
    # Chosen and rejected alternate, once for each objective.
    chosen = comparisons.rows[:, 0::2]
    rejected = comparisons.rows[:, 1::2]
    same_tokens = (replies.tokens[chosen, 0] == replies.tokens[rejected, 0]).all(-1)
    # Token 0 at a text's end looks like the padding behind a shorter one.
    same_length = replies.lengths[chosen, 0] == replies.lengths[rejected, 0]
    return (same_tokens & same_length).any(-1)


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
