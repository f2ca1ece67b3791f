"""Win rates by group of personas, as far as the personas' texts say which groups they are in.

``jaxmodpo personas`` writes age, gender, ethnicity and importance ratings as lines of their own.
Texts that others wrote may lack them, and then nothing is said of their groups.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from jaxmodpo.evaluation.ballot_box import BallotBox
from jaxmodpo.evaluation.contest import Contest
from jaxmodpo.evaluation.outcomes import Outcomes
from jaxmodpo.results.inference import GroupRates
from jaxmodpo.statistics.arrays import Array
from jaxmodpo.statistics.groups import rates_by_group
from jaxmodpo.statistics.panels import PanelVotes

DIMENSIONS = ("age", "gender", "ethnicity", "top preference")

_RATING = re.compile(r"^- (?P<label>.+): (?P<rating>[0-9.]+)/5 importance$", re.MULTILINE)


def group_of(text: str, dimension: str) -> str:
    """Return a persona's group in one dimension; empty where its text does not say.

    An age in years is a decade. The top preference is the objective rated highest; a persona that
    rates several highest is in no group.
    """
    if dimension == "top preference":
        return _top_preference(text)
    line = re.search(rf"^- {dimension.capitalize()}: (.+)$", text, re.MULTILINE)
    if line is None:
        return ""
    answer = line[1].strip()
    if dimension == "age" and answer.isdecimal():
        decade = int(answer) // 10 * 10
        return f"{decade}–{decade + 9}"
    return answer


def _top_preference(text: str) -> str:
    ratings = {match["label"]: float(match["rating"]) for match in _RATING.finditer(text)}
    highest = max(ratings.values(), default=0.0)
    labels = [label for label, rating in ratings.items() if rating == highest]
    return labels[0] if len(labels) == 1 else ""


def rates_of_groups(
    contest: Contest, table: Outcomes, ballots: BallotBox, *, resamples: int, seed: int
) -> dict[str, tuple[GroupRates, ...]]:
    """Return each model's share of votes by group: by criterion, of all dimensions that texts
    tell.
    """
    rates: dict[str, tuple[GroupRates, ...]] = {}
    for criterion, outcomes in table.items():
        votes = ballots.votes(contest, criterion, outcomes)
        rows: list[GroupRates] = []
        for dimension in DIMENSIONS:
            groups = [group_of(contest.personas[name], dimension) for name in ballots.personas]
            for number, model in enumerate(contest.models):
                of_model = _votes_for(votes, len(contest.models), number)
                rows += _of_model(model, of_model, dimension, groups, resamples, seed)
        if rows:
            rates[criterion] = tuple(rows)
    return rates


def _votes_for(votes: PanelVotes, models: int, model: int) -> tuple[Array, np.ndarray]:
    """Return the votes on one model's units, 1 for it and 0 against it, and who gave them."""
    first, second = np.triu_indices(models, k=1)
    units_of_pair = votes.outcomes[0].size
    pair = votes.unit // max(units_of_pair, 1)
    is_first = first[pair] == model
    is_second = second[pair] == model
    sign = is_first.astype(int) - is_second.astype(int)
    concerned = sign != 0
    share = (1 + sign[concerned] * votes.verdict[concerned]) / 2
    return share, votes.persona[concerned]


def _of_model(
    model: str,
    votes: tuple[Array, np.ndarray],
    dimension: str,
    groups: Sequence[str],
    resamples: int,
    seed: int,
) -> list[GroupRates]:
    share, personas = votes
    rows: list[GroupRates] = []
    for rate in rates_by_group(share, personas, groups, resamples=resamples, seed=seed):
        rows.append(
            GroupRates(
                dimension=dimension,
                group=rate.group,
                model=model,
                personas=rate.personas,
                votes=rate.votes,
                rate=rate.rate,
                interval=rate.interval,
                hidden=rate.hidden,
            )
        )
    return rows
