"""Rankings become pairs: which two replies, in which order, and what is counted as left out."""

from __future__ import annotations

import logging
from dataclasses import replace
from fractions import Fraction

import pytest

from jaxmodpo.data.pairs import load_pairs
from jaxmodpo.errors import UserError
from jaxmodpo.rankings import Comparison, LeftOut, pairs_of, two_by_two, without_repeats
from jaxmodpo.records import Candidate, Ranking, write_rankings


def ranking(question: str, *texts: str) -> Ranking:
    return Ranking(
        question, f"text of {question}", tuple(Candidate(f"{question}_{t}", t) for t in texts)
    )


def test_every_two_replies_are_compared_the_widest_gap_first():
    assert two_by_two([10, 3, 3]) == [Comparison(0, 2, 7), Comparison(0, 1, 7), Comparison(1, 2, 0)]
    assert [comparison.is_tie for comparison in two_by_two([10, 3, 3])] == [False, False, True]
    halves = two_by_two([Fraction(1), Fraction(1, 2), Fraction(0)])
    assert [(pair.better, pair.worse) for pair in halves] == [(0, 2), (0, 1), (1, 2)]
    assert two_by_two([]) == two_by_two([1.0]) == []


def test_pairs_of_rankings_are_nested_from_best_worst_to_all():
    ranked = [ranking("q", "a", "b", "c", "d")]

    def texts(per_question) -> list[tuple[str, str]]:
        return [
            (p.chosen.response_text, p.rejected.response_text)
            for p in pairs_of(ranked, per_question)
        ]

    assert texts("best-worst") == texts(1) == [("a", "d")]
    assert texts(3) == [("a", "d"), ("a", "c"), ("b", "d")]
    assert texts("all") == texts(99) and len(texts("all")) == 6
    assert texts("all")[:3] == texts(3)


def test_a_text_that_a_ranking_holds_twice_keeps_its_best_place_and_its_pairs_are_counted():
    left_out = LeftOut()
    plain, twice = ranking("1", "a", "b"), ranking("2", "a", "b", "a", "c", "a")
    tied = replace(ranking("3", "a", "b", "b", "c"), ranks=(1, 1, 3, 4))
    rankings = without_repeats([plain, twice, tied, ranking("4", "a", "a")], left_out)
    assert rankings[0] is plain and [r.question_id for r in rankings] == ["1", "2", "3"]
    assert [[c.response_text for c in r.candidates] for r in rankings[1:]] == [["a", "b", "c"]] * 2
    assert [r.ranks for r in rankings[1:]] == [(1, 2, 3), (1, 1, 3)]
    assert left_out == LeftOut(identical=3 + 1 + 1)


def test_tied_replies_make_no_pair_and_are_counted(tmp_path, caplog):
    """Whatever their order in the file: a pair of ties would be a coin's preference."""

    def made(per_question, *rankings: Ranking) -> tuple[list[tuple[str, str]], LeftOut]:
        counted = LeftOut()
        pairs = pairs_of(rankings, per_question, counted)
        return [(p.chosen.response_text, p.rejected.response_text) for p in pairs], counted

    tied = replace(ranking("q", "a", "b", "c", "d"), ranks=(1, 1, 3, 3))
    assert made("all", tied) == ([("a", "d"), ("a", "c"), ("b", "d"), ("b", "c")], LeftOut(tied=2))
    assert made("best-worst", tied) == ([("a", "d")], LeftOut())
    assert made(2, tied) == ([("a", "d"), ("a", "c")], LeftOut())
    level, other = replace(ranking("p", "x", "y"), ranks=(1, 1)), ranking("r", "z", "z", "w")
    assert made("best-worst", level, tied)[1] == LeftOut(tied=1)
    caplog.set_level(logging.INFO)
    write_rankings(tmp_path / "r.json", [level, other])
    counted = LeftOut()
    assert len(load_pairs(tmp_path / "r.json", "all", counted)) == 2
    assert counted == LeftOut(tied=1, identical=1)
    assert "left out: 1 of tied responses, 1 of responses with the same text" in caplog.text
    with pytest.raises(UserError, match="all their responses are tied"):
        pairs_of([level], "all")
