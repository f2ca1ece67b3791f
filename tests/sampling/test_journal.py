"""A reply in a journal belongs to its question by name, not by its place in the file."""

from __future__ import annotations

from jaxmodpo.journals import Journal
from jaxmodpo.records import Question
from jaxmodpo.sampling.journal import PlannedReply, row, sampled


def test_rows_that_moved_doubled_or_went_missing_change_no_other_reply(tmp_path):
    questions = [Question(f"q{n}", "text") for n in range(3)]
    journal = Journal(tmp_path / "sampled.jsonl")
    rows = [
        row(PlannedReply(q, n), "now")
        | {"response_text": f"{q.question_id}/{n}", "finish_reason": "end"}
        for q in questions
        for n in range(2)
    ]
    other_settings = row(PlannedReply(questions[0], 0), "before") | {
        "response_text": "of other settings",
        "finish_reason": "end",
    }
    journal.append(rows[3], other_settings, rows[0], rows[3], *rows[4:])
    journal.close()
    have = sampled(Journal(tmp_path / "sampled.jsonl"), "now")
    assert {key: entry["response_text"] for key, entry in have.items()} == {
        PlannedReply(q, n).key: f"{q.question_id}/{n}"
        for q in questions
        for n in range(2)
        if (q.question_id, n) not in {("q0", 1), ("q1", 0)}
    }
