"""How good a reward model is on rankings that it was not trained on: accuracy, calibration,
distribution.

A pair is a ranking of two. Where rankings are longer, accuracy over their ends (as hard as the
training pairs of the paper) and over all of their pairs are both given. Two replies that share a
rank are no pair.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxmodpo.intervals import percentile_interval, resampled_questions, wilson_interval

BINS = 5
"""of probability, from 0.5 to 1"""
QUANTILES = (5, 25, 50, 75, 95)
"""percentages"""


def validate(rewards: np.ndarray, ranks: np.ndarray, questions: Sequence[str]) -> dict[str, Any]:
    """Return what ``validation.json`` says.

    Args:
        rewards: ``[rankings, places]``, best first.
        ranks: the same shape, from 1, equal for ties, 0 where a place is empty; the first and the
            last taken place of a ranking differ.
        questions: each ranking's question; those of one question are not independent.

    Returns:
        ``accuracy`` and ``accuracy_interval`` (95%) over best-worst pairs; the same over all pairs,
        if there are more; how many pairs were left out because their replies are tied; the mean
        Bradley–Terry loss; ``calibration``: per bin of the probability σ(|r_i − r_j|) that the
        model gives to its own preference, the mean probability, how often the ranking agrees, and
        the number of pairs, with the expected calibration error; ``rewards``: quantiles and a
        histogram of the best's and the worst's.
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
    differences = np.array(
        [rewards[row, better] - rewards[row, worse] for row, better, worse in pairs], np.float64
    )
    figures: dict[str, Any] = {
        "questions": len(set(questions)),
        "pairs": len(ends),
        "tied_pairs_left_out": tied,
        "accuracy": accuracy(ends),
        "accuracy_interval": interval(ends, questions),
        "loss": bradley_terry_loss(ends),
    }
    # Where every ranking is a pair, all pairs are the ends, and the figures would be said twice.
    if len(differences) > len(ends):
        owners = [questions[row] for row, _, _ in pairs]
        figures["all_pairs"] = {
            "pairs": len(differences),
            "accuracy": accuracy(differences),
            "accuracy_interval": interval(differences, owners),
            "loss": bradley_terry_loss(differences),
        }
    figures["calibration"] = calibration(differences)
    figures["rewards"] = distribution(best, worst)
    return figures


def preferred_pairs(ranks: np.ndarray) -> tuple[list[tuple[int, int, int]], int]:
    """Return the pairs of every ranking as (row, better place, worse place), and how many others
    are tied.

    Args:
        ranks: as in :func:`validate`.
    """
    pairs: list[tuple[int, int, int]] = []
    tied = 0
    for row, row_ranks in enumerate(ranks):
        taken_places = np.flatnonzero(row_ranks > 0).tolist()
        for better, worse in itertools.combinations(taken_places, 2):
            if row_ranks[better] < row_ranks[worse]:
                pairs.append((row, better, worse))
            else:
                tied += 1
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


def interval(
    differences: np.ndarray, questions: Sequence[str], level: float = 0.95
) -> list[float] | None:
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
        return [float(low), float(high)]
    return _wilson(float(agreement.mean()) * count, count, level)


def _wilson(successes: float, trials: int, level: float) -> list[float]:
    """Return Wilson's interval as JSON has it; there is one, since there is a trial."""
    ends = wilson_interval(successes, trials, level)
    assert ends is not None
    return list(ends)


def calibration(differences: np.ndarray, bins: int = BINS) -> dict[str, Any]:
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
    rows: list[dict[str, Any]] = []
    for number in range(bins):
        in_bin = bin_of_pair == number
        if not in_bin.any():
            continue
        rows.append(
            {
                "from": float(edges[number]),
                "to": float(edges[number + 1]),
                "pairs": int(in_bin.sum()),
                "probability": float(probability[in_bin].mean()),
                "agreement": float(agreement[in_bin].mean()),
            }
        )
    gaps = [row["pairs"] * abs(row["probability"] - row["agreement"]) for row in rows]
    return {"bins": rows, "expected_calibration_error": float(sum(gaps) / len(differences))}


def distribution(best: np.ndarray, worst: np.ndarray, bins: int = 20) -> dict[str, Any]:
    """Return quantiles of the rewards of the best and the worst responses, and their histograms
    over shared bins.
    """
    edges = np.histogram_bin_edges(np.concatenate([best, worst]).astype(np.float64), bins)
    return {
        "quantiles": list(QUANTILES),
        "histogram_edges": [float(edge) for edge in edges],
        "best": _summary(best, edges),
        "worst": _summary(worst, edges),
    }


def _summary(rewards: np.ndarray, edges: np.ndarray) -> dict[str, Any]:
    """Return mean, standard deviation, quantiles and histogram of rewards."""
    return {
        "mean": float(np.mean(rewards)),
        "std": float(np.std(rewards)),
        "quantiles": [float(quantile) for quantile in np.percentile(rewards, QUANTILES)],
        "histogram": np.histogram(rewards, edges)[0].tolist(),
    }


def sentence(figures: dict[str, Any]) -> str:
    """Put the accuracies into one line."""
    phrases = [f"{_percent(figures)} on {figures['pairs']} held-out best-worst pairs"]
    if "all_pairs" in figures:
        phrases.append(
            f"{_percent(figures['all_pairs'])} on all {figures['all_pairs']['pairs']} pairs of them"
        )
    return (
        f"accuracy {', '.join(phrases)}; calibration error"
        f" {figures['calibration']['expected_calibration_error']:.3f}"
    )


def _percent(figures: dict[str, Any]) -> str:
    """Return an accuracy with its interval, if there is one."""
    if figures["accuracy_interval"] is None:
        return f"{figures['accuracy']:.1%}"
    low, high = figures["accuracy_interval"]
    return f"{figures['accuracy']:.1%} [{low:.1%}, {high:.1%}]"
