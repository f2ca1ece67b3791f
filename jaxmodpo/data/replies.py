"""From pairs and rankings to comparisons of tokens: every text is tokenized once, however often it
is compared.

A question is known by its id and its prompt, in whatever order a file has its rows. Two replies to
it are the same where their texts are, and their endings: whether a sampler cut them. ::

    listed = listed_pairs([pairs])          # texts, and each pair's places among them
    comparisons = listed.compared(policy_replies(listed.texts, text))
    comparisons = policy_pairs([pairs], text)   # the same, where nothing is cached
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from jaxmodpo.data.comparisons import Comparisons
from jaxmodpo.data.examples import Examples, TokenSequence, collected
from jaxmodpo.data.text import PolicyText, RewardText
from jaxmodpo.errors import UserError
from jaxmodpo.records import Candidate, Pair, Ranking


class ReplyText(NamedTuple):
    """A reply with what it answers.

    Attributes:
        question_text: its question.
        response_text: its own text.
        is_cut: whether it is not whole, so that no end token stands behind it.
    """

    question_text: str
    response_text: str
    is_cut: bool

    @classmethod
    def of(cls, question_text: str, candidate: Candidate) -> ReplyText:
        return cls(question_text, candidate.response_text, candidate.is_cut)


@dataclass
class ListedReplies:
    """Distinct replies in the order in which they first came, and which of them are compared.

    Attributes:
        texts: the replies.
        rows: each comparison's replies, by their numbers.
        questions: each comparison's question, a number.
    """

    texts: list[ReplyText] = field(default_factory=list)
    rows: list[list[int]] = field(default_factory=list)
    questions: list[int] = field(default_factory=list)
    _question_numbers: dict[tuple[str, str], int] = field(default_factory=dict)
    _reply_numbers: dict[tuple[int, ReplyText], int] = field(default_factory=dict)

    def add(self, question_id: str, question_text: str, replies: Iterable[ReplyText]) -> None:
        """Add a comparison of a question's replies."""
        # Both: rankings of several files may use one id for two questions.
        key = (question_id, question_text)
        question = self._question_numbers.setdefault(key, len(self._question_numbers))
        row: list[int] = []
        for reply in replies:
            # A reply that several comparisons share is computed once: under ``all pairs`` each of
            # five replies stands in four pairs.
            number = self._reply_numbers.setdefault((question, reply), len(self.texts))
            if number == len(self.texts):
                self.texts.append(reply)
            row.append(number)
        self.rows.append(row)
        self.questions.append(question)

    def compared(self, replies: Examples) -> Comparisons:
        """Return the comparisons, given the replies as tokens, in the order of ``texts``."""
        assert len(replies) == len(self.texts)
        # Rankings may have different numbers of replies: −1 marks the places that a shorter one
        # leaves empty.
        longest = max(map(len, self.rows))
        rows = np.full((len(self.rows), longest), -1)
        for array, numbers in zip(rows, self.rows, strict=True):
            array[: len(numbers)] = numbers
        return Comparisons(replies, rows, np.array(self.questions))


def listed_pairs(
    pair_sets: Sequence[Sequence[Pair]], *, chosen_only: bool = False
) -> ListedReplies:
    """List the replies of aligned pair sets.

    Args:
        pair_sets: one list of pairs per objective, all of the same length and questions in the same
            order. A comparison is chosen, rejected of the first set's pair, then of the next.
        chosen_only: list the chosen replies alone, for SFT.
    """
    listed = ListedReplies()
    for aligned in zip(*pair_sets, strict=True):
        first = aligned[0]
        # The objectives' pairs of one question meet in one loss; those of two would mean nothing.
        question_ids = {pair.question_id for pair in aligned}
        assert len(question_ids) == 1, f"one comparison of several questions: {first.question_id}"
        replies: list[ReplyText] = []
        for pair in aligned:
            replies.append(ReplyText.of(pair.question_text, pair.chosen))
            if not chosen_only:
                replies.append(ReplyText.of(pair.question_text, pair.rejected))
        listed.add(first.question_id, first.question_text, replies)
    return listed


def policy_replies(texts: Iterable[ReplyText], text: PolicyText) -> Examples:
    """Tokenize questions with a reply each: examples of one sequence."""
    groups: list[list[TokenSequence]] = []
    for reply in texts:
        example = text.example(reply.question_text, reply.response_text, is_cut=reply.is_cut)
        groups.append([TokenSequence(*example)])
    return collected(groups)


def policy_pairs(
    pair_sets: Sequence[Sequence[Pair]], text: PolicyText, *, chosen_only: bool = False
) -> Comparisons:
    """Tokenize aligned pair sets; see :func:`listed_pairs`.

    Raises:
        UserError: see :func:`refuse_conversations`.
    """
    refuse_conversations(pair_sets, text)
    listed = listed_pairs(pair_sets, chosen_only=chosen_only)
    return listed.compared(policy_replies(listed.texts, text))


def refuse_conversations(pair_sets: Sequence[Sequence[Pair]], text: PolicyText) -> None:
    """Refuse conversations where a chat template would give each of their messages a turn of its
    own.

    Raises:
        UserError: with ``chat``, a prompt is several messages, or one that is not the user's.
    """
    # Only a template knows turns; the other styles put any text into one prompt.
    if text.prompt_style != "chat":
        return
    for pairs in pair_sets:
        conversations = [pair for pair in pairs if pair.conversation]
        if conversations:
            raise UserError(
                f"--prompt-style chat: the prompts of {len(conversations)} of {len(pairs)} pairs,"
                f" that of question {conversations[0].question_id} first, are conversations with"
                " several messages or a system's; the chat template is applied to one message of"
                " the user's alone; leave those pairs out, or give --prompt-style instruct, which"
                " puts conversations as text"
            )


def reward_pairs(pairs: Sequence[Pair], text: RewardText) -> Comparisons:
    """Tokenize pairs for a reward model."""
    listed = ListedReplies()
    for pair in pairs:
        candidates = (pair.chosen, pair.rejected)
        listed.add(pair.question_id, pair.question_text, _whole(pair.question_text, candidates))
    return listed.compared(_reward_replies(listed.texts, text))


def reward_rankings(rankings: Sequence[Ranking], text: RewardText) -> Comparisons:
    """Tokenize rankings for a reward model: a comparison is a ranking's replies, best first.

    The field ``ranks`` ``[R, C]`` holds their ranks, equal ones of ties; it is 0 in the places that
    shorter rankings leave empty.
    """
    listed = ListedReplies()
    for ranking in rankings:
        replies = _whole(ranking.question_text, ranking.candidates)
        listed.add(ranking.question_id, ranking.question_text, replies)
    comparisons = listed.compared(_reward_replies(listed.texts, text))
    ranks = np.zeros(comparisons.rows.shape, np.float32)
    for row, ranking in zip(ranks, rankings, strict=True):
        row[: len(ranking.ranks)] = ranking.ranks
    return comparisons.with_fields(ranks=ranks)


def _whole(question_text: str, candidates: Iterable[Candidate]) -> Iterable[ReplyText]:
    """Return replies as a reward model sees them, which does not see how one ended."""
    for candidate in candidates:
        yield ReplyText(question_text, candidate.response_text, is_cut=False)


def _reward_replies(texts: Iterable[ReplyText], text: RewardText) -> Examples:
    """Tokenize questions with a reply each; a reward model learns no token, so that nothing is
    prompt.
    """
    groups: list[list[TokenSequence]] = []
    for reply in texts:
        tokens = text.example(reply.question_text, reply.response_text)
        groups.append([TokenSequence(tokens, 0)])
    return collected(groups)
