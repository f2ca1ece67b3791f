"""The report: it shows what the folders hold, whole in one file, and the same each time."""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import itertools
import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from right_results import COUNTS, SWEEP

from jaxmodpo.errors import UserError
from jaxmodpo.files import write_json, write_jsonl
from jaxmodpo.methods.validation import validate
from jaxmodpo.phase import Phase
from jaxmodpo.report import command as report_module
from jaxmodpo.report import gallery
from jaxmodpo.report.command import ReportConfig, report
from jaxmodpo.report.run_folders import find_runs
from jaxmodpo.report.wording import flat
from jaxmodpo.results.evaluation import EvaluationResults
from jaxmodpo.results.measures import Divergence, Malformed
from jaxmodpo.results.sweep import Hypervolume
from jaxmodpo.results.versioned import Result, plain, read_result, write_result

NOTE = "A stand-in judge without clinical meaning."


@dataclass(frozen=True, kw_only=True)
class SomeConfig:
    seed: int = 0
    judge: str = "rubric"
    base_url: str = "http://localhost:8000/v1"


def results(**more: object) -> dict[str, object]:
    rates = {"base": 0.25, "<dpo>": 0.75}
    test = {
        "a": "base",
        "b": "<dpo>",
        "wins": 100,
        "losses": 300,
        "ties": 3,
        "statistic": 100.0,
        "p_value": 1e-9,
        "statistic_corrected": 99.0,
        "p_value_corrected": 0.0421,
        "p_value_exact": 1e-9,
        "p_value_holm": 0.0123,
        "decisive": "p_value",
        "average_difference": -0.5,
        "average_difference_interval": [-0.6, -0.4],
    }
    criteria = ["empathy", "safety"]
    pairwise = {"base": {"<dpo>": 0.25}, "<dpo>": {"base": 0.75}}
    no_intervals = {name: dict.fromkeys(row) for name, row in pairwise.items()}
    return {
        "version": 1,
        "models": {name: dict.fromkeys(criteria, rate) for name, rate in rates.items()},
        "intervals": {
            name: {c: [rate - 0.0312, rate + 0.0312] for c in criteria}
            for name, rate in rates.items()
        },
        "pairwise": dict.fromkeys(criteria, pairwise),
        "pairwise_intervals": dict.fromkeys(criteria, no_intervals),
        "tests": {c: [test] for c in criteria},
        "counts": plain(COUNTS) | {"votes_asked": 8061, "valid": 8052, "failed": {"refusal": 9}},
        "criteria": criteria,
        "questions": 403,
        "questions_judged": 403,
        "questions_judged_by_comparison": [],
        "empty_replies": dict.fromkeys(rates, 0),
        "replies_per_question": 2,
        "judge": "rubric:v1",
        "note": NOTE,
        **more,
    }


def finished(folder: Path, command: str, files: dict[str, object], **counts: Any) -> None:
    phase = Phase.open(command, SomeConfig(), folder, {})
    for name, value in files.items():
        if isinstance(value, list):
            write_jsonl(folder / name, value)
        elif isinstance(value, Result):
            write_result(folder / name, value)
        else:
            write_json(folder / name, value)
    phase.finish(**counts)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of runs. Its figures are drawn, but not rendered, which takes seconds and which the
    tests of a folder that they may change do not look at.
    """
    monkeypatch.setattr(gallery, "_render", lambda figure, kind, area: kind.encode())
    return make_work(tmp_path / "work")


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a report in it, which no test changes."""
    root = make_work(tmp_path_factory.mktemp("reported"))
    page_of(root)
    return root


@pytest.fixture(scope="module")
def page(reported: Path) -> str:
    return (reported / "report" / "report.html").read_text(encoding="utf-8")


def words_of(page: str) -> str:
    return " ".join(" ".join(parse(page).text).split())


def make_work(root: Path) -> Path:
    finished(root / "evaluation", "evaluate", {"results.json": results()})
    metrics = [{"step": s, "loss": 1 / s, "eval_loss": 2 / s} for s in range(1, 5)]
    finished(
        root / "models" / "dpo",
        "align dpo",
        {"metrics.jsonl": metrics},
        pairs=77,
        cut={"prompts": 4},
    )
    finished(root / "reward_safety", "reward", {"metrics.jsonl": metrics})
    finished(root / "responses", "responses", {"metrics.jsonl": metrics})
    divergence = Divergence(kl=3.14159, standard_error=None, replies=1)
    finished(root / "kl" / "<dpo>", "score kl", {"kl.json": divergence})
    malformed = Malformed(malformed=0.0123, replies=1, sentences_per_reply={})
    finished(root / "check" / "base", "sandbox check", {"malformed.json": malformed})
    return root


def page_of(work: Path, *inputs: Path) -> str:
    report(ReportConfig(inputs=inputs or (work,), output_dir=work / "report", title="A & B"))
    return (work / "report" / "report.html").read_text(encoding="utf-8")


class Balance(HTMLParser):
    """Checks that tags nest, and collects text and attributes."""

    EMPTY = frozenset({"meta", "img", "br", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parse(page: str) -> Balance:
    parser = Balance()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def test_page_is_one_well_formed_file_that_refers_to_nothing_outside(page):
    assert page.startswith("<!DOCTYPE html>")
    parsed = parse(page)
    references = [
        a[k] for _, a in parsed.tags for k in ("src", "href", "srcset", "action") if k in a
    ]
    assert all(str(r).startswith(("data:image/svg+xml;base64,", "#")) for r in references)
    assert any(str(r).startswith("data:") for r in references)
    assert not {"link", "iframe", "object", "embed"} & {tag for tag, _ in parsed.tags}
    style = "".join(re.findall(r"<style>(.*?)</style>", page, re.DOTALL))
    assert "url(" not in style and "@import" not in style


def test_the_page_allows_its_own_style_and_script_by_their_hashes_and_nothing_else(page):
    policies = [a for tag, a in parse(page).tags if tag == "meta" and "http-equiv" in a]
    assert [policy["http-equiv"] for policy in policies] == ["Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in str(policies[0]["content"]).split(";"))
    style = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(style) == len(scripts) == 1
    hashes = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (*style, *scripts)
    ]
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": f"'sha256-{hashes[0]}'",
        "script-src": f"'sha256-{hashes[1]}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert not [
        a for _, a in parse(page).tags if "style" in a or any(k.startswith("on") for k in a)
    ]


def test_page_embeds_exactly_the_svg_files_beside_it_and_each_has_a_pdf(reported, page):
    files = {p.stem: p.read_bytes() for p in (reported / "report").glob("*.svg")}
    assert set(files) == {
        "rankings",
        "scatter-safety-empathy",
        "pairwise-empathy",
        "pairwise-safety",
        "significance-empathy",
        "significance-safety",
        "votes-health",
        "curves-models-dpo",
        "curves-reward_safety",
    }
    embedded = [
        base64.b64decode(d) for d in re.findall(r'src="data:image/svg\+xml;base64,([^"]*)"', page)
    ]
    assert sorted(embedded) == sorted(files.values())
    assert all(f'<span class="file">{name}.svg, .pdf</span>' in page for name in files)
    pdfs = {p.stem: p.read_bytes() for p in (reported / "report").glob("*.pdf")}
    assert set(pdfs) == set(files) and all(pdf.startswith(b"%PDF") for pdf in pdfs.values())
    assert all(a.get("alt") for tag, a in parse(page).tags if tag == "img")


def test_every_table_lies_beside_the_page_as_csv_and_latex(reported):
    tables = {p.stem: p.read_text() for p in (reported / "report").glob("*.csv")}
    assert set(tables) == {"win-rates", "tests-empathy", "tests-safety", "votes", "runs"}
    assert {p.stem for p in (reported / "report").glob("*.tex")} == set(tables)
    rows = list(csv.DictReader(tables["win-rates"].splitlines()))
    assert rows[1]["model"] == "<dpo>" and rows[1]["empathy, %"] == "75.0"
    assert rows[1]["empathy, %: 95% interval"] == "71.9–78.1"
    latex = (reported / "report" / "win-rates.tex").read_text()
    assert latex.startswith("\\begin{tabular}{lrrrr}")
    assert "\\textless{}dpo\\textgreater{} & 75.0 {\\footnotesize 71.9--78.1}" in latex


def test_headings_come_in_order(page):
    levels = [int(tag[1]) for tag, _ in parse(page).tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))


def test_page_shows_win_rates_intervals_divergence_and_malformed_rate_of_each_model(page):
    text = words_of(page)
    base, dpo = (
        text.index("base 25.0 21.9–28.1 25.0 21.9–28.1 – 1.2"),
        text.index("<dpo> 75.0 71.9–78.1"),
    )
    assert base < dpo
    assert text[dpo:].startswith("<dpo> 75.0 71.9–78.1 75.0 71.9–78.1 3.14 –")


def test_page_says_of_each_model_how_many_replies_were_cut_or_that_nobody_knows(work, page):
    column = "replies cut at the token limit, %"
    unknown_of_all = "The files of replies do not say which of them were cut at a token limit."
    unknown_of_some = "Not recorded: the file of replies does not say which of them were cut."
    text = words_of(page)
    assert unknown_of_all in text and column not in text and unknown_of_some not in text
    cut = {"base": {"cut": 31, "replies": 806}}
    write_json(work / "evaluation" / "results.json", results(cut_replies=cut))
    text = words_of(page_of(work))
    assert "base 25.0 21.9–28.1 25.0 21.9–28.1 3.8 31 of 806 – 1.2" in text
    assert "<dpo> 75.0 71.9–78.1 75.0 71.9–78.1 not recorded 3.14 –" in text
    assert column in text and unknown_of_some in text and unknown_of_all not in text


def test_page_shows_tests_and_every_count(page):
    text = words_of(page)
    assert "base <dpo> 100 3 300 100.00 < 0.001 0.042 < 0.001 0.012 -50.0 -60.0 to -40.0" in text
    assert "All criteria 8,061 8,052 0.1 9 refusal 7 0 0 1" in text
    assert "models/dpo align dpo finished pairs 77; cut, prompts 4" in text
    assert "units_without_valid_vote" not in text and "by_criterion" not in text


def test_page_shows_manifests_without_times(reported, page):
    text = words_of(page)
    assert "seed 0 judge rubric base_url http://localhost:8000/v1" in text
    manifest = json.loads((reported / "evaluation" / "manifest.json").read_text())
    assert manifest["environment"]["versions"]["jaxmodpo"] in text
    assert manifest["started"] not in page


def test_stand_in_judge_is_named_above_every_number(page):
    text = " ".join(parse(page).text)
    assert text.count(NOTE) == 1
    assert text.index(NOTE) < text.index("25.0")
    assert NOTE in text[: text.index("Average win rates")]


def test_preferences_of_the_stand_in_judge_are_named_at_the_top_too(work):
    finished(work / "preferences" / "train", "preferences", {})
    text = words_of(page_of(work))
    assert (
        "The preferences in preferences/train come from the built-in rubric"
        in text[: text.index("Average win rates")]
    )


def test_names_are_escaped(page):
    assert "<h1>A &amp; B</h1>" in page and "&lt;dpo&gt;" in page and "<dpo>" not in page


def test_report_is_the_same_again_and_leaves_its_own_folder_out(work):
    first = page_of(work)
    (work / "report" / "manifest.json").unlink()
    assert page_of(work) == first
    assert "report: report" not in first


def test_finished_report_is_not_written_again(work):
    page_of(work)
    written = (work / "report" / "report.html").stat()
    page_of(work)
    assert (work / "report" / "report.html").stat().st_ino == written.st_ino, (
        "writing gives a file a new inode"
    )


def test_two_evaluations_keep_their_figures_apart(work):
    finished(work / "second", "evaluate", {"results.json": results()})
    page = page_of(work)
    assert {"evaluation-pairwise-empathy.svg", "second-pairwise-empathy.svg"} <= {
        p.name for p in (work / "report").iterdir()
    }
    assert "Evaluation: evaluation" in page and "Evaluation: second" in page


def test_names_that_make_the_same_file_name_do_not_overwrite_each_other(work):
    finished(work / "models-dpo", "align sft", {"metrics.jsonl": [{"step": 1, "loss": 1.0}]})
    page_of(work)
    assert (work / "report" / "curves-models-dpo.svg").exists()
    assert (work / "report" / "curves-models-dpo-2.svg").exists()


def test_several_inputs_and_a_folder_given_twice_show_each_run_once(work):
    text = " ".join(
        parse(page_of(work, work / "evaluation", work / "models", work / "models" / "dpo")).text
    )
    assert text.count(f"{work / 'models' / 'dpo'}: align dpo") == 1
    assert f"{work / 'evaluation'}: evaluate" in text


def test_without_an_evaluation_the_page_says_so(work):
    page = page_of(work, work / "models")
    assert "No evaluation was found" in page and "curves-dpo.svg" in page


def test_metrics_of_a_run_still_training_are_read_up_to_the_last_whole_line(work):
    with (work / "models" / "dpo" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    assert "curves-models-dpo.svg" in page_of(work)


def test_page_shows_how_good_each_reward_model_is(work):
    rewards = np.array([[3.0, 2.0, 1.0], [1.0, 5.0, 0.0], [2.0, 1.0, 2.5], [0.5, 0.0, 1.0]])
    validation = validate(rewards, np.tile([1, 2, 3], (4, 1)), ["a", "b", "c", "d"])
    finished(work / "reward_empathy", "reward", {"validation.json": validation})
    finished(work / "reward_empathy" / "validation", "reward", {"validation.json": validation})
    text = words_of(page_of(work))
    assert validation.accuracy_interval is not None
    low, high = (100 * end for end in validation.accuracy_interval)
    assert f"reward_empathy 4 50.0 {low:.1f}–{high:.1f} 58.3" in text
    assert "reward_safety 4" not in text
    assert text.count(f"50.0 {low:.1f}–{high:.1f} 58.3") == 1, "a refitted model is listed once"
    assert (work / "report" / "reward-reward_empathy.svg").is_file()


def test_page_shows_a_sweeps_fronts_and_leaves_its_models_out(work):
    volume = Hypervolume(value=0.0123, interval=(0.0101, 0.0149), undominated=1)
    sweep = dataclasses.replace(SWEEP, hypervolume={"modpo": volume, "soup": volume})
    finished(work / "weights", "sweep", {"sweep.json": sweep})
    finished(
        work / "weights" / "modpo_0.50",
        "align modpo",
        {"metrics.jsonl": [{"step": 1, "loss": 1.0}]},
    )
    page = page_of(work)
    text = words_of(page)
    assert "Fronts: weights" in text and "modpo 0.0123 0.0101–0.0149 soup" in text
    assert (work / "report" / "fronts-weights.svg").is_file()
    assert "weights/modpo_0.50" not in page


def test_page_says_how_many_of_the_questions_were_judged_and_that_one_has_no_interval(work):
    lacking = [{"criterion": "safety", "a": "base", "b": "<dpo>", "judged": 5}]
    values = results(questions=30, questions_judged=5, questions_judged_by_comparison=lacking)
    values["intervals"] = {name: dict.fromkeys(("empathy", "safety")) for name in ("base", "<dpo>")}
    write_json(work / "evaluation" / "results.json", values)
    text = words_of(page_of(work))
    assert "5 of 30 questions judged" in text and "5 of 30 for base and <dpo> on safety" in text
    assert "base 25.0 one question: no interval" in text


def test_an_unfinished_evaluation_is_called_so(work):
    path = work / "evaluation" / "manifest.json"
    write_json(path, json.loads(path.read_text()) | {"status": "running"})
    text = words_of(page_of(work))
    assert "The evaluation in evaluation is not finished" in text
    assert "Evaluation: evaluation (not finished)" in text


def test_other_runs_that_are_not_finished_are_named(work):
    assert "Not finished yet" not in words_of(page_of(work))
    path = work / "models" / "dpo" / "manifest.json"
    write_json(path, json.loads(path.read_text()) | {"status": "running"})
    (work / "report" / "manifest.json").unlink(missing_ok=True)
    message = (
        "Not finished yet: models/dpo (align dpo). What is shown of them, if anything, is a part of"
        " the whole."
    )
    assert message in words_of(page_of(work))


def test_a_run_of_no_command_is_shown(work):
    path = work / "responses" / "manifest.json"
    manifest = json.loads(path.read_text())
    write_json(path, manifest | {"identity": manifest["identity"] | {"command": ""}})
    assert "responses finished" in words_of(page_of(work))


def test_a_report_looks_for_its_runs_once(work, monkeypatch):
    searches = []
    monkeypatch.setattr(
        report_module, "find_runs", lambda *place: searches.append(place) or find_runs(*place)
    )
    page_of(work)
    assert searches == [((work,), work / "report")]


@pytest.mark.parametrize(
    ("without", "says"),
    [
        ("questions", "results.json lacks the field 'questions'"),
        ("wins", "results.json: tests, empathy, item 1 lacks the field 'wins'"),
        ("decisive", "results.json: tests, empathy, item 1 lacks the field 'decisive'"),
    ],
)
def test_results_that_lack_a_count_are_named(tmp_path, without, says):
    values = json.loads(json.dumps(results()))
    values.pop(without, None)
    for tests in values["tests"].values():
        tests[0].pop(without, None)
    write_json(tmp_path / "results.json", values)
    with pytest.raises(UserError, match=says):
        read_result(tmp_path / "results.json", EvaluationResults)


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("models/dpo/metrics.jsonl", "{\n", "metrics.jsonl, line 1: not JSON"),
        (
            "evaluation/results.json",
            '{"version": 1, "models": {}}',
            "results.json lacks the field 'intervals'",
        ),
        ("evaluation/results.json", {"malformed": 1}, "results.json: unknown key 'malformed'"),
        ("evaluation/results.json", '{"models": {}}', "results.json has no version"),
        (
            "evaluation/results.json",
            {"version": 2},
            "results.json has version 2, and this jaxmodpo reads version 1",
        ),
        (
            "evaluation/results.json",
            {"intervals": {}},
            "results.json: intervals, base lacks 'empathy'; write the file with the command",
        ),
        ("kl/<dpo>/kl.json", {"kl": "far"}, "kl.json: kl must be a number, not"),
        (
            "models/dpo/metrics.jsonl",
            '{"step": "a"}\n',
            'metrics.jsonl, line 1: step must be a number or null, not "a"',
        ),
        (
            "responses/manifest.json",
            {"removed": ["../x"]},
            "removed, '../x' is no file or folder below its own",
        ),
        (
            "responses/manifest.json",
            {"identity": [1]},
            "identity must be a mapping with texts as keys, not [1]",
        ),
        (
            "responses/manifest.json",
            '{"status": "finished"}',
            "responses/manifest.json has no version: another tool or an early jaxmodpo wrote it;"
            " remove it and run the command that writes it again, or use the jaxmodpo that wrote it",
        ),
    ],
)
def test_broken_file_is_named(work, file, content, says):
    if isinstance(content, dict):
        content = json.dumps(json.loads((work / file).read_text()) | content)
    (work / file).write_text(content)
    with pytest.raises(UserError, match=re.escape(says)):
        page_of(work)


def test_folder_without_a_manifest_is_named(tmp_path):
    with pytest.raises(UserError, match=re.escape(f"no manifest.json in {tmp_path}")):
        report(ReportConfig(inputs=(tmp_path,), output_dir=tmp_path / "out"))


def test_input_that_is_no_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere is not a folder"):
        report(ReportConfig(inputs=(tmp_path / "nowhere",), output_dir=tmp_path / "out"))


def test_flat_names_nested_values_by_their_path():
    assert flat({"a": {"b": [1, 2], "c": 0.123456789}, "d": None}) == [
        ("a.b", "1, 2"),
        ("a.c", "0.123457"),
        ("d", "None"),
    ]
