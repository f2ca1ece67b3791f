"""Personas' verdicts while they are counted, as columns of machine numbers.

An evaluation may have a million votes. Who gave which verdict on which unit is all that resampling
the personas needs, and takes nine bytes a vote here.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from jaxmodpo.evaluation.contest import Contest, Unit
from jaxmodpo.evaluation.outcomes import verdicts_of
from jaxmodpo.judging.collect import BallotVotes
from jaxmodpo.judging.voting import Missingness, Tally, tally
from jaxmodpo.statistics.arrays import Array
from jaxmodpo.statistics.panels import PanelVotes

Order = tuple[str, ...] | None
"""a verdict: the reply that is better, none of them for a tie, None for a failed vote"""


@dataclass
class _Columns:
    unit: array[int] = field(default_factory=lambda: array("I"))
    persona: array[int] = field(default_factory=lambda: array("I"))
    verdict: array[int] = field(default_factory=lambda: array("b"))


@dataclass
class BallotBox:
    """The verdicts of all personas on all units, by criterion."""

    _columns: dict[str, _Columns] = field(default_factory=dict)
    _personas: dict[str, int] = field(default_factory=dict)

    def put(self, criterion: str, number: int, unit: Unit, persona: str, order: Order) -> None:
        """Put in one persona's verdict on a unit; a failed vote is none.

        Args:
            criterion: by which it judged.
            number: the unit's place among all units.
            unit: the unit.
            persona: who judged.
            order: the verdict.
        """
        if order is None:
            return
        columns = self._columns.setdefault(criterion, _Columns())
        verdict = 0
        if order:
            verdict = 1 if order == (unit.a.response_id,) else -1
        columns.unit.append(number)
        columns.persona.append(self._personas.setdefault(persona, len(self._personas)))
        columns.verdict.append(verdict)

    @property
    def personas(self) -> list[str]:
        """The personas who voted; their order gives every persona its number."""
        return list(self._personas)

    def votes(self, contest: Contest, criterion: str, outcomes: Array) -> PanelVotes:
        """Return the votes on one criterion.

        Args:
            contest: what was compared; its units are in the order of
                :func:`jaxmodpo.evaluation.contest.plan`.
            criterion: which.
            outcomes: ``[models, models, questions, replies]``.
        """
        columns = self._columns.get(criterion, _Columns())
        first, second = np.triu_indices(len(contest.models), k=1)
        return PanelVotes(
            unit=np.frombuffer(columns.unit, np.uint32),
            persona=np.frombuffer(columns.persona, np.uint32),
            verdict=np.frombuffer(columns.verdict, np.int8),
            personas=len(self._personas),
            outcomes=outcomes[first, second],
        )


def count_votes(
    units: Sequence[Unit], ballot_votes: Iterable[BallotVotes], in_both_orders: bool
) -> tuple[dict[tuple[str, int], Tally], Missingness, BallotBox]:
    """Count the votes on each unit by each criterion.

    Args:
        units: :func:`jaxmodpo.evaluation.contest.plan`'s.
        ballot_votes: the votes, whose ballot number is that of their unit.
        in_both_orders: whether each persona was shown both orders; its two votes are one verdict
            then.

    Returns:
        The counts by criterion and number of the unit, what is missing, and every persona's
        verdicts. Units of identical texts have no votes and no counts.
    """
    tallies: dict[tuple[str, int], Tally] = {}
    missing = Missingness()
    ballots = BallotBox()
    for ballot_number, criterion, votes in ballot_votes:
        for vote in votes:
            missing.add(vote)
        unit = units[ballot_number]
        verdicts = verdicts_of(votes, in_both_orders)
        for verdict in verdicts:
            ballots.put(criterion, ballot_number, unit, verdict.persona, verdict.order)
        orders = [verdict.order for verdict in verdicts]
        tallies[criterion, ballot_number] = tally(orders, unit.a.response_id, unit.b.response_id)
    return tallies, missing, ballots
