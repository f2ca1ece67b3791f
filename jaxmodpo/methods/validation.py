"""How good a reward model is on rankings that it was not trained on: accuracy, calibration,
distribution.

A pair is a ranking of two. Where rankings are longer, accuracy over their ends (as hard as the
training pairs of the paper) and over all of their pairs are both given. Two replies that share a
rank are no pair.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxmodpo.rankings import two_by_two
from jaxmodpo.results.evaluation import Interval
from jaxmodpo.results.reward import (
    Accuracy,
    Calibration,
    CalibrationBin,
    RewardDistribution,
    RewardSummary,
    Validation,
)
from jaxmodpo.statistics.bootstrap import resampled_questions
from jaxmodpo.statistics.intervals import percentile_interval, wilson_interval

BINS = 5
"""of probability, from 0.5 to 1"""
QUANTILES = (5, 25, 50, 75, 95)
"""percentages"""


def validate(rewards: np.ndarray, ranks: np.ndarray, questions: Sequence[str]) -> Validation:
    """Measure a model by the rewards that it gives to held-out rankings.

    Args:
        rewards: ``[rankings, places]``, best first.
        ranks: the same shape, from 1, equal for ties, 0 where a place is empty; the first and the
            last taken place of a ranking differ.
        questions: each ranking's question; those of one question are not independent.
    """
    assert rewards.shape == ranks.shape and len(rewards) == len(questions), (
        rewards.shape,
        ranks.shape,
    )
    reply_counts = (ranks > 0).sum(1)
    best_rank = ranks[:, 0]
    worst_rank = ranks[np.arange(len(ranks)), reply_counts - 1]
    assert (best_rank < worst_rank).all(), "a ranking that prefers nothing"
    best = rewards[:, 0]
    worst = rewards[np.arange(len(rewards)), reply_counts - 1]
    ends = (best - worst).astype(np.float64)
    pairs, tied = preferred_pairs(ranks)
    rows, better, worse = np.array(pairs, np.int64).reshape(-1, 3).T
    differences = np.asarray(rewards[rows, better] - rewards[rows, worse], np.float64)
    all_pairs = None
    # Where every ranking is a pair, all pairs are the ends, and the figures would be said twice.
    if len(differences) > len(ends):
        all_pairs = accuracy_of(differences, [questions[row] for row, _, _ in pairs])
    return Validation(
        questions=len(set(questions)),
        tied_pairs_left_out=tied,
        **vars(accuracy_of(ends, questions)),
        all_pairs=all_pairs,
        calibration=calibration(differences),
        rewards=distribution(best, worst),
    )


def accuracy_of(differences: np.ndarray, questions: Sequence[str]) -> Accuracy:
    """Return accuracy, its interval and loss of pairs, each of a question."""
    return Accuracy(
        pairs=len(differences),
        accuracy=accuracy(differences),
        accuracy_interval=interval(differences, questions),
        loss=bradley_terry_loss(differences),
    )


def preferred_pairs(ranks: np.ndarray) -> tuple[list[tuple[int, int, int]], int]:
    """Return the pairs of every ranking as (row, better place, worse place), and how many others
    are tied.

    Args:
        ranks: as in :func:`validate`.
    """
    pairs: list[tuple[int, int, int]] = []
    tied = 0
    for row, row_ranks in enumerate(ranks):
        taken_ranks = row_ranks[row_ranks > 0].tolist()
        for comparison in two_by_two([-rank for rank in taken_ranks]):
            if comparison.is_tie:
                tied += 1
            else:
                pairs.append((row, comparison.better, comparison.worse))
    return pairs, tied


def bradley_terry_loss(differences: np.ndarray) -> float:
    """Return the mean of −log σ(r_better − r_worse); ln 2 for a model that tells nothing apart."""
    return float(np.mean(np.logaddexp(0, -differences)))


def accuracy(differences: np.ndarray) -> float:
    """Return the share of pairs whose better response has the higher reward; equal rewards count
    half.
    """
    return float(np.mean(_agreement(differences)))


def _agreement(differences: np.ndarray) -> np.ndarray:
    """Return 1 for each pair whose better response has the higher reward, 0.5 for equal rewards, 0
    otherwise.
    """
    return (differences > 0) + 0.5 * (differences == 0)


def interval(differences: np.ndarray, questions: Sequence[str], level: float = 0.95) -> Interval:
    """Return a confidence interval of the accuracy; None of a single question, which says nothing
    of others.

    Wilson's, where each question has one pair; otherwise the percentiles of a bootstrap over
    questions, since pairs of the same responses go right and wrong together. Where all resamples
    are equal (every question's share is the same) the bootstrap has no width, and Wilson's interval
    over the questions takes its place.
    """
    count = len(set(questions))
    if count < 2:
        return None
    agreement = _agreement(differences)
    if count == len(questions):
        return _wilson(float(agreement.sum()), count, level)
    _, owners = np.unique(list(questions), return_inverse=True)
    agreement_by_question = np.bincount(owners, agreement)
    pairs_by_question = np.bincount(owners)
    # Questions are drawn and not pairs: a question's pairs come and go together, as they would in
    # new data.
    resamples = resampled_questions(count)
    accuracies = agreement_by_question[resamples].sum(1) / pairs_by_question[resamples].sum(1)
    low, high = percentile_interval(accuracies, confidence=level)
    if low < high:
        return float(low), float(high)
    return _wilson(float(agreement.mean()) * count, count, level)


def _wilson(successes: float, trials: int, level: float) -> tuple[float, float]:
    """Return Wilson's interval; there is one, since there is a trial."""
    ends = wilson_interval(successes, trials, level)
    assert ends is not None
    return ends


def calibration(differences: np.ndarray, bins: int = BINS) -> Calibration:
    """Return how often pairs agree that the model is this sure of: equal bins of probability from
    0.5 to 1.
    """
    # The probability that the model gives to the response that it prefers itself, whichever the
    # ranking prefers.
    probability = 1 / (1 + np.exp(-np.abs(differences)))
    agreement = _agreement(differences)
    edges = np.linspace(0.5, 1.0, bins + 1)
    # A probability of exactly 1 belongs to the last bin.
    bin_of_pair = np.clip(np.searchsorted(edges, probability, side="right") - 1, 0, bins - 1)
    rows: list[CalibrationBin] = []
    for number in range(bins):
        in_bin = bin_of_pair == number
        if not in_bin.any():
            continue
        rows.append(
            CalibrationBin(
                low=float(edges[number]),
                high=float(edges[number + 1]),
                pairs=int(in_bin.sum()),
                probability=float(probability[in_bin].mean()),
                agreement=float(agreement[in_bin].mean()),
            )
        )
    gaps = [row.pairs * abs(row.probability - row.agreement) for row in rows]
    error = float(sum(gaps) / len(differences))
    return Calibration(bins=tuple(rows), expected_calibration_error=error)


def distribution(best: np.ndarray, worst: np.ndarray, bins: int = 20) -> RewardDistribution:
    """Return quantiles of the rewards of the best and the worst responses, and their histograms
    over shared bins.
    """
    edges = np.histogram_bin_edges(np.concatenate([best, worst]).astype(np.float64), bins)
    return RewardDistribution(
        quantiles=QUANTILES,
        histogram_edges=tuple(float(edge) for edge in edges),
        best=_summary(best, edges),
        worst=_summary(worst, edges),
    )


def _summary(rewards: np.ndarray, edges: np.ndarray) -> RewardSummary:
    """Return mean, standard deviation, quantiles and histogram of rewards."""
    return RewardSummary(
        mean=float(np.mean(rewards)),
        std=float(np.std(rewards)),
        quantiles=tuple(float(quantile) for quantile in np.percentile(rewards, QUANTILES)),
        histogram=tuple(np.histogram(rewards, edges)[0].tolist()),
    )


def sentence(validation: Validation) -> str:
    """Put the accuracies into one line."""
    phrases = [f"{_percent(validation)} on {validation.pairs} held-out best-worst pairs"]
    all_pairs = validation.all_pairs
    if all_pairs is not None:
        phrases.append(f"{_percent(all_pairs)} on all {all_pairs.pairs} pairs of them")
    error = validation.calibration.expected_calibration_error
    return f"accuracy {', '.join(phrases)}; calibration error {error:.3f}"


def _percent(measured: Validation | Accuracy) -> str:
    """Return an accuracy with its interval, if there is one."""
    if measured.accuracy_interval is None:
        return f"{measured.accuracy:.1%}"
    low, high = measured.accuracy_interval
    return f"{measured.accuracy:.1%} [{low:.1%}, {high:.1%}]"
