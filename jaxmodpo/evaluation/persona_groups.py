"""Win rates by group of personas, as far as the personas' texts say which groups they are in.

``jaxmodpo personas`` writes age, gender, ethnicity and importance ratings as lines of their own.
Texts that others wrote may lack them, and then nothing is said of their groups. No text says which
population a persona comes from; the file of all participants does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxmodpo.errors import UserError
from jaxmodpo.evaluation.ballot_box import BallotBox
from jaxmodpo.evaluation.contest import Contest
from jaxmodpo.evaluation.outcomes import Outcomes
from jaxmodpo.files import Row, read_json
from jaxmodpo.results.inference import GroupRates
from jaxmodpo.statistics.arrays import Array
from jaxmodpo.statistics.groups import GroupRate, rates_by_group
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
    # An age that is a span already, such as 25–34, is a group as it stands.
    if dimension == "age" and answer.isdecimal():
        decade = int(answer) // 10 * 10
        return f"{decade}–{decade + 9}"
    return answer


def _top_preference(text: str) -> str:
    ratings = {match["label"]: float(match["rating"]) for match in _RATING.finditer(text)}
    highest = max(ratings.values(), default=0.0)
    labels = [label for label, rating in ratings.items() if rating == highest]
    return labels[0] if len(labels) == 1 else ""


def read_populations(path: Path | None, personas: Mapping[str, str]) -> dict[str, str]:
    """Return the population of every persona, from the file ``all_personas.json``.

    Args:
        path: the file; None for none, and then no population is known.
        personas: the texts of those who vote, by id.

    Raises:
        UserError: the file lacks a persona who votes, or does not say its population.
    """
    if path is None:
        return {}
    rows = read_json(path, list[Row])
    populations = {str(row.get("persona_id")): row.get("population") for row in rows}
    for persona in personas:
        if not isinstance(populations.get(persona), str):
            raise UserError(
                f"{path}: nothing says which population persona {persona:.80} is of; give the"
                " all_personas.json of the same 'jaxmodpo personas'"
            )
    return {persona: str(populations[persona]) for persona in personas}


def groups_of_personas(
    contest: Contest, ballots: BallotBox, populations: Mapping[str, str]
) -> dict[str, list[str]]:
    """Return the groups of those who voted, in the order of the ballot box, by dimension.

    Dimensions are those that texts tell, and the population where it is known; a persona of no
    group has an empty one.
    """
    groups_of: dict[str, list[str]] = {}
    for dimension in DIMENSIONS:
        texts = [contest.personas[name] for name in ballots.personas]
        groups_of[dimension] = [group_of(text, dimension) for text in texts]
    groups_of["population"] = [populations.get(name, "") for name in ballots.personas]
    return groups_of


def rates_of_groups(
    contest: Contest,
    table: Outcomes,
    ballots: BallotBox,
    groups_of: Mapping[str, Sequence[str]],
    *,
    smallest: int,
    resamples: int,
    seed: int,
) -> dict[str, tuple[GroupRates, ...]]:
    """Return each model's share of votes by group, by criterion.

    Args:
        contest: what was compared.
        table: the outcomes.
        ballots: every persona's verdicts.
        groups_of: of every dimension, :func:`groups_of_personas`.
        smallest: groups of fewer personas are counted and not shown.
        resamples: of the personas of a group.
        seed: of the draws.
    """
    rates: dict[str, tuple[GroupRates, ...]] = {}
    for criterion, outcomes in table.items():
        votes = ballots.votes(contest, criterion, outcomes)
        rows: list[GroupRates] = []
        for dimension, groups in groups_of.items():
            for number, model in enumerate(contest.models):
                share, voters = _votes_for(votes, len(contest.models), number)
                rates_of_model = rates_by_group(
                    share, voters, groups, smallest=smallest, resamples=resamples, seed=seed
                )
                rows += [_row(dimension, model, rate) for rate in rates_of_model]
        if rows:
            rates[criterion] = tuple(rows)
    return rates


def _votes_for(votes: PanelVotes, models: int, model: int) -> tuple[Array, np.ndarray]:
    """Return the votes on one model's units, 1 for it and 0 against it, and who gave them."""
    # Units are numbered pair after pair, in the order of the upper triangle.
    first, second = np.triu_indices(models, k=1)
    units_of_pair = votes.outcomes[0].size
    pair = votes.unit // max(units_of_pair, 1)
    is_first = first[pair] == model
    is_second = second[pair] == model
    # A verdict is 1 for the pair's first model and −1 for its second, 0 for a tie; the sign turns
    # it towards the model in question.
    sign = is_first.astype(int) - is_second.astype(int)
    concerned = sign != 0
    verdict_for_model = sign[concerned] * votes.verdict[concerned]
    share = (1 + verdict_for_model) / 2
    return share, votes.persona[concerned]


def _row(dimension: str, model: str, rate: GroupRate) -> GroupRates:
    return GroupRates(
        dimension=dimension,
        group=rate.group,
        model=model,
        personas=rate.personas,
        votes=rate.votes,
        rate=rate.rate,
        interval=rate.interval,
        hidden=rate.hidden,
    )
