"""How long models' replies are, and their win rates as if both replies were equally long.

Lengths are the numbers of tokens that files of replies hold (the column ``tokens``, which
``jaxmodpo responses`` writes). Files of other tools have none, and then nothing is said.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxmodpo.evaluation.contest import Contest
from jaxmodpo.evaluation.outcomes import Outcomes, under_ties_rule
from jaxmodpo.files import read_table
from jaxmodpo.results.evaluation import TiesRule
from jaxmodpo.results.inference import Interval, LengthBin, LengthControlledRate
from jaxmodpo.statistics.arrays import Array
from jaxmodpo.statistics.length_bins import rates_by_length
from jaxmodpo.statistics.length_control import (
    length_controlled_interval,
    length_controlled_win_rate,
)


def read_lengths(files: Mapping[str, Path], contest: Contest) -> dict[str, Array]:
    """Return the tokens of each model's replies, ``[questions, replies]``, NaN where not recorded.

    A model is missing where its file records no length at all.
    """
    place_of_question = {question.question_id: n for n, question in enumerate(contest.questions)}
    lengths: dict[str, Array] = {}
    for name, path in files.items():
        tokens = np.full((len(place_of_question), contest.replies_per_question), np.nan)
        # Replies to a question are numbered in the file's order, wherever their rows stand.
        replies_read = np.zeros(len(place_of_question), np.int64)
        for row in read_table(path, ["question_id"]):
            question = place_of_question.get(row["question_id"])
            # Of uneven files, the questions that not all models answered are not compared.
            if question is None:
                continue
            # Empty where nobody counted them, which must not become a 0.
            text = row.get("tokens", "")
            if text.isdecimal():
                tokens[question, replies_read[question]] = int(text)
            replies_read[question] += 1
        if np.isfinite(tokens).any():
            lengths[name] = tokens
    return lengths


def mean_tokens(lengths: Mapping[str, Array]) -> dict[str, float]:
    """Return the mean length of each model's replies, of those whose length is recorded."""
    return {name: float(np.nanmean(tokens)) for name, tokens in lengths.items()}


def control_length(
    contest: Contest,
    table: Outcomes,
    lengths: Mapping[str, Array],
    *,
    ties: TiesRule,
    resamples: int,
    seed: int,
) -> dict[str, tuple[LengthControlledRate, ...]]:
    """Return the length-controlled win rates by criterion, of every two models with lengths."""
    rates: dict[str, tuple[LengthControlledRate, ...]] = {}
    for criterion, outcomes in table.items():
        rated_outcomes = under_ties_rule(outcomes, ties)
        of_pairs: list[LengthControlledRate] = []
        for i, j in itertools.combinations(range(len(contest.models)), 2):
            a = contest.models[i]
            b = contest.models[j]
            if a in lengths and b in lengths:
                differences = lengths[a] - lengths[b]
                interval = length_controlled_interval(
                    rated_outcomes[i, j], differences, resamples=resamples, seed=seed
                )
                of_pairs.append(_control(a, b, rated_outcomes[i, j], differences, interval))
        if of_pairs:
            rates[criterion] = tuple(of_pairs)
    return rates


def bin_lengths(
    contest: Contest,
    table: Outcomes,
    lengths: Mapping[str, Array],
    *,
    ties: TiesRule,
    resamples: int,
    seed: int,
) -> dict[str, tuple[LengthBin, ...]]:
    """Return how often the longer reply wins, by criterion, over all models with lengths."""
    bins: dict[str, tuple[LengthBin, ...]] = {}
    with_lengths = [number for number, name in enumerate(contest.models) if name in lengths]
    if len(with_lengths) < 2:
        return bins
    tokens = np.stack([lengths[contest.models[number]] for number in with_lengths])
    first, second = np.triu_indices(len(with_lengths), k=1)
    differences = tokens[first] - tokens[second]  # [pairs, questions, replies]
    for criterion, outcomes in table.items():
        rated_outcomes = under_ties_rule(outcomes, ties)
        among_these = rated_outcomes[np.ix_(with_lengths, with_lengths)]
        of_pairs = among_these[first, second]
        rows = rates_by_length(of_pairs, differences, resamples=resamples, seed=seed)
        if rows:
            bins[criterion] = tuple(LengthBin(**row._asdict()) for row in rows)
    return bins


def _control(
    a: str, b: str, outcomes: Array, differences: Array, interval: Interval
) -> LengthControlledRate:
    fit = length_controlled_win_rate(outcomes.ravel(), differences.ravel())
    is_defined = not fit.undefined
    return LengthControlledRate(
        a=a,
        b=b,
        win_rate=fit.win_rate if is_defined else None,
        interval=interval,
        slope=fit.slope if is_defined else None,
        undefined=fit.undefined,
    )
