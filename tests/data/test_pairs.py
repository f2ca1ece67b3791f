"""Every layout of preference pairs reads as the same pairs, and a bad row is named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pandas
import pyarrow as pa
import pytest
from pyarrow import parquet

from jaxmodpo.data.pairs import count_rows, load_column, load_pairs, load_rankings
from jaxmodpo.errors import UserError
from jaxmodpo.files import write_jsonl
from jaxmodpo.records import Candidate, Pair, Ranking, write_pairs, write_rankings

TEXTS = [("Why, though?", "Because.", "No idea."), ("Zwei\nZeilen", "gut", "schlecht")]
ROWS: list[dict[str, Any]] = [
    dict(zip(("prompt", "chosen", "rejected"), texts, strict=True)) for texts in TEXTS
]


def messages(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]


def lines(path: Path, rows: list[Any]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def texts(pairs: list[Pair]) -> list[tuple[str, str, str]]:
    return [(p.question_text, p.chosen.response_text, p.rejected.response_text) for p in pairs]


def saved(folder: Path, kind: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / f"pairs.{kind}"
    if kind == "json":
        path.write_text(json.dumps(rows))
    elif kind.startswith("jsonl"):
        lines(path, rows)
    elif kind == "csv":
        pandas.DataFrame(rows).to_csv(path, index=False)
    elif kind == "parquet":
        pandas.DataFrame(rows).to_parquet(path)
    else:
        import datasets

        datasets.Dataset.from_list(rows).save_to_disk(str(path))
    return path


@pytest.mark.parametrize("kind", ["json", "jsonl", "jsonl.gz", "csv", "parquet", "folder"])
def test_plain_prompts_read_alike_from_every_kind_of_file(tmp_path, kind):
    assert texts(load_pairs(saved(tmp_path, kind, ROWS))) == TEXTS


@pytest.mark.parametrize("kind", ["json", "jsonl", "parquet", "folder"])
def test_conversations_read_as_their_plain_texts_with_and_without_a_prompt(tmp_path, kind):
    explicit = [
        {
            "prompt": messages(p),
            "chosen": [{"role": "assistant", "content": c}],
            "rejected": [{"role": "assistant", "content": r}],
        }
        for p, c, r in TEXTS
    ]
    implicit = [{"chosen": messages(p, c), "rejected": messages(p, r)} for p, c, r in TEXTS]
    (tmp_path / "explicit").mkdir()
    assert texts(load_pairs(saved(tmp_path / "explicit", kind, explicit))) == TEXTS
    assert texts(load_pairs(saved(tmp_path, kind, implicit))) == TEXTS


def test_the_authors_pairs_keep_their_ids(tmp_path):
    pairs = [Pair("q7", "why", Candidate("a", "one"), Candidate("b", "two"))]
    write_pairs(tmp_path / "empathy_pairs.json", pairs)
    assert load_pairs(tmp_path / "empathy_pairs.json") == pairs
    rows = json.loads((tmp_path / "empathy_pairs.json").read_text())
    assert load_pairs(lines(tmp_path / "p.jsonl", rows)) == pairs


def test_ids_in_flattened_columns_are_taken_even_a_zero(tmp_path):
    row = ROWS[0] | {"question_id": 0, "chosen_response_id": "r1", "rejected_response_id": 2}
    pair = load_pairs(lines(tmp_path / "p.jsonl", [row]))[0]
    assert (pair.question_id, pair.chosen.response_id, pair.rejected.response_id) == (
        "0",
        "r1",
        "2",
    )


def test_made_ids_follow_the_texts_not_the_row_or_the_file(tmp_path):
    again = ROWS[0] | {"rejected": "third"}
    first, _, third = load_pairs(lines(tmp_path / "p.jsonl", [*ROWS, again]))
    assert first.question_id == third.question_id and first.chosen == third.chosen
    assert first.rejected.response_id != third.rejected.response_id
    assert load_pairs(saved(tmp_path, "csv", ROWS))[0] == first


def test_a_prompt_of_several_turns_becomes_lines_with_the_speaker(tmp_path):
    row = {"chosen": messages("a", "b", "c", "d"), "rejected": messages("a", "b", "c", "e")}
    assert texts(load_pairs(lines(tmp_path / "p.jsonl", [row]))) == [
        ("User: a\nAssistant: b\nUser: c", "d", "e")
    ]


def test_conversations_that_part_early_keep_their_later_turns_in_the_response(tmp_path):
    row = {"chosen": messages("a", "b", "c", "d"), "rejected": messages("a", "x")}
    assert texts(load_pairs(lines(tmp_path / "p.jsonl", [row]))) == [
        ("a", "Assistant: b\nUser: c\nAssistant: d", "x")
    ]


@pytest.mark.parametrize(
    ("row", "several"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, False),
        ({"chosen": messages("a", "b"), "rejected": messages("a", "c")}, False),
        ({"chosen": messages("a", "b", "c", "d"), "rejected": messages("a", "b", "c", "e")}, True),
        ({"chosen": messages("a", "b", "c", "d"), "rejected": messages("a", "x")}, True),
        ({"prompt": messages("a", "b", "c"), "chosen": "d", "rejected": "e"}, True),
        ({"prompt": [{"role": "system", "content": "a"}], "chosen": "d", "rejected": "e"}, True),
    ],
)
def test_a_conversation_of_several_messages_is_known_as_one_and_its_file_holds_the_text_alone(
    tmp_path, row, several
):
    pairs = load_pairs(lines(tmp_path / "p.jsonl", [row]))
    assert [pair.conversation for pair in pairs] == [several]
    write_pairs(tmp_path / "pairs.json", pairs)
    assert "conversation" not in json.loads((tmp_path / "pairs.json").read_text())[0]


def test_a_transcript_splits_at_speakers_and_keeps_blank_lines_inside_a_turn(tmp_path):
    start = "\n\nHuman: first\n\nAssistant: reply\n\nHuman: second\n\npart\n\nAssistant:"
    row = {"chosen": f"{start} good\n\nindeed", "rejected": f"{start} bad"}
    prompt = "User: first\nAssistant: reply\nUser: second\n\npart"
    assert texts(load_pairs(lines(tmp_path / "p.jsonl.gz", [row]))) == [
        (prompt, "good\n\nindeed", "bad")
    ]


def test_transcripts_with_equal_replies_are_left_out_and_counted(tmp_path, caplog):
    start = "\n\nHuman: hi\n\nAssistant:"
    rows = [
        {"chosen": f"{start} same", "rejected": f"{start} same"},
        {"chosen": f"{start} a", "rejected": f"{start} b"},
    ]
    assert texts(load_pairs(lines(tmp_path / "p.jsonl", rows))) == [("hi", "a", "b")]
    assert "1 rows with equal responses left out" in caplog.text
    with pytest.raises(UserError, match="holds no preference pairs"):
        load_pairs(lines(tmp_path / "p.jsonl", rows[:1]))


def test_the_real_harmless_test_set_reads_whole_as_its_last_turns(caplog, real_data):
    harmless = real_data("hh-rlhf/harmless-base-test.jsonl.gz")
    pairs = load_pairs(harmless)
    assert len(pairs) == 2312 and not caplog.text
    mark, alike = "\n\nAssistant:", 0
    with gzip.open(harmless, "rt", encoding="utf-8") as file:
        for pair, row in zip(pairs, map(json.loads, file), strict=True):
            (start, _, better), (other_start, _, worse) = (
                row[side].rpartition(mark) for side in ("chosen", "rejected")
            )
            if start == other_start:
                alike += 1
                assert (pair.chosen.response_text, pair.rejected.response_text) == (
                    better.strip(),
                    worse.strip(),
                )
    assert alike == 2307


@pytest.mark.parametrize("field", ["prompt", "chosen", "rejected"])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_missing_field_is_named_with_file_and_row(tmp_path, field, kind):
    broken = {**ROWS[1], field: "" if kind == "csv" else None}
    with pytest.raises(UserError, match=rf"pairs\.{kind}, row 2: the field {field} is missing"):
        load_pairs(saved(tmp_path, kind, [ROWS[0], broken]))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROWS[1] | {"chosen": "schlecht"}, "same text"),
        (
            {
                "question_id": "1",
                "question_text": "q",
                "chosen": {"response_id": "a", "response_text": "x"},
            },
            "rejected",
        ),
        (
            {
                "question_id": "1",
                "question_text": "q",
                "chosen": {"response_id": "a", "response_text": "x"},
                "rejected": {"response_id": "b", "response_text": "x"},
            },
            "same text",
        ),
        (
            {
                "question_id": "1",
                "question_text": "q",
                "chosen": {"response_id": "a", "response_text": None},
                "rejected": {"response_id": "b", "response_text": "x"},
            },
            "must be a text, not None",
        ),
        (ROWS[0] | {"chosen": 5}, "list of messages"),
        (ROWS[0] | {"chosen": [{"role": "assistant"}]}, "list of messages"),
        (ROWS[0] | {"chosen": messages("a", "b")}, "one message each"),
        (
            {"chosen": messages("a", "b"), "rejected": messages("c", "d")},
            "begin with the same message",
        ),
        ("text", "not a mapping"),
    ],
)
def test_a_bad_row_is_named_with_file_and_row(tmp_path, row, message):
    with pytest.raises(UserError, match=rf"p\.jsonl, row 2[:,] .*{message}"):
        load_pairs(lines(tmp_path / "p.jsonl", [ROWS[0], row]))


def test_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "torn.jsonl").write_text('{"prompt": ')
    (tmp_path / "half.jsonl").write_text(r'{"prompt": "a\ud83d", "chosen": "b", "rejected": "c"}')
    cut = lines(tmp_path / "cut.jsonl.gz", ROWS)
    cut.write_bytes(cut.read_bytes()[:-12])
    (tmp_path / "not.parquet").write_text("no")
    (tmp_path / "object.json").write_text("{}")
    (tmp_path / "pairs.txt").write_text("x")
    (tmp_path / "folder").mkdir()
    for name, message in {
        "torn.jsonl": "row 1: not JSON",
        "half.jsonl": "row 1: not JSON: it holds half of a surrogate pair",
        "cut.jsonl.gz": "cannot read",
        "not.parquet": "cannot be read",
        "object.json": "must hold a list",
        "pairs.txt": "are read from",
        "folder": "save_to_disk",
        "absent.json": "no such file",
    }.items():
        with pytest.raises(UserError, match=message) as error:
            load_pairs(tmp_path / name)
        assert name in str(error.value)


def test_a_folder_of_several_splits_asks_for_one(tmp_path):
    import datasets

    dataset = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"train": dataset, "test": dataset}).save_to_disk(str(tmp_path / "both"))
    with pytest.raises(UserError, match="train, test"):
        load_pairs(tmp_path / "both")
    assert texts(load_pairs(tmp_path / "both" / "train")) == TEXTS


# --------------------------------------------------------------------------- rankings


def ranking(question: str, *texts: str) -> Ranking:
    return Ranking(
        question, f"text of {question}", tuple(Candidate(f"{question}_{t}", t) for t in texts)
    )


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "dataset_info.json").write_text("[]"), "AttributeError"),
        (lambda folder: (folder / "state.json").write_text("{}"), "KeyError: '_data_files'"),
        (lambda folder: _halve(next(folder.glob("*.arrow"))), "OSError"),
    ],
)
def test_a_damaged_folder_of_datasets_is_refused_in_a_sentence(tmp_path, spoil, said):
    folder = saved(tmp_path, "folder", ROWS * 50)
    spoil(folder)
    with pytest.raises(
        UserError, match=rf"pairs.folder is damaged and cannot be read \({said}.*; write it again"
    ):
        load_pairs(folder)


def _halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_parquet_column_that_python_cannot_hold_is_refused_in_a_sentence(tmp_path):
    columns = {name: pa.array([row[name] for row in ROWS]) for name in ROWS[0]}
    fields = [pa.field("content", pa.string())] * 2
    twice = pa.StructArray.from_arrays([pa.array(["x", "y"])] * 2, fields=fields)
    late = pa.array([2**62] * 2, pa.timestamp("ms"))
    for name, column, message in (
        ("twice", twice, "duplicate field names"),
        ("late", late, "too large to convert"),
    ):
        parquet.write_table(pa.table(columns | {"more": column}), tmp_path / f"{name}.parquet")
        with pytest.raises(
            UserError, match=rf"{name}.parquet holds what Python cannot: .*{message}"
        ):
            load_pairs(tmp_path / f"{name}.parquet")


def test_a_number_beside_pairs_that_no_float_holds_is_refused(tmp_path):
    path = lines(tmp_path / "p.jsonl", [ROWS[0] | {"margin": 10**400}])
    with pytest.raises(
        UserError, match=r"row 1: the column 'margin' holds no finite number: 10{59}$"
    ):
        load_column(path, "margin", load_pairs(path))


@pytest.mark.parametrize("kind", ["json", "jsonl", "jsonl.gz", "csv", "parquet", "folder"])
def test_rows_of_every_kind_of_file_are_counted(tmp_path, kind):
    assert count_rows(saved(tmp_path, kind, ROWS)) == len(ROWS)


def test_a_file_of_rankings_is_read_as_pairs_and_a_file_of_pairs_takes_no_number(tmp_path):
    write_rankings(tmp_path / "r.json", [ranking("q", "a", "b", "c"), ranking("p", "x", "x", "y")])
    assert len(load_pairs(tmp_path / "r.json")) == 2
    pairs = load_pairs(tmp_path / "r.json", "all")
    assert len(pairs) == 5, "two responses of one text make no pair"
    write_pairs(tmp_path / "p.json", pairs)
    assert load_pairs(tmp_path / "p.json") == pairs
    with pytest.raises(
        UserError, match=r"--pairs-per-question 2 needs rankings.*p.json holds pairs"
    ):
        load_pairs(tmp_path / "p.json", 2)
    with pytest.raises(UserError, match="at least 1, not 0"):
        load_pairs(tmp_path / "r.json", 0)
    with pytest.raises(UserError, match="holds no rankings"):
        load_rankings(tmp_path / "p.json")


def test_a_column_beside_the_pairs_is_read_in_their_order(tmp_path):
    rows = [{"prompt": f"p{n}", "chosen": "a", "rejected": "b", "margin": n / 2} for n in range(3)]
    write_jsonl(tmp_path / "p.jsonl", rows)
    pairs = load_pairs(tmp_path / "p.jsonl")
    assert load_column(tmp_path / "p.jsonl", "margin", pairs).tolist() == [0.0, 0.5, 1.0]
    with pytest.raises(
        UserError, match=r"row 1: the column 'margins' holds no finite number: it is missing"
    ):
        load_column(tmp_path / "p.jsonl", "margins", pairs)
    write_jsonl(tmp_path / "bad.jsonl", [*rows, rows[0] | {"margin": "inf"}])
    with pytest.raises(UserError, match=r"row 4: the column 'margin' holds no finite number: inf"):
        load_column(tmp_path / "bad.jsonl", "margin", [*pairs, pairs[0]])


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ((0, 2), r"p\.jsonl, row 2: another pair than when the pairs were read"),
        ((0, 0, 1, 2), r"p\.jsonl, row 2: another pair than when the pairs were read"),
        ((1, 0, 2), r"p\.jsonl, row 1: another pair than when the pairs were read"),
        ((0, 1), r"p\.jsonl holds 2 pairs and not 3 as when they were read"),
    ],
)
def test_a_column_of_a_file_that_changed_belongs_to_no_pair(tmp_path, order, said):
    rows = [{"prompt": f"p{n}", "chosen": "a", "rejected": "b", "margin": n / 2} for n in range(3)]
    write_jsonl(tmp_path / "p.jsonl", rows)
    pairs = load_pairs(tmp_path / "p.jsonl")
    write_jsonl(tmp_path / "p.jsonl", [rows[n] for n in order])
    with pytest.raises(UserError, match=said):
        load_column(tmp_path / "p.jsonl", "margin", pairs)


def test_conversations_beside_the_prompt_that_they_repeat_are_ultrafeedbacks(tmp_path):
    """TRL parts such rows at what chosen and rejected share; the prompt stands in them once."""
    user, better, worse = (
        {"role": r, "content": c}
        for r, c in (("user", "q"), ("assistant", "a"), ("assistant", "b"))
    )
    whole = {"chosen": [user, better], "rejected": [user, worse]}
    layouts = [
        whole,
        {"prompt": "q", **whole, "prompt_id": "1f", "messages": [user, better], "score_chosen": 8.0},
        {"prompt": [user], **whole},
        {"prompt": [user], "chosen": [better], "rejected": [worse]},
        {"prompt": "\n\nHuman: q\n\nAssistant:", "chosen": "\n\nHuman: q\n\nAssistant: a",
         "rejected": "\n\nHuman: q\n\nAssistant: b"},
    ]  # fmt: skip
    pairs_by_layout = [load_pairs(write_lines(tmp_path / "p.jsonl", row)) for row in layouts]
    assert all(pairs == pairs_by_layout[0] for pairs in pairs_by_layout)
    assert (pairs_by_layout[0][0].question_text, pairs_by_layout[0][0].chosen.response_text) == (
        "q",
        "a",
    )
    with pytest.raises(
        UserError,
        match="row 1: chosen and rejected are conversations that do not begin with the prompt",
    ):
        load_pairs(write_lines(tmp_path / "p.jsonl", layouts[1] | {"prompt": "another"}))


def write_lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_json_lines_are_read_as_editors_leave_them(tmp_path):
    rows = [
        {"prompt": "a\u2028b\x85", "chosen": "g", "rejected": "r"},
        {"prompt": "p", "chosen": "g", "rejected": "r"},
    ]
    plain = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    bom = b"\xef\xbb\xbf"
    files = [
        plain,
        bom + plain,
        plain.replace(b"\n", b"\r\n"),
        plain + b"\n  \n",
        plain.replace(b"\n", b"\n\n"),
        plain[:-1],
    ]
    for name in ("p.jsonl", "p.json"):
        for content in [*files, bom + b"\n" + plain] if name == "p.jsonl" else files:
            (tmp_path / name).write_bytes(content)
            assert [pair.question_text for pair in load_pairs(tmp_path / name)] == [
                "a\u2028b\x85",
                "p",
            ]
    (tmp_path / "p.jsonl").write_bytes(plain + b'{"prompt": 1, "prompt": 2}')
    with pytest.raises(UserError, match="row 3: not JSON: the key 'prompt' stands twice"):
        load_pairs(tmp_path / "p.jsonl")


def test_ids_beside_gaps_keep_their_text(tmp_path):
    pandas = pytest.importorskip("pandas")
    rows = [
        {"question_id": 12, "prompt": "p", "chosen": "a", "rejected": "b"},
        {"prompt": "q", "chosen": "a", "rejected": "b"},
    ]
    pandas.DataFrame(rows).to_parquet(tmp_path / "p.parquet")
    pandas.DataFrame(rows).astype({"question_id": "Int64"}).to_parquet(tmp_path / "i.parquet")
    for name in ("p.parquet", "i.parquet"):
        pairs = load_pairs(tmp_path / name)
        assert pairs[0].question_id == "12" and len(pairs[1].question_id) == 16


def test_messages_in_cells_are_parsed_or_refused(tmp_path):
    import csv

    reply = [{"role": "assistant", "content": "a"}]

    def load(chosen: str, prompt: str = "p"):
        with (tmp_path / "p.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["prompt", "chosen", "rejected"], [prompt, chosen, "b"]])
        return load_pairs(tmp_path / "p.csv")[0].chosen.response_text

    assert load("a") == load(json.dumps(reply)) == load(json.dumps(reply, indent=2)) == "a"
    for wrong in (repr(reply), f"[{reply[0]!s}\n {reply[0]!s}]", "[{'type': 'text', 'text': 'a'}]"):
        with pytest.raises(
            UserError,
            match=r"p\.csv, row 1, chosen: a list of messages in Python's or JSON's words",
        ):
            load(wrong)
    with pytest.raises(UserError, match=r"row 1, prompt: a list of messages"):
        load("a", repr([{"role": "user", "content": "p"}]))


@pytest.mark.parametrize("name", ["p.csv", "p.parquet"])
def test_a_column_twice_is_refused_by_name(tmp_path, name):
    if name == "p.csv":
        (tmp_path / name).write_text("prompt,chosen,rejected,chosen\np,a,b,c\n")
    else:
        import pyarrow
        from pyarrow import parquet

        names = ["prompt", "chosen", "rejected", "chosen"]
        parquet.write_table(
            pyarrow.Table.from_arrays([pyarrow.array(["x"])] * 4, names), tmp_path / name
        )
    with pytest.raises(UserError, match="'chosen' stands there twice"):
        load_pairs(tmp_path / name)


def test_a_parquet_file_with_a_text_that_is_none_is_a_sentence(tmp_path):
    path = tmp_path / "p.parquet"
    pandas.DataFrame([{"prompt": "p", "chosen": "a good one", "rejected": "b"}]).to_parquet(path)
    content = path.read_bytes()
    assert b"a good one" in content
    path.write_bytes(content.replace(b"a good one", b"a go\xffd one"))
    with pytest.raises(UserError, match=r"p\.parquet is damaged: a text in it is not UTF-8"):
        load_pairs(path)
