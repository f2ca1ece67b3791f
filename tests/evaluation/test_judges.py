"""The command ``judges``: its file, figures and table, what it refuses, its part of a report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from right_results import JUDGES
from simulated_judges import asked, judging, said_of, stored, vote

from jaxmodpo.cli import main
from jaxmodpo.errors import UserError
from jaxmodpo.evaluation.judge_names import short_names
from jaxmodpo.evaluation.judges import JudgesConfig, draw_judges, judges
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.phase import Phase
from jaxmodpo.report.command import ReportConfig, report
from jaxmodpo.results.judges import Judges
from jaxmodpo.results.versioned import read_result


@pytest.mark.slow(seconds=2)
def test_command_writes_file_figures_and_table(tmp_path, capsys):
    a = stored(
        tmp_path / "a" / "votes.sqlite",
        [*asked(judging(1), questions=6), *asked(judging(1), shown=3)],
    )
    b = stored(
        tmp_path / "b" / "votes.sqlite",
        [*asked(judging(1), seed=1), *asked(judging(1), shown=3, seed=1)],
    )
    config = JudgesConfig(ledger=(str(a), str(b)), output_dir=tmp_path / "out", bootstrap=50)
    judges(config)
    results = read_result(tmp_path / "out" / "judges.json", Judges)
    assert {path.stem for path in (tmp_path / "out").glob("*.png")} == {
        drawn.name for drawn in draw_judges(results)
    }
    assert len(draw_judges(results)) == 5
    printed = capsys.readouterr().out
    assert "first shown wins" in printed and "m (a/votes.sqlite) and m (b/votes.sqlite)" in printed
    judges(config)
    assert capsys.readouterr().out == ""  # finished


def test_votes_added_since_are_counted_even_while_a_run_is_open(tmp_path):
    path, out = tmp_path / "v.sqlite", tmp_path / "out"
    config = JudgesConfig(ledger=(str(path),), output_dir=out, bootstrap=50)
    with Ledger(path) as writing:  # what it adds lies beside the file until it is closed
        writing.add(list(asked(judging(1), questions=4)))
        for questions in (4, 8):
            judges(config)
            assert (
                json.loads((out / "judges.json").read_text())["counts"]["votes"] == questions * 20
            )
            if questions == 4:
                writing.add(
                    [v for v in asked(judging(1), questions=8) if int(v.question_id[1:]) >= 4]
                )
    before = (out / "judges.json").stat().st_mtime_ns
    judges(config)
    assert (out / "judges.json").stat().st_mtime_ns == before, (
        "the file has changed, its votes have not"
    )
    other = stored(tmp_path / "w.sqlite", asked(judging(1), questions=4))
    with pytest.raises(UserError, match="counted of other ledgers"):
        judges(JudgesConfig(ledger=(str(other),), output_dir=out, bootstrap=50))


@pytest.mark.parametrize(
    ("order", "shown"),
    [(["c"], ["a", "b"]), (["a", "b"], ["a", "b"]), (["a", "b"], ["a", "b", "c"])],
)
def test_a_valid_vote_that_is_no_answer_is_refused(tmp_path, order, shown):
    with pytest.raises(UserError, match="is recorded as valid, but its order"):
        said_of(stored(tmp_path / "v.sqlite", [vote(1, 1, shown, order)]))
    with pytest.raises(UserError, match="its status is 'bogus'"):
        said_of(stored(tmp_path / "w.sqlite", [vote(1, 1, ["a", "b"], None, status="bogus")]))


def test_what_a_user_can_mend_is_said(tmp_path, capsys):
    path = str(stored(tmp_path / "v.sqlite", []))
    out = tmp_path / "out"
    (tmp_path / "x").mkdir()
    with pytest.raises(UserError, match=r"there is no ledger .*nowhere\.sqlite"):
        judges(JudgesConfig(ledger=(str(tmp_path / "nowhere.sqlite"),), output_dir=out))
    assert not (tmp_path / "nowhere.sqlite").exists()
    with pytest.raises(UserError, match="number 2 is already given"):
        judges(JudgesConfig(ledger=(path, str(tmp_path / "x" / ".." / "v.sqlite")), output_dir=out))
    with pytest.raises(UserError, match="no votes in"):
        judges(JudgesConfig(ledger=(path,), output_dir=out))
    with pytest.raises(UserError, match="--bootstrap must be at least 1, not 0"):
        judges(JudgesConfig(ledger=(path,), output_dir=out, bootstrap=0))
    with pytest.raises(SystemExit):
        main(["judges", "--ledger", path, "--output-dir", str(out), "--seed", "-1"])
    assert "--seed must be from 0 to" in capsys.readouterr().err
    assert not out.exists(), "what failed stands in nobody's way"
    with pytest.raises(UserError, match=r"there is no ledger .*nowhere\.sqlite"):
        judges(JudgesConfig(ledger=(f"sqlite:///{tmp_path}/nowhere.sqlite",), output_dir=out))
    assert not (tmp_path / "nowhere.sqlite").exists()
    with pytest.raises(UserError, match="number 2 is already given"):
        judges(JudgesConfig(ledger=(path, f"sqlite:///{path}"), output_dir=out))


def test_files_are_named_by_what_tells_them_apart():
    assert short_names(["/x/a/v.sqlite", "/x/b/v.sqlite"]) == ["a/v.sqlite", "b/v.sqlite"]
    assert short_names(["/x/a/v.sqlite"]) == ["v.sqlite"]


def judged(folder: Path, **settings: object) -> Path:
    phase = Phase.open("preferences", JudgesConfig(ledger=(), output_dir=folder), folder, {})
    stored(folder / "votes.sqlite", asked(judging(1, 1.0), questions=8, personas=6, **settings))  # type: ignore[arg-type]
    phase.finish()
    return folder / "votes.sqlite"


def page(work: Path) -> str:
    report(ReportConfig(inputs=(work,), output_dir=work / "report"))
    return (work / "report" / "report.html").read_text()


def test_report_counts_the_votes_of_a_judged_folder_and_is_the_same_again(tmp_path):
    judged(tmp_path / "preferences")
    first = page(tmp_path)
    share = said_of(tmp_path / "preferences" / "votes.sqlite", resamples=2000)["position"][0][
        "first_share"
    ]
    assert "<h2>Judges: preferences</h2>" in first and f"{100 * share['value']:.1f}%" in first
    assert (tmp_path / "report" / "preferences-judge-compare-2.svg").is_file()
    (tmp_path / "report" / "manifest.json").unlink()
    assert page(tmp_path) == first


def test_report_shows_what_judges_wrote_and_not_the_same_votes_twice(tmp_path):
    ledgers = tuple(
        str(judged(tmp_path / name, seed=n, model=name)) for n, name in enumerate(("one", "two"))
    )
    judges(JudgesConfig(ledger=ledgers, output_dir=tmp_path / "judges", bootstrap=50))
    text = page(tmp_path)
    assert "<h2>Judges: judges</h2>" in text and "Judges: one" not in text
    assert "one and two" in text and "Gwet" in text


def test_estimates_of_every_part_of_the_file_are_drawn():
    drawings = {drawing.name: drawing.figure for drawing in draw_judges(JUDGES)}
    assert list(drawings) == [
        "judge-compare-2", "judges-between-compare-2", "judge-positions-rank-3", "judge-rank-3"
    ]  # fmt: skip
    titles = [axes.get_title() for axes in drawings["judge-compare-2"].axes]
    assert titles == [
        "First shown wins", "Both orders: same verdict", "Asked again: same answer", "Personas: α"
    ]  # fmt: skip
    assert [axes.get_title() for axes in drawings["judge-rank-3"].axes] == ["Asked again: τ"]
