"""What a reward model is trained on: files become rankings, rankings a training and a held-out
part, those tokens::

    rankings, all_tied = ranked(config)
    training, held_out = split(rankings, config)
    data = tokenized(config, training, held_out, text, vocab_size)

Whatever the file holds, it is read as rankings, since the held-out part is validated on whole
rankings even where the model is trained on pairs of them.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from jaxmodpo.data.comparisons import Comparisons, leave_out_equal_pairs
from jaxmodpo.data.examples import check_tokens
from jaxmodpo.data.held_out import split_rows
from jaxmodpo.data.pairs import holds_rankings, load_pairs, load_rankings
from jaxmodpo.data.replies import reward_pairs, reward_rankings
from jaxmodpo.data.text import Cut, RewardText
from jaxmodpo.errors import UserError
from jaxmodpo.methods.reward_settings import RewardConfig
from jaxmodpo.rankings import LeftOut, pairs_of, tied_pairs, without_repeats
from jaxmodpo.records import Candidate, Ranking

logger = logging.getLogger(__name__)


def ranked(config: RewardConfig) -> tuple[list[Ranking], int]:
    """Read a command's data as rankings, best first; a pair is a ranking of two.

    Returns:
        The rankings, and how many were left out because all their replies are tied.

    Raises:
        UserError: a file that is not what it should be, or nothing but ties.
    """
    path = config.rankings or config.pairs
    assert path is not None
    if config.rankings is None and not holds_rankings(path):
        # A pair is a ranking of two, so that both kinds of data are trained on in one way.
        of_two: list[Ranking] = []
        for pair in load_pairs(path, config.pairs_per_question):
            candidates = (pair.chosen, pair.rejected)
            of_two.append(Ranking(pair.question_id, pair.question_text, candidates))
        return of_two, 0
    rankings = load_rankings(path)
    with_preference = [ranking for ranking in rankings if not ranking.all_tied]
    if not with_preference:
        raise UserError(f"{path} prefers nothing: all replies to each question are tied")
    all_tied = len(rankings) - len(with_preference)
    if all_tied:
        logger.info("%s: %d rankings left out, all of whose replies are tied", path, all_tied)
    return with_preference, all_tied


def split(rankings: Sequence[Ranking], config: RewardConfig) -> tuple[list[Ranking], list[Ranking]]:
    """Return the rankings to train on and those held out, which share no question.

    Raises:
        UserError: nothing is left to train on.
    """
    is_held_out = config.held_out([ranking.question_id for ranking in rankings])
    if is_held_out.all():
        raise UserError(
            f"{config.pairs or config.rankings} leaves nothing to train on; lower"
            " --validation-fraction"
        )
    return split_rows(rankings, is_held_out)


@dataclass(frozen=True)
class RewardData:
    """What a reward model is trained and evaluated on.

    Attributes:
        comparisons: the training part: pairs, or whole rankings.
        held_out: the held-out rankings that still prefer something once they are cut; empty where
            nothing is held out.
        held_out_comparisons: they, in the form that is trained on; None where nothing is held out.
        left_out: pairs of the training part that ties and equal texts cost.
        equal_once_cut: pairs of the training part whose replies are equal once they are cut.
    """

    comparisons: Comparisons
    held_out: list[Ranking]
    held_out_comparisons: Comparisons | None
    left_out: LeftOut
    equal_once_cut: int


def tokenized(
    config: RewardConfig,
    training: Sequence[Ranking],
    held_out: Sequence[Ranking],
    text: RewardText,
    vocab_size: int,
) -> RewardData:
    """Tokenize the two parts that :func:`split` returns.

    Raises:
        UserError: nothing of one of them prefers anything once it is cut, or a token is none of the
            model's.
    """
    left_out = LeftOut()
    comparisons, equal_once_cut = training_comparisons(config, training, text, left_out)
    check_tokens(int(comparisons.replies.tokens.max()), vocab_size)
    if len(comparisons) == 1:
        logger.warning(
            "the reward model learns from a single pair: its rewards say nothing about other texts"
        )
    if not held_out:
        return RewardData(comparisons, [], None, left_out, equal_once_cut)
    # A ranking whose replies are equal once they are cut would count as a preference that the model
    # gets wrong, whatever it says.
    distinct, _ = distinct_once_cut(held_out, text)
    if not distinct:
        raise UserError(
            "the replies to every held-out question are equal once cut to --max-length, so that"
            " nothing could be evaluated; raise it, or give --validation-fraction 0"
        )
    held_out_comparisons, _ = training_comparisons(config, distinct, text)
    return RewardData(comparisons, distinct, held_out_comparisons, left_out, equal_once_cut)


def training_comparisons(
    config: RewardConfig,
    rankings: Sequence[Ranking],
    text: RewardText,
    left_out: LeftOut | None = None,
) -> tuple[Comparisons, int]:
    """Tokenize rankings as they are trained on: whole, or as the pairs that the settings make of
    them.

    ``left_out`` counts what ties and equal texts cost.

    Returns:
        The comparisons, and how many pairs were left out because their replies are equal once they
        are cut.
    """
    if config.rankings is None:
        pairs = reward_pairs(pairs_of(rankings, config.pairs_per_question, left_out), text)
        comparisons, equal = leave_out_equal_pairs(pairs)
        return comparisons, int(equal.sum())
    # Plackett–Luce takes rankings whole: what pairs leave out one by one is taken out here, before
    # cutting and after it.
    repeats = LeftOut()
    rankings = without_repeats(rankings, repeats)
    if not rankings:
        raise UserError(
            "the rankings prefer nothing: all replies to each question have the same text or are"
            " tied"
        )
    if repeats.identical:
        logger.warning(
            "%d pairs of the same text in the rankings left out; its best place counts",
            repeats.identical,
        )
    if left_out is not None:
        left_out.add(LeftOut(tied=tied_pairs(rankings), identical=repeats.identical))
    rankings, equal = distinct_once_cut(rankings, text)
    if not rankings:
        raise UserError(
            "all replies to each question are equal once cut to --max-length, or tied; raise it"
        )
    if equal:
        logger.warning(
            "%d pairs left out: their two replies are equal once cut to --max-length", equal
        )
    return reward_rankings(rankings, text), equal


def distinct_once_cut(rankings: Sequence[Ranking], text: RewardText) -> tuple[list[Ranking], int]:
    """Leave out replies that are equal to a better one of their ranking once they are cut.

    Returns:
        The rankings that still prefer something, and how many pairs of equal replies there were.
    """
    # These texts are tokenized again where they are used, and counted there.
    quiet = dataclasses.replace(text, cut=Cut())

    def tokens(ranking: Ranking, candidate: Candidate) -> tuple[int, ...]:
        return tuple(quiet.example(ranking.question_text, candidate.response_text))

    equal = LeftOut()
    return without_repeats(rankings, equal, tokens), equal.identical
