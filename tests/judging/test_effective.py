"""The effective vote is the same in a database and in columns of numbers, and as the rule is
written out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from some_votes import keys, vote

from jaxmodpo.judging.effective import effective_positions
from jaxmodpo.judging.judge import Status
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.judging.votes import Vote

STATUSES: list[Status] = ["valid", "refusal", "error"]


def effective(votes: Sequence[Vote]) -> list[int]:
    """The rule written out: the newest valid vote under a key, or the newest where none is
    valid.
    """
    positions: dict[str, int] = {}
    for position, one in enumerate(votes):
        earlier = positions.get(one.key)
        if earlier is None or one.status == "valid" or votes[earlier].status != "valid":
            positions[one.key] = position
    return sorted(positions.values())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(STATUSES)), min_size=1, max_size=12)
)
def test_every_form_of_the_rule_names_the_same_votes(tmp_path_factory, drawn):
    votes = [vote(name, status)._replace(call=str(n)) for n, (name, status) in enumerate(drawn)]
    expected = effective(votes)
    names = np.array([["abcd".index(name), 7] for name, _ in drawn])
    positions = effective_positions(names, np.array([status == "valid" for _, status in drawn]))
    assert positions.positions.tolist() == expected
    assert [drawn[n][0] for n in positions.first] == [drawn[n][0] for n in expected]
    assert positions.first.tolist() == [
        next(n for n, one in enumerate(votes) if one.key == votes[e].key) for e in expected
    ]
    with Ledger(tmp_path_factory.mktemp("ledger") / "votes.sqlite") as ledger:
        ledger.add(votes)
        assert list(ledger.every_vote(effective_only=True)) == [votes[n] for n in expected]
        wanted = keys(*"abcd")
        assert ledger.votes(wanted) == {votes[n].key: votes[n] for n in expected}
        assert ledger.statuses(wanted) == {votes[n].key: votes[n].status for n in expected}
