"""How far quasi-identifiers tell personas apart: k-anonymity.

Somebody who knows a person's age, gender, ethnicity and diagnoses can find that person among the
personas where nobody else shares all four. A set is k-anonymous when every combination in it is
shared by at least k.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence

from jaxmodpo.parsing import JsonObject
from jaxmodpo.personas.participant import Participant

QUASI_IDENTIFIERS = ("age", "gender", "ethnicity", "diagnoses")
# A group below this size is small enough that its members may recognize each other.
SMALL_GROUP = 5


def combination(
    participant: Participant, identifiers: Sequence[str] = QUASI_IDENTIFIERS
) -> tuple[object, ...]:
    """Return a participant's quasi-identifiers as one value that can be compared."""
    return tuple(_comparable(participant, name) for name in identifiers)


def _comparable(participant: Participant, name: str) -> object:
    if name in participant.lists:
        # Two people with the same diagnoses are alike, in whichever order they ticked them.
        return tuple(sorted(participant.lists[name]))
    return participant.texts[name]


def group_sizes(
    participants: Sequence[Participant], identifiers: Sequence[str] = QUASI_IDENTIFIERS
) -> dict[str, int]:
    """Return, by id, how many of the participants share each one's combination, that one
    included.
    """
    combinations = {p.participant_id: combination(p, identifiers) for p in participants}
    members = collections.Counter(combinations.values())
    return {participant_id: members[value] for participant_id, value in combinations.items()}


def anonymity(
    participants: Sequence[Participant], identifiers: Sequence[str] = QUASI_IDENTIFIERS
) -> JsonObject:
    """Count the groups that share a combination.

    Returns:
        ``k`` (the smallest group), ``unique`` (participants alone with their combination),
        ``below_five`` (participants in groups of fewer than five), ``groups``, and ``sizes``: how
        many groups there are of each size. Nothing in it says which combinations they are.
    """
    members = collections.Counter(combination(p, identifiers) for p in participants)
    groups_by_size = collections.Counter(members.values())
    in_small_groups = sum(
        size * groups for size, groups in groups_by_size.items() if size < SMALL_GROUP
    )
    return {
        "identifiers": list(identifiers),
        "personas": len(participants),
        "k": min(groups_by_size, default=0),
        "unique": groups_by_size[1],
        "below_five": in_small_groups,
        "groups": groups_by_size.total(),
        "sizes": {str(size): groups_by_size[size] for size in sorted(groups_by_size)},
    }
