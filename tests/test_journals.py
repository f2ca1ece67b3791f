"""Journals: what a kill leaves of them, and what is no journal."""

from __future__ import annotations

import pytest

from jaxmodpo.errors import UserError
from jaxmodpo.journals import Journal, rows_so_far


def test_a_journal_drops_a_torn_last_line_and_goes_on(tmp_path):
    path = tmp_path / "votes.jsonl"
    journal = Journal(path)
    journal.append({"n": 1}, {"n": 2})
    journal.close()
    path.write_bytes(path.read_bytes() + b'{"n": 3, "te')
    journal = Journal(path)
    assert journal.rows == [{"n": 1}, {"n": 2}]
    journal.append({"n": 4})
    journal.replace(journal.rows[:2])
    journal.append({"n": 5})
    journal.close()
    assert [row["n"] for row in Journal(path).rows] == [1, 2, 5]
    path.write_bytes(b'not json\n{"n": 1}\n')
    with pytest.raises(UserError, match="line 1: not JSON"):
        Journal(path)
    path.write_bytes(b'{"n": 1}\n[2]\n')
    with pytest.raises(UserError, match="line 2: not a JSON object"):
        Journal(path)


def test_a_journal_that_another_process_writes_to_is_read_and_left_as_it_is(tmp_path):
    path = tmp_path / "work.jsonl"
    path.write_bytes(b'{"row": 1}\n{"row": 2}\n{"ro')
    assert rows_so_far(path) == [{"row": 1}, {"row": 2}]
    assert path.read_bytes().endswith(b'{"ro')
