"""Files that are whole or absent, and folders that know what made them."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmodpo.data.pairs import load_pairs
from jaxmodpo.errors import UserError
from jaxmodpo.files import (
    atomic_directory,
    check_writable,
    private_database,
    read_json,
    read_table,
    write_json,
    write_table,
    write_text,
)
from jaxmodpo.fingerprints import fingerprint
from jaxmodpo.phase import Phase
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


@dataclass(frozen=True)
class Settings:
    output_dir: Path
    steps: int = 3
    api_key_env: str = "KEY"


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    with pytest.raises(RuntimeError), atomic_directory(tmp_path / "folder") as temporary:
        write_text(temporary / "half", "half")
        raise RuntimeError
    assert read_json(tmp_path / "a.json") == {"x": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_replaced_folder_keeps_nothing_of_the_old_one(tmp_path):
    for name in ("old", "new"):
        with atomic_directory(tmp_path / "folder") as temporary:
            write_text(temporary / name, name)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["new"]


def test_half_of_a_surrogate_pair_is_refused_where_it_is_read(tmp_path):
    """Python's JSON lets it in; hashing, databases and UTF-8 files do not let it out."""
    file = tmp_path / "personas.json"
    for text, whole in (
        (r"sad \ud83d\ude22", True),
        (r"\\ud83d is its code", True),
        (r"sad \ud83d", False),
    ):
        file.write_text(f'{{"p": "{text}"}}')
        if whole:
            assert len(read_personas(file)) == 1
        else:
            with pytest.raises(
                UserError, match=r"personas\.json is not valid JSON: .*surrogate pair \('\\ud83d'\)"
            ):
                read_personas(file)


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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "lacks the column question_id, question_text; it is empty"),
        (
            b"question_id,text\n1,a\n",
            "lacks the column question_text; its columns are question_id, text",
        ),
        (b"question_id,question_text\n", "a header but no rows"),
        (b"question_id,question_text\n1,a\n1,b\n", "the question_id 1 stands there twice"),
        (b"question_id,question_text\n1,\xe9\n", "not UTF-8"),
        (b"question_id,question_text\n1,a,b\n", "line 2: not 2 fields"),
        (
            b"question_id,question_text,question_text\n1,a,b\n",
            "'question_text' stands there twice, as the columns 2 and 3",
        ),
        (
            b"question_id,question_text,Question_Text \n1,a,b\n",
            "'question_text' stands there twice",
        ),
        (b"question_id;question_text\n1;a\n", "save it with commas between the fields, not ';'"),
        (
            b"question_id,question_text\n1,\"[{'role': 'user', 'content': 'a'}]\"\n",
            "row 1, question_text: a list of messages",
        ),
    ],
)
def test_a_broken_table_is_described_in_one_sentence(tmp_path, content, message):
    (tmp_path / "q.csv").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_questions(tmp_path / "q.csv")
    assert "q.csv" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["[]", "{}", '{"a": ""}', '{"a": 1}', "{"])
def test_personas_must_have_texts(tmp_path, content):
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(UserError, match=r"p\.json"):
        read_personas(tmp_path / "p.json")


def test_a_fingerprint_follows_content_and_names_but_no_manifest(tmp_path):
    write_text(tmp_path / "d" / "a", "1")
    first = fingerprint(tmp_path / "d")
    write_text(tmp_path / "d" / "manifest.json", "{}")
    assert fingerprint(tmp_path / "d") == first
    write_text(tmp_path / "d" / "a", "2")
    second = fingerprint(tmp_path / "d")
    (tmp_path / "d" / "a").rename(tmp_path / "d" / "b")
    assert len({first, second, fingerprint(tmp_path / "d")}) == 3
    with pytest.raises(UserError, match="nowhere"):
        fingerprint(tmp_path / "nowhere")


def test_a_phase_is_skipped_when_finished_resumed_when_not_and_refused_when_different(tmp_path):
    write_text(tmp_path / "input", "1")
    inputs = {"pairs": tmp_path / "input"}
    out = tmp_path / "out"

    def opened(command: str = "align", **changes) -> Phase:
        return Phase.open(command, Settings(out, **changes), out, inputs)

    phase = opened()
    assert not phase.finished and read_json(out / "manifest.json")["status"] == "running"
    assert not opened(api_key_env="OTHER").finished
    # A start that made nothing claims no folder: settings may still be mended.
    assert not opened(steps=4).finished and not opened().finished
    write_text(out / "adapter", "weights")
    with pytest.raises(UserError, match="steps was 3, is 4"):
        opened(steps=4)
    phase.finish(pairs=7)
    manifest = read_json(out / "manifest.json")
    assert manifest["status"] == "finished" and manifest["results"] == {"pairs": 7}
    assert opened().finished and opened().results == {"pairs": 7}
    with pytest.raises(UserError, match="steps was 3, is 4"):
        opened(steps=4)
    with pytest.raises(UserError, match="command"):
        opened("reward")
    write_text(tmp_path / "input", "2")
    with pytest.raises(UserError, match="the input pairs has changed"):
        opened()


def test_what_became_of_a_phase_is_said_even_where_a_finished_one_goes_on(tmp_path):
    """A search with more trials, say, finishes a second time."""
    settings = Settings(tmp_path / "out")
    phase = Phase.open("x", settings, settings.output_dir, {})
    assert phase.ending == ""
    phase.finish()
    assert phase.ending == f"finished: {settings.output_dir}"
    again = Phase.open("x", settings, settings.output_dir, {})
    assert again.ending == f"{settings.output_dir} was finished before; there is nothing to do"
    again.finish()
    assert again.ending == f"finished: {settings.output_dir}"
    follower = Phase(settings.output_dir, again.manifest, False, writes=False)
    follower.finish()
    assert follower.ending == ""


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.text(), st.text(st.sampled_from("a\r\n\"',; \x00\u2028\x85\x0b\ud83d"))),
        min_size=1,
    )
)
def test_every_table_that_is_written_can_be_read(tmp_path_factory, cells):
    """Python before 3.11.9 leaves a bare carriage return without quotes; half of a surrogate pair
    is no UTF-8.
    """
    path = tmp_path_factory.mktemp("t") / "t.csv"
    write_table(path, [{"one": a, "two": b} for a, b in cells], ["one", "two"])
    whole = [[re.sub("[\ud800-\udfff]", "\ufffd", text) for text in row] for row in cells]
    assert [[row["one"], row["two"]] for row in read_table(path, ["one"])] == whole


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


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_database_and_what_sqlite_keeps_beside_it_are_their_owners_alone(tmp_path):
    path = tmp_path / "votes.sqlite"
    for _ in range(2):
        private_database(path)
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("CREATE TABLE IF NOT EXISTS words (said TEXT)")
            database.commit()
            beside = [tmp_path / f"votes.sqlite{ending}" for ending in ("", "-wal", "-shm")]
            assert [mode(file) for file in beside] == [0o600] * 3
            for file in beside:
                file.chmod(0o644)  # as an earlier version left them
            private_database(path)
            assert [mode(file) for file in beside] == [0o600] * 3
        path.chmod(0o644)
    path.chmod(0o660)
    private_database(path)
    assert mode(path) == 0o660, "shared with a group on purpose"


@pytest.mark.parametrize("name", ["votes.sqlite", "votes.sqlite-wal"])
def test_no_database_is_made_through_a_link(tmp_path, name):
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to(elsewhere)
    with pytest.raises(
        UserError, match=rf"{name} is a link, and nothing is written through one; remove it"
    ):
        private_database(tmp_path / "out" / "votes.sqlite")
    assert not elsewhere.exists()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("folder", "folder: it is a folder; name a file"),
        ("folder/..", "folder/..: it is a folder; name a file"),
        ("file/rows.jsonl", "file/rows.jsonl: File exists"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path, name, told):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"^cannot write to .*{re.escape(told)}$"):
        check_writable(tmp_path / name)
    check_writable(tmp_path / "new" / "rows.jsonl")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_csv_file_without_a_header_is_empty(tmp_path):
    path = tmp_path / "survey.csv"
    for content, told in [("", "is empty"), ("a,b\n", "has a header but no rows")]:
        path.write_text(content)
        with pytest.raises(UserError, match=f"^{re.escape(str(path))} {told}$"):
            read_table(path, ())


def test_json_in_another_encoding_is_refused_in_words(tmp_path):
    path = tmp_path / "personas.json"
    path.write_bytes('{"a": 1}'.encode("utf-16"))
    with pytest.raises(
        UserError, match=r"personas.json is not UTF-8 text \(byte 0\); save it as UTF-8$"
    ):
        read_json(path)


def test_a_refused_folder_says_of_an_input_whether_it_is_new_or_left_out(tmp_path):
    """A report on one more run, say."""
    settings = Settings(tmp_path / "out")
    files = {name: tmp_path / name for name in ("first", "second")}
    for name, path in files.items():
        write_text(path, name)
    Phase.open("report", settings, settings.output_dir, {"first": files["first"]}).finish()
    with pytest.raises(UserError, match="the input second is new"):
        Phase.open("report", settings, settings.output_dir, files)
    with pytest.raises(UserError, match="the input first is left out"):
        Phase.open("report", settings, settings.output_dir, {})
