"""How good a reward model is on rankings that it was not trained on: accuracy, calibration, distribution.

A pair is a ranking of two. Where rankings are longer, accuracy over their ends (as hard as the training
pairs of the paper) and over all of their pairs are both given. Two replies that share a rank are no pair.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxmodpo.intervals import percentile_interval, resampled_questions, wilson_interval

BINS = 5
QUANTILES = (5, 25, 50, 75, 95)


def validate(rewards: np.ndarray, ranks: np.ndarray, questions: Sequence[str]) -> dict[str, Any]:
    """Return what ``validation.json`` says.

    Args:
        rewards: ``[rankings, places]``, best first.
        ranks: the same shape, from 1, equal for ties, 0 where a place is empty; the first and the last taken place of
            a ranking differ.
        questions: each ranking's question; those of one question are not independent.

    Returns:
        ``accuracy`` and ``accuracy_interval`` (95%) over best-worst pairs; the same over all pairs, if there are
        more; how many pairs were left out because their replies are tied; the mean Bradley–Terry loss;
        ``calibration``: per bin of the probability σ(|r_i − r_j|) that the model gives to its own preference, the mean
        probability, how often the ranking agrees, and the number of pairs, with the expected calibration error;
        ``rewards``: quantiles and a histogram of the best's and the worst's.
    """
    assert rewards.shape == ranks.shape and len(rewards) == len(questions), (rewards.shape, ranks.shape)
    taken = (ranks > 0).sum(1)
    assert all(row[0] < row[count - 1] for row, count in zip(ranks, taken, strict=True))
    best, worst = rewards[:, 0], rewards[np.arange(len(taken)), taken - 1]
    ends = (best - worst).astype(np.float64)
    both = [(n, i, j) for n, count in enumerate(taken) for i, j in itertools.combinations(range(count), 2)]
    places = [(n, i, j) for n, i, j in both if ranks[n, i] < ranks[n, j]]
    differences = np.array([rewards[n, i] - rewards[n, j] for n, i, j in places], np.float64)
    owners = [questions[n] for n, _, _ in places]
    said: dict[str, Any] = {
        "questions": len(set(questions)),
        "pairs": len(ends),
        "tied_pairs_left_out": len(both) - len(places),
        "accuracy": accuracy(ends),
        "accuracy_interval": interval(ends, questions),
        "loss": float(np.mean(np.logaddexp(0, -ends))),
    }
    if len(differences) > len(ends):
        said["all_pairs"] = {
            "pairs": len(differences),
            "accuracy": accuracy(differences),
            "accuracy_interval": interval(differences, owners),
            "loss": float(np.mean(np.logaddexp(0, -differences))),
        }
    return said | {"calibration": calibration(differences), "rewards": distribution(best, worst)}


def accuracy(differences: np.ndarray) -> float:
    """Return the share of pairs whose better response has the higher reward; equal rewards count half."""
    return float(np.mean((differences > 0) + 0.5 * (differences == 0)))


def interval(differences: np.ndarray, questions: Sequence[str], level: float = 0.95) -> list[float] | None:
    """Return a confidence interval of the accuracy; None of a single question, which says nothing of others.

    Wilson's, where each question has one pair; otherwise the percentiles of a bootstrap over questions, since
    pairs of the same responses go right and wrong together. Where all resamples are equal (every question's share
    is the same) the bootstrap has no width, and Wilson's interval over the questions takes its place.
    """
    count = len(set(questions))
    if count < 2:
        return None
    right = (differences > 0) + 0.5 * (differences == 0)
    if count == len(questions):
        return _wilson(float(right.sum()), count, level)
    _, owners = np.unique(list(questions), return_inverse=True)
    sums, counts = np.bincount(owners, right), np.bincount(owners)
    drawn = resampled_questions(count)
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = percentile_interval(means, confidence=level)
    if low < high:
        return [float(low), float(high)]
    return _wilson(float(right.mean()) * count, count, level)


def _wilson(successes: float, trials: int, level: float) -> list[float]:
    ends = wilson_interval(successes, trials, level)
    assert ends is not None
    return list(ends)


def calibration(differences: np.ndarray, bins: int = BINS) -> dict[str, Any]:
    """Return how often pairs agree that the model is this sure of: equal bins of probability from 0.5 to 1."""
    sure = 1 / (1 + np.exp(-np.abs(differences)))
    right = (differences > 0) + 0.5 * (differences == 0)
    edges = np.linspace(0.5, 1.0, bins + 1)
    place = np.clip(np.searchsorted(edges, sure, side="right") - 1, 0, bins - 1)
    rows = [
        {
            "from": float(edges[n]),
            "to": float(edges[n + 1]),
            "pairs": int((place == n).sum()),
            "probability": float(sure[place == n].mean()),
            "agreement": float(right[place == n].mean()),
        }
        for n in range(bins)
        if (place == n).any()
    ]
    error = sum(row["pairs"] * abs(row["probability"] - row["agreement"]) for row in rows) / len(sure)
    return {"bins": rows, "expected_calibration_error": float(error)}


def distribution(best: np.ndarray, worst: np.ndarray, bins: int = 20) -> dict[str, Any]:
    """Return quantiles of the rewards of the best and the worst responses, and their histograms over shared bins."""
    edges = np.histogram_bin_edges(np.concatenate([best, worst]).astype(np.float64), bins)
    return {
        "quantiles": list(QUANTILES),
        "histogram_edges": [float(edge) for edge in edges],
        **{
            name: {
                "mean": float(np.mean(values)),
                "std": float(np.std(values)),
                "quantiles": [float(q) for q in np.percentile(values, QUANTILES)],
                "histogram": np.histogram(values, edges)[0].tolist(),
            }
            for name, values in (("best", best), ("worst", worst))
        },
    }


def sentence(said: dict[str, Any]) -> str:
    """Put the accuracies into one line."""
    parts = [f"{_percent(said)} on {said['pairs']} held-out best-worst pairs"]
    if "all_pairs" in said:
        parts.append(f"{_percent(said['all_pairs'])} on all {said['all_pairs']['pairs']} pairs of them")
    return f"accuracy {', '.join(parts)}; calibration error {said['calibration']['expected_calibration_error']:.3f}"


def _percent(said: dict[str, Any]) -> str:
    if said["accuracy_interval"] is None:
        return f"{said['accuracy']:.1%}"
    low, high = said["accuracy_interval"]
    return f"{said['accuracy']:.1%} [{low:.1%}, {high:.1%}]"
