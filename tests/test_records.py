"""Records survive being written and read, and what is none is refused by name."""

from __future__ import annotations

import pytest

from jaxmodpo.data.pairs import load_pairs
from jaxmodpo.errors import UserError
from jaxmodpo.files import (
    read_json,
    write_json,
)
from jaxmodpo.records import (
    Candidate,
    Pair,
    Question,
    Ranking,
    Response,
    identifier,
    read_personas,
    read_questions,
    read_rankings,
    read_responses,
    write_pairs,
    write_questions,
    write_rankings,
    write_responses,
)

AWKWARD = "He said: \"no, \n never\" – and 'left'; 100% über 😀"


def test_records_survive_quotes_newlines_and_other_alphabets(tmp_path):
    questions = [Question("1", AWKWARD), Question("2", "plain")]
    write_questions(tmp_path / "q.csv", questions)
    assert read_questions(tmp_path / "q.csv") == questions
    for model in ("", "base"):
        responses = [
            Response("1", AWKWARD, "r1", AWKWARD, model),
            Response("1", AWKWARD, "r2", "", model),
        ]
        write_responses(tmp_path / "r.csv", responses)
        assert read_responses(tmp_path / "r.csv") == responses
    pairs = [Pair("1", AWKWARD, Candidate("a", AWKWARD), Candidate("b", "no"))]
    write_pairs(tmp_path / "p.json", pairs)
    assert load_pairs(tmp_path / "p.json") == pairs
    rankings = [Ranking("1", AWKWARD, (Candidate("b", "x"), Candidate("a", AWKWARD)))]
    write_rankings(tmp_path / "k.json", rankings)
    assert read_rankings(tmp_path / "k.json") == rankings


def test_ties_keep_their_shared_rank_in_a_file_of_rankings(tmp_path):
    texts = tuple(Candidate(name, name) for name in "abcd")
    rankings = [
        Ranking("1", "q", texts, (1, 1, 3, 3)),
        Ranking("2", "q", texts),
        Ranking("3", "q", texts, (1,) * 4),
    ]
    write_rankings(tmp_path / "k.json", rankings)
    assert [[c["rank"] for c in row["ranking"]] for row in read_json(tmp_path / "k.json")] == [
        [1, 1, 3, 3], [1, 2, 3, 4], [1, 1, 1, 1],
    ]  # fmt: skip
    assert read_rankings(tmp_path / "k.json") == rankings
    assert [r.all_tied for r in rankings] == [False, False, True]


@pytest.mark.parametrize(
    ("given", "ranks"), [((0, 0, 1), (1, 1, 3)), ((2, 1, 2), (1, 2, 2)), ((1.5, 1.5, 3), (1, 1, 3))]
)
def test_ranks_counted_in_another_way_are_read_as_places(tmp_path, given, ranks):
    ranking = [
        {"rank": rank, "response_id": str(n), "response_text": "x"} for n, rank in enumerate(given)
    ]
    write_json(
        tmp_path / "k.json", [{"question_id": "1", "question_text": "q", "ranking": ranking}]
    )
    assert read_rankings(tmp_path / "k.json")[0].ranks == ranks
    ranking[1]["rank"] = "second"
    write_json(
        tmp_path / "k.json", [{"question_id": "1", "question_text": "q", "ranking": ranking}]
    )
    with pytest.raises(
        UserError, match=r"ranking 1, reply 2: the rank must be a number, not 'second'"
    ):
        read_rankings(tmp_path / "k.json")


@pytest.mark.parametrize("content", ["[]", "{}", '{"a": ""}', '{"a": 1}', "{"])
def test_personas_must_have_texts(tmp_path, content):
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(UserError, match=r"p\.json"):
        read_personas(tmp_path / "p.json")


def test_ids_keep_their_text_and_whole_floats_lose_their_point():
    """A column of whole numbers with a gap becomes one of floats in pandas, and 12 becomes 12.0."""
    for value, text in ((12, "12"), (12.0, "12"), ("012", "012"), ("12.0", "12.0"), (-3.0, "-3")):
        assert identifier(value, "f, row 1") == text
    for value in (None, "", " ", True, 1.5, 2.0**60, float("nan"), ["a"]):
        with pytest.raises(UserError, match="f, row 1: an id must be"):
            identifier(value, "f, row 1")


def test_an_id_twice_in_rankings_is_refused(tmp_path):
    row = {"question_id": "1", "question_text": "q", "ranking": [
        {"rank": 1, "response_id": "a", "response_text": "x"}, {"rank": 2, "response_id": "a", "response_text": "y"},
    ]}  # fmt: skip
    write_json(tmp_path / "k.json", [row])
    with pytest.raises(
        UserError, match="ranking 1: the response_id a stands for two different replies"
    ):
        read_rankings(tmp_path / "k.json")
    row["ranking"][1]["response_id"] = "b"
    write_json(tmp_path / "k.json", [row, row])
    with pytest.raises(UserError, match="the question_id 1 stands there twice"):
        read_rankings(tmp_path / "k.json")


def test_a_persona_twice_is_refused_by_name(tmp_path):
    (tmp_path / "p.json").write_text('{"p1": "One.", "p2": "Two.", "p1": "Three."}')
    with pytest.raises(UserError, match=r"p\.json is not valid JSON: the key 'p1' stands twice"):
        read_personas(tmp_path / "p.json")


def test_replies_without_an_id_are_numbered_within_their_question(tmp_path):
    path = tmp_path / "authors.csv"
    path.write_text("question_id,question_text,response_text\nq1,a,x\nq2,b,y\nq1,a,z\n")
    ids = [(reply.response_id, reply.response_text) for reply in read_responses(path)]
    assert ids == [("q1_0", "x"), ("q2_0", "y"), ("q1_1", "z")]
