"""Preference pairs from scored answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaxmodpo.data.pairs import load_pairs
from jaxmodpo.data.scored import PairsConfig, pairs
from jaxmodpo.errors import UserError
from jaxmodpo.files import write_table

COLUMNS = ["questionText", "answerText", "upvotes"]


def scored(folder: Path, *rows: tuple[str, str, str]) -> Path:
    write_table(
        folder / "answers.csv", [dict(zip(COLUMNS, row, strict=True)) for row in rows], COLUMNS
    )
    return folder / "answers.csv"


def made(folder: Path, file: Path, **settings) -> list[tuple[str, str, str]]:
    pairs(PairsConfig(input=file, output_dir=folder / "out", **settings))
    return [
        (p.question_text, p.chosen.response_text, p.rejected.response_text)
        for p in load_pairs(folder / "out" / "upvotes_pairs.json")
    ]


ROWS = [
    ("q", "best", "5"),
    ("q", "good", "2"),
    ("q", "fair", "2"),
    ("q", "worst", "0"),
    ("alone", "only", "9"),
]


def test_answers_are_paired_where_scores_differ_widest_gap_first(tmp_path):
    preferred = made(tmp_path, scored(tmp_path, *ROWS), most_per_question=0)
    assert preferred[0] == ("q", "best", "worst")
    chosen = {(c, r) for _, c, r in preferred}
    assert chosen == {
        ("best", "worst"), ("best", "good"), ("best", "fair"), ("good", "worst"), ("fair", "worst"),
    }  # fmt: skip


def test_the_order_of_rows_does_not_matter_and_pairs_are_limited(tmp_path):
    (tmp_path / "turned").mkdir()
    first = made(tmp_path, scored(tmp_path, *ROWS), most_per_question=3)
    second = made(
        tmp_path / "turned", scored(tmp_path / "turned", *ROWS[::-1]), most_per_question=3
    )
    assert first == second and len(first) == 3


@pytest.mark.parametrize(
    ("rows", "settings", "said"),
    [
        ([("q", "a", "many")], {}, "record 2: upvotes is no number: 'many'"),
        ([("q", "a", "1"), ("q", "b", "1")], {}, "no question has two answers"),
        ([("q", "a", "1"), ("q", "b", "2")], {"score": "likes"}, "lacks the column likes"),
        (
            [("q", "a", "1"), ("q", "b", "2")],
            {"least_gap": 0.0},
            "--least-gap must be above 0, not 0",
        ),
    ],
)
def test_what_gives_no_pairs_is_refused(tmp_path, rows, settings, said):
    with pytest.raises(UserError, match=said):
        made(tmp_path, scored(tmp_path, *rows), **settings)
