"""Posts become questions: once each, filtered, and split as the paper splits EPITOME."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from jaxmodpo.data.questions import QuestionsConfig, questions
from jaxmodpo.errors import UserError
from jaxmodpo.files import read_json
from jaxmodpo.records import read_questions


def posts(count: int = 40) -> list[tuple[str, str]]:
    return [(f"s{n}", "a post " + "word " * (1 + n)) for n in range(count)]


def written(
    path: Path, rows: list[tuple[str, str]], columns: tuple[str, str] = ("sp_id", "seeker_post")
) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def run(folder: Path, *inputs: Path, **settings: int):
    return questions(
        QuestionsConfig(input=inputs, output_dir=folder / "out", **{"test_size": 8, **settings})
    )


def test_epitome_splits_into_the_papers_sizes_and_mean_lengths(tmp_path, real_data):
    epitome = real_data("epitome/interpretations-reddit.csv")
    run(tmp_path, epitome, test_size=600)
    train = read_questions(tmp_path / "out" / "questions_train.csv")
    test = read_questions(tmp_path / "out" / "questions_test.csv")
    assert (len(train), len(test)) == (2379, 600)
    means = [sum(len(q.question_text) for q in split) / len(split) for split in (train, test)]
    assert means == pytest.approx([183.0, 182.3], abs=0.06)  # 182.98 and 182.35
    assert not {q.question_id for q in train} & {q.question_id for q in test}
    with epitome.open(encoding="utf-8", newline="") as file:
        assert {q.question_id for q in train + test} == {
            row["sp_id"] for row in csv.DictReader(file)
        }


def test_a_post_with_several_replies_is_one_question(tmp_path):
    rows = posts()
    results = run(
        tmp_path,
        written(tmp_path / "a.csv", rows + rows[:5]),
        written(tmp_path / "b.csv", rows[7:9]),
    ).results
    assert (results["rows"], results["posts"], results["duplicates"]) == (47, 40, 7)
    assert (results["train"], results["test"]) == (32, 8)


def test_every_length_quartile_gives_the_same_share_of_test_questions(tmp_path):
    run(tmp_path, written(tmp_path / "a.csv", posts()))
    positions = sorted(
        int(q.question_id[1:]) // 10
        for q in read_questions(tmp_path / "out" / "questions_test.csv")
    )
    assert positions == [0, 0, 1, 1, 2, 2, 3, 3]


def test_each_filter_leaves_out_its_own_posts_and_counts_them(tmp_path):
    rows = [
        *posts(),
        ("short", "a b c d"),
        ("long", "word " * 50 + "x" * 300),
        ("one", "x" * 30),
        ("two", "xxxxxx yyyyyy"),
    ]
    results = run(tmp_path, written(tmp_path / "a.csv", rows), max_characters=300).results
    assert results["left_out"] == {"too short": 1, "too long": 1, "too few words": 2}
    remaining = [
        q.question_id
        for name in ("train", "test")
        for q in read_questions(tmp_path / "out" / f"questions_{name}.csv")
    ]
    assert sorted(remaining) == sorted(name for name, _ in posts())


def test_bounds_themselves_are_kept(tmp_path):
    rows = [*posts(), ("least", "abcd ef gh"), ("most", "a b " + "c" * 246)]
    results = run(tmp_path, written(tmp_path / "a.csv", rows), max_characters=250).results
    assert results["left_out"] == {}


def test_two_runs_write_the_same_bytes_and_another_seed_another_split(tmp_path):
    source = written(tmp_path / "a.csv", posts())
    for name, seed in (("one", 42), ("two", 42), ("three", 1)):
        questions(
            QuestionsConfig(input=(source,), output_dir=tmp_path / name, test_size=8, seed=seed)
        )
    first_file, two, three = (
        (tmp_path / name / "questions_test.csv").read_bytes() for name in ("one", "two", "three")
    )
    assert first_file == two != three


def test_a_finished_run_is_not_done_again(tmp_path):
    source = written(tmp_path / "a.csv", posts())
    run(tmp_path, source)
    test_questions = tmp_path / "out" / "questions_test.csv"
    before = test_questions.stat()
    assert run(tmp_path, source).finished
    assert test_questions.stat().st_ino == before.st_ino, "writing gives a file a new inode"
    assert read_json(tmp_path / "out" / "manifest.json")["status"] == "finished"
    test_questions.unlink()
    with pytest.raises(
        UserError, match=r"was finished, but its file questions_test\.csv is missing"
    ):
        run(tmp_path, source)


def test_an_id_with_two_texts_is_named_with_file_and_row_within_and_across_files(tmp_path):
    written_posts = written(tmp_path / "one.csv", [*posts(), ("s3", "quite another post")])
    with pytest.raises(UserError, match=r"one\.csv, row 41.*s3"):
        run(tmp_path, written_posts)
    first, second = (
        written(tmp_path / "a.csv", posts()),
        written(tmp_path / "b.csv", [("s9", "quite another post")]),
    )
    with pytest.raises(UserError, match=r"b\.csv, row 1.*s9"):
        questions(QuestionsConfig(input=(first, second), output_dir=tmp_path / "across"))


def test_an_empty_id_is_named_with_its_row(tmp_path):
    with pytest.raises(UserError, match=r"a\.csv, row 2: the sp_id is empty"):
        run(tmp_path, written(tmp_path / "a.csv", [*posts(1), (" ", "a post without an id")]))


def test_a_missing_column_an_empty_file_and_a_wrong_encoding_are_named(tmp_path):
    with pytest.raises(UserError, match=r"a\.csv lacks the column seeker_post"):
        run(tmp_path, written(tmp_path / "a.csv", posts(), ("sp_id", "text")))
    empty = tmp_path / "empty.csv"
    empty.touch()
    with pytest.raises(UserError, match=r"empty\.csv.*it is empty"):
        questions(QuestionsConfig(input=(empty,), output_dir=tmp_path / "2"))
    latin = tmp_path / "latin.csv"
    latin.write_bytes("sp_id,seeker_post\n1,caf\u00e9 au lait\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin\.csv is not UTF-8"):
        questions(QuestionsConfig(input=(latin,), output_dir=tmp_path / "3"))


@pytest.mark.parametrize("size", [37, 40, 600])
def test_a_test_size_that_leaves_too_few_on_either_side_is_refused(tmp_path, size):
    with pytest.raises(UserError, match=f"--test-size {size} does not fit 40 posts"):
        run(tmp_path, written(tmp_path / "a.csv", posts()), test_size=size)


def test_posts_of_one_length_have_no_quartiles(tmp_path):
    with pytest.raises(UserError, match="all equally long"):
        run(
            tmp_path,
            written(tmp_path / "a.csv", [(f"s{n}", f"the post {n:04d}") for n in range(40)]),
        )
