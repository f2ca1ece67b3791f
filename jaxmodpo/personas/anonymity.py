"""How far quasi-identifiers tell personas apart: k-anonymity.

Somebody who knows a person's age, gender, ethnicity and diagnoses can find that person among the
personas where nobody else shares all four. A set is k-anonymous when every combination in it is
shared by at least k.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Any

from jaxmodpo.personas.participant import Participant

QUASI_IDENTIFIERS = ("age", "gender", "ethnicity", "diagnoses")


def combination(
    participant: Participant, identifiers: Sequence[str] = QUASI_IDENTIFIERS
) -> tuple[object, ...]:
    """Return a participant's quasi-identifiers; the order in which diagnoses were given tells
    nothing.
    """
    return tuple(
        (
            tuple(sorted(participant.lists[name]))
            if name in participant.lists
            else participant.texts[name]
        )
        for name in identifiers
    )


def group_sizes(
    participants: Sequence[Participant], identifiers: Sequence[str] = QUASI_IDENTIFIERS
) -> dict[str, int]:
    """Return how many of the participants, that one included, share each one's combination, by
    id.
    """
    shared = collections.Counter(combination(p, identifiers) for p in participants)
    return {p.participant_id: shared[combination(p, identifiers)] for p in participants}


def anonymity(
    participants: Sequence[Participant], identifiers: Sequence[str] = QUASI_IDENTIFIERS
) -> dict[str, Any]:
    """Count the groups that share a combination.

    Returns:
        ``k`` (the smallest group), ``unique`` (participants alone with their combination),
        ``below_five`` (participants in groups of fewer than five), ``groups``, and ``sizes``: how
        many groups there are of each size. Nothing in it says which combinations they are.
    """
    sizes = collections.Counter(
        collections.Counter(combination(p, identifiers) for p in participants).values()
    )
    return {
        "identifiers": list(identifiers),
        "personas": len(participants),
        "k": min(sizes, default=0),
        "unique": sizes[1],
        "below_five": sum(size * number for size, number in sizes.items() if size < 5),
        "groups": sizes.total(),
        "sizes": {str(size): sizes[size] for size in sorted(sizes) if sizes[size]},
    }
