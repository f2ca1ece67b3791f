"""Votes that somebody else collected: the authors' folders and files of rows, counted anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jaxmodpo.errors import UserError
from jaxmodpo.evaluation.collected import COLLECTED
from jaxmodpo.evaluation.head_to_head import EvaluateConfig, evaluate
from jaxmodpo.files import read_table, write_json
from jaxmodpo.results.evaluation import EvaluationResults
from jaxmodpo.results.versioned import read_result


def authors_folder(folder: Path, votes: list[tuple[int, int]], name: str = "x_vs_y") -> Path:
    rows = [
        {"question_id": n, "question": "q", "winner": "x", "model1_votes": a, "model2_votes": b}
        for n, (a, b) in enumerate(votes)
    ]
    write_json(folder / name / "empathy_results.json", rows)
    return folder / name


def row(question: int, a: str, b: str, votes_a: int, votes_b: int, **more: Any) -> dict[str, Any]:
    head = {"criterion": "empathy", "a": a, "b": b, "question_id": f"q{question}"}
    return head | {"votes_a": votes_a, "votes_b": votes_b} | more


def counted(folder: Path, *votes: Path) -> EvaluationResults:
    evaluate(EvaluateConfig(votes=votes, output_dir=folder / "out", bootstrap=50))
    return read_result(folder / "out" / "results.json", EvaluationResults)


def test_the_authors_folder_is_counted_by_its_votes_and_not_by_its_winners(tmp_path):
    folder = authors_folder(tmp_path, [(30, 20), (10, 40), (25, 25), (0, 0), (50, 0)])
    results = counted(tmp_path, folder)
    # Two wins and a tie of four questions; the one without a vote counts nowhere.
    assert results.models["x"]["empathy"] == 2.5 / 4
    assert (results.questions, results.questions_judged) == (5, 4)
    assert (results.counts.valid, results.counts.units_tied) == (200, 1)
    (test,) = results.tests["empathy"]
    assert (test.wins, test.losses, test.ties) == (2, 1, 1)
    assert results.note == COLLECTED
    outcomes = read_table(tmp_path / "out" / "outcomes.csv", ["outcome"])
    assert [line["outcome"] for line in outcomes] == ["1.0", "0.0", "0.5", "", "1.0"]


def test_names_come_from_the_summary_where_there_is_one(tmp_path):
    folder = authors_folder(tmp_path, [(3, 2), (1, 4)], name="a_vs_b_vs_c")
    with pytest.raises(UserError, match=r"a_vs_b_vs_c names no two models"):
        counted(tmp_path, folder)
    write_json(folder / "summary_stats.json", {"model1": "a_vs_b", "model2": "c"})
    assert list(counted(tmp_path, folder).models) == ["a_vs_b", "c"]


def test_rows_of_one_file_of_three_models(tmp_path):
    rows = [row(n, a, b, 3, n) for n in range(5) for a, b in ("xy", "xz", "yz")]
    write_json(tmp_path / "r.json", rows)
    results = counted(tmp_path, tmp_path / "r.json")
    # Three questions are won, the fourth is a tie and the fifth is lost.
    assert results.pairwise["empathy"]["x"]["y"] == 3.5 / 5
    assert list(results.models) == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], "no votes in"),
        ([row(0, "x", "y", 1, 2), row(0, "y", "x", 1, 2)], "item 2: the votes on y and x for"),
        ([row(0, "x", "x", 1, 2)], "item 1: x is compared with itself"),
        ([row(0, "x", "y", -1, 2)], "item 1"),
        ([row(0, "x", "y", 1, 2) | {"question_id": ""}], "item 1: an id must be"),
        ([{"a": "x"}], "item 1 lacks"),
    ],
)
def test_wrong_rows_are_refused_by_file_and_row(tmp_path, rows, sentence):
    write_json(tmp_path / "r.json", rows)
    with pytest.raises(UserError) as refused:
        counted(tmp_path, tmp_path / "r.json")
    assert sentence in str(refused.value) and "r.json" in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "evaluate needs --judge, --responses and --personas, or --votes"),
        ({"votes": (Path("v"),), "judge": "rubric"}, "give no --judge"),
    ],
)
def test_votes_and_a_judge_exclude_each_other(tmp_path, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        evaluate(EvaluateConfig(output_dir=tmp_path / "out", **settings))
