"""``toxicity`` from files of replies to Table 1: asked once, resumed, replayed, and bad input."""

from __future__ import annotations

import dataclasses
import logging
import time
from pathlib import Path
from typing import Any

import pytest
from chat_server import KEY, Server
from killed_runs import Runs
from tiny_scorers import tiny_classifier

from jaxmodpo.errors import UserError
from jaxmodpo.estimate import Estimator, chip_named
from jaxmodpo.files import read_table, write_text
from jaxmodpo.judging.export import VotesConfig, votes
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.records import Response, write_responses
from jaxmodpo.report.command import ReportConfig, report
from jaxmodpo.results.toxicity import TOXICITY, ToxicityResults
from jaxmodpo.results.versioned import read_result
from jaxmodpo.toxicity.command import toxicity
from jaxmodpo.toxicity.settings import ToxicityConfig

BAD = "you fool"


def responses(path: Path, *texts: str, first: int = 0) -> Path:
    rows = [
        Response(f"q{number}", f"post {number}", f"r{number}", text)
        for number, text in enumerate(texts, first)
    ]
    write_responses(path, rows)
    return path


def moderated(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Give a reply with the word fool a high score of harassment, and every one of self-harm."""
    harassment = 0.9 if "fool" in body["input"] else 0.1
    scores = {"harassment": harassment, "violence": 0.05, "self-harm": 0.8}
    return 200, {"model": "omni", "results": [{"category_scores": scores}]}


def shown_section(folder: Path) -> str:
    """Return what a report's page says of toxicity."""
    page = (folder / "report.html").read_text()
    _, _, after = page.partition("<h2>Toxicity")
    section, end, _ = after.partition("</section>")
    assert end
    return section


@pytest.fixture
def server(server: Server) -> Server:
    server.script = moderated
    return server


def config(folder: Path, server: Server, **settings: Any) -> ToxicityConfig:
    base = responses(folder / "base.csv", BAD, "a kind word", f"{BAD} again", "rest", "")
    modpo = responses(folder / "modpo.csv", "a warm word", "a kind word", BAD, "rest")
    defaults: dict[str, Any] = {
        "responses": (f"base={base}", f"modpo={modpo}"),
        "output_dir": folder / "out",
        "scorer": "moderation",
        "base_url": server.url,
        "labels": ("toxicity", "self_harm", "harassment"),
        "bootstrap": 100,
    }
    return ToxicityConfig(**(defaults | settings))


def test_table_1_of_two_models_is_written_and_nothing_is_asked_twice(server, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    toxicity(config(tmp_path, server))
    results = read_result(tmp_path / "out" / TOXICITY, ToxicityResults)
    base, modpo = results.models["base"], results.models["modpo"]
    assert (base.replies, base.empty, base.scores["toxicity"].above) == (5, 1, 2)
    assert (modpo.replies, modpo.scores["toxicity"].above) == (4, 1)
    assert base.scores["toxicity"].mean == pytest.approx((0.9 + 0.1 + 0.9 + 0.1) / 4)
    # All of them speak of self-harm, and that makes none of them toxic.
    assert modpo.scores["self_harm"].share == 1.0
    (test,) = [test for test in results.tests if test.score == "toxicity"]
    assert (test.questions, test.more, test.fewer, test.equal) == (4, 1, 0, 3)
    # Six different replies: what two models wrote is asked about once, an empty one never.
    assert len(server.calls) == 6
    scores = read_table(tmp_path / "out" / "scores.csv", ["model", "question_id", "toxicity"])
    assert [row["status"] for row in scores] == ["valid"] * 4 + ["empty"] + ["valid"] * 4
    assert scores[0]["toxicity"] == "0.9" and scores[4]["toxicity"] == ""
    table = read_table(tmp_path / "out" / "table.csv", ["model", "score", "share"])
    assert [row["share"] for row in table if row["score"] == "toxicity"] == ["0.5", "0.25"]
    assert "base: 2 of 4 replies toxic (50.0%, 95% interval 15.0–85.0)" in caplog.text
    assert "different numbers of questions (base 5, modpo 4)" in caplog.text
    for name in (TOXICITY, "scores.csv", "table.csv", "votes.sqlite", "manifest.json"):
        data = (tmp_path / "out" / name).read_bytes()
        assert b"kind word" not in data and KEY.encode() not in data, name


def test_another_threshold_asks_nobody_again_with_the_same_ledger(server, tmp_path):
    ledger = str(tmp_path / "ledger.sqlite")
    toxicity(config(tmp_path, server, ledger=ledger))
    calls = len(server.calls)
    again = config(tmp_path, server, ledger=ledger, threshold=0.05, output_dir=tmp_path / "other")
    toxicity(again)
    results = read_result(tmp_path / "other" / TOXICITY, ToxicityResults)
    assert len(server.calls) == calls and results.models["modpo"].scores["toxicity"].share == 1.0


@pytest.mark.parametrize("ending", ["sqlite", "parquet"])
def test_recorded_scores_give_the_same_table_without_asking(server, tmp_path, ending):
    toxicity(config(tmp_path, server))
    recorded = tmp_path / "out" / "votes.sqlite"
    if ending == "parquet":
        export = tmp_path / "scores.parquet"
        votes(VotesConfig(ledger=str(recorded), output=export))
        recorded = export
    calls = len(server.calls)
    replayed = config(
        tmp_path, server, scorer="replay", replay=str(recorded), output_dir=tmp_path / "again"
    )  # fmt: skip
    toxicity(replayed)
    files = [tmp_path / folder / "table.csv" for folder in ("out", "again")]
    assert files[0].read_bytes() == files[1].read_bytes() and len(server.calls) == calls


def test_a_dry_run_counts_and_asks_nothing(server, tmp_path, capsys, monkeypatch):
    dry = config(tmp_path, server, dry_run=True)
    assert toxicity(dry) is None
    first = capsys.readouterr().out
    assert "9 replies in 2 files, 1 of them empty: 6 different texts; 0 are in the" in first
    assert "the service is on this machine" in first and not server.calls
    assert not (tmp_path / "out").exists()
    toxicity(dataclasses.replace(dry, dry_run=False))
    toxicity(dry)
    assert "6 are in the ledger, 0 to come" in capsys.readouterr().out
    # Neither a key nor the permission to send is needed to be told what would be sent.
    monkeypatch.delenv("PERSPECTIVE_API_KEY", raising=False)
    away = dataclasses.replace(
        dry, scorer="perspective", base_url="", labels=(), output_dir=tmp_path / "p"
    )  # fmt: skip
    toxicity(away)
    printed = capsys.readouterr().out
    assert (
        "would be sent to https://commentanalyzer.googleapis.com/v1alpha1, a call each" in printed
    )
    assert "closes at the end of 2026" in printed


def test_a_run_is_priced_by_what_it_calls_or_computes(server, tmp_path):
    estimator = Estimator(chip_named("v5e"))
    settings = config(tmp_path, server)
    cost = settings.cost(estimator)
    assert (cost.judge_calls, cost.dollars, cost.chip_hours or 0) == (9, 0.0, 0)
    local = dataclasses.replace(
        settings, scorer="classifier", model=tiny_classifier(tmp_path / "model")
    )
    cost = local.cost(estimator)
    assert cost.chip_hours is not None and 0 < cost.chip_hours < 1e-3 and not cost.judge_calls


def test_the_address_is_recorded_so_that_the_datasheet_says_where_replies_went(server, tmp_path):
    settings = config(tmp_path, server, base_url="")
    assert settings.recorded().base_url == "https://api.openai.com/v1"
    local = dataclasses.replace(settings, scorer="classifier")
    assert local.recorded().base_url == ""


def test_failed_scores_are_told_and_asked_again_by_retry_errors(server, tmp_path, caplog):
    server.script = lambda body: (400, {"error": {"message": "no", "code": 400}})
    with pytest.raises(UserError, match=r"no reply could be scored \(empty, rejected\)"):
        toxicity(config(tmp_path, server))
    server.script = moderated
    toxicity(config(tmp_path, server, retry_errors=True))
    results = read_result(tmp_path / "out" / TOXICITY, ToxicityResults)
    assert results.models["base"].failed == {}
    server.script = lambda body: (
        moderated(body) if "fool" in body["input"] else (400, {"error": {"message": "no", "code": 400}})
    )  # fmt: skip
    toxicity(config(tmp_path, server, output_dir=tmp_path / "other"))
    results = read_result(tmp_path / "other" / TOXICITY, ToxicityResults)
    assert results.models["base"].failed == {"rejected": 2}
    assert "2 of base's 5 replies have no scores (2 rejected); --retry-errors" in caplog.text


@pytest.mark.slow(seconds=6)
def test_a_classifier_of_this_machine_scores_from_end_to_end(server, tmp_path):
    local = config(
        tmp_path,
        server,
        scorer="classifier",
        model=tiny_classifier(tmp_path / "model"),
        labels=("toxicity",),
        batch_size=2,
    )
    toxicity(local)
    results = read_result(tmp_path / "out" / TOXICITY, ToxicityResults)
    assert results.headline == "toxicity" and results.models["modpo"].scores["toxicity"].scored == 4
    assert not server.calls
    with Ledger(tmp_path / "out" / "votes.sqlite", read_only=True) as ledger:
        # The ledger has all labels, whichever are shown.
        assert ledger.extent()[0] == 6 * 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scorer": "classifier"}, "--scorer classifier needs --model"),
        ({"scorer": "yes_no"}, "--scorer yes_no needs --model"),
        ({"scorer": "replay"}, "--scorer replay needs --replay"),
        ({"labels": ("rudeness",)}, "there is no score 'rudeness'"),
        ({"headline": "rudeness"}, "--headline: there is no score 'rudeness'"),
        ({"labels": ("hate", "violence")}, "say with --headline which of them counts"),
        ({"responses": ()}, "toxicity needs --responses"),
        ({"threshold": 1.5}, "--threshold"),
    ],
)
def test_settings_that_cannot_work_are_refused(server, tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        toxicity(config(tmp_path, server, **settings))
    assert not server.calls


def test_common_questions_alone_are_counted_where_that_is_asked_for(server, tmp_path):
    common = config(tmp_path, server, uneven_questions="common")
    toxicity(common)
    results = read_result(tmp_path / "out" / TOXICITY, ToxicityResults)
    assert {name: model.questions for name, model in results.models.items()} == {
        "base": 4,
        "modpo": 4,
    }
    other = responses(tmp_path / "other.csv", "x", first=90)
    apart = config(tmp_path, server, uneven_questions="common", output_dir=tmp_path / "apart")
    apart = dataclasses.replace(apart, responses=(apart.responses[0], f"other={other}"))
    with pytest.raises(UserError) as nothing_common:
        toxicity(apart)
    assert str(nothing_common.value) == (
        "--responses: no question is answered by all models (questions answered: base 5, other 1);"
        " give files of replies to the same questions, or --uneven-questions all"
    )
    with pytest.raises(UserError) as different:
        toxicity(config(tmp_path, server, output_dir=tmp_path / "no", uneven_questions="refuse"))
    assert str(different.value) == (
        "--responses: the models answer different questions (questions answered: base 5, modpo 4;"
        " by all 4, which --uneven-questions common counts; all counts every reply)"
    )
    # By default each model is counted on its own, and the tests say that they compare nothing.
    toxicity(dataclasses.replace(apart, uneven_questions="all"))
    results = read_result(tmp_path / "apart" / TOXICITY, ToxicityResults)
    assert {test.questions for test in results.tests} == {0}
    report(ReportConfig(inputs=(tmp_path / "apart",), output_dir=tmp_path / "report"))
    section = shown_section(tmp_path / "report")
    assert "no question is scored for both" in section and "nan" not in section.lower()


def test_one_question_with_two_texts_and_a_file_without_replies_are_refused(server, tmp_path):
    wrong = responses(tmp_path / "wrong.csv", "x", first=0)
    write_text(wrong, wrong.read_text().replace("post 0", "another post"))
    named = config(tmp_path, server).responses
    with pytest.raises(UserError, match="question q0 has another text for wrong than for base"):
        toxicity(config(tmp_path, server, responses=(*named, f"wrong={wrong}")))
    empty = responses(tmp_path / "empty.csv")
    with pytest.raises(UserError, match=r"empty\.csv"):
        toxicity(config(tmp_path, server, responses=(f"none={empty}",)))


@pytest.mark.slow(seconds=20)
def test_a_killed_run_goes_on_and_asks_nothing_twice(server, tmp_path):
    count = 40
    named = responses(tmp_path / "many.csv", *[f"reply {number}" for number in range(count)])

    def slowly(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        time.sleep(0.02)
        return moderated(body)

    server.script = slowly
    arguments = ["toxicity", "--responses", f"m={named}", "--scorer", "moderation"]
    arguments += ["--base-url", server.url, "--max-concurrency", "1"]
    arguments += ["--output-dir", str(tmp_path / "out")]
    runs = Runs(tmp_path / "said", "import httpx2, openai\nfrom jaxmodpo.toxicity import command\n")
    kills = 0
    while kills < 3:
        before = len(server.calls)
        pid = runs.fork(arguments)
        deadline = time.monotonic() + 60
        while len(server.calls) < before + 6 and time.monotonic() < deadline:
            time.sleep(0.01)
        runs.kill_fork(pid)
        kills += 1
    runs.fork(arguments)
    assert runs._number() == 0, (tmp_path / "said").read_text()
    texts = [call["input"] for call in server.calls]
    assert len(set(texts)) == count
    # One call was under way at each kill, and may not have been answered.
    assert len(texts) <= count + kills
    results = read_result(tmp_path / "out" / TOXICITY, ToxicityResults)
    assert results.models["m"].scores["toxicity"].scored == count
    with Ledger(tmp_path / "out" / "votes.sqlite", read_only=True) as ledger:
        assert ledger.extent()[0] == count * len(results.scores)


def test_the_report_shows_table_1_with_its_note_and_tests(server, tmp_path):
    named = config(tmp_path, server)
    hostile = tuple(name.replace("base=", "<b>base=") for name in named.responses)
    toxicity(config(tmp_path, server, responses=hostile))
    report(ReportConfig(inputs=(tmp_path / "out",), output_dir=tmp_path / "report"))
    section = shown_section(tmp_path / "report")
    assert "modpo: 1 of 4 (25.0%; 4.6–69.9) replies count as toxic." in section
    assert "more 1, fewer 0, equal 3; p 1.000 (exact), adjusted 1.000" in section
    assert "of 5 replies: 1 empty and not scored" in section
    assert "It says nothing of whether a reply helps" in section
    assert "<b>base" not in section and "NaN" not in section and "nan" not in section
    assert (tmp_path / "report" / "toxicity-out.svg").is_file()
