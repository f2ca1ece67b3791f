"""The report in a real browser: wide and narrow, with and without its script, and with texts in
every field that would run, load or turn something if they could.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from chromium import Browser, Page
from right_results import EVALUATION, PROBES, TOXICITY

from jaxmodpo.errors import UserError
from jaxmodpo.evaluation.group_differences import DIFFERENCE_COLUMNS
from jaxmodpo.evaluation.outcomes import OUTCOME_COLUMNS
from jaxmodpo.files import write_table
from jaxmodpo.phase import Phase
from jaxmodpo.records import Response, write_responses
from jaxmodpo.report import gallery
from jaxmodpo.report.browser import script_data
from jaxmodpo.report.command import ReportConfig, report
from jaxmodpo.report.wording import visible
from jaxmodpo.results.evaluation import CutReplies, EvaluationResults
from jaxmodpo.results.versioned import write_result

HOSTILE = (
    "</script><script>window.taken=1</script><img src=x onerror=window.taken=1><!-- \u2028 \u202e"
    " <style>*{display:none}</style> ' \" {{ 7*7 }} http://example.org/x"
)
A = f"a {HOSTILE}"
B = "b" * 90
CRITERION = f"kind {HOSTILE}"
QUESTIONS = ("q1", f"q2 {HOSTILE}", "q3")


@dataclass(frozen=True, kw_only=True)
class SomeConfig:
    seed: int = 0
    judge: str = HOSTILE


def hostile_results() -> EvaluationResults:
    """Right results in which every name is hostile."""
    test = replace(EVALUATION.tests["safety"][0], a=A, b=B)
    counts = replace(
        EVALUATION.counts, by_criterion={CRITERION: EVALUATION.counts.by_criterion["safety"]}
    )
    return EvaluationResults(
        models={A: {CRITERION: 0.4}, B: {CRITERION: 0.6}},
        intervals={A: {CRITERION: (0.3, 0.5)}, B: {CRITERION: None}},
        pairwise={CRITERION: {A: {B: 0.4}, B: {A: 0.6}}},
        pairwise_intervals={CRITERION: {A: {B: None}, B: {A: None}}},
        tests={CRITERION: (test,)},
        criteria=(CRITERION,),
        counts=counts,
        questions=3,
        questions_judged=3,
        questions_judged_by_comparison=(),
        empty_replies={A: 1, B: 0},
        replies_per_question=1,
        judge=HOSTILE,
        note=HOSTILE,
        cut_replies={A: CutReplies(cut=1, replies=3)},
    )


def outcome(question: str, a: int, b: int, outcome: float | str) -> dict[str, object]:
    values = (CRITERION, A, B, question, 1, a, b, 0, 0, 0, outcome)
    return dict(zip(OUTCOME_COLUMNS, values, strict=True))


def evaluated(root: Path) -> Path:
    """A finished evaluation of two models on three questions, with its files of replies."""
    inputs: dict[str, Path] = {}
    for number, name in enumerate((A, B)):
        replies = [
            Response(
                question,
                f"post {question}",
                f"r{place}",
                "" if (name, place) == (A, 2) else f"reply {number} {HOSTILE}",
                finish_reason="length" if (name, place) == (A, 0) else "end",
            )
            for place, question in enumerate(QUESTIONS)
        ]
        path = root / f"replies{number}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_responses(path, replies)
        inputs[f"responses.{name}"] = path
    folder = root / "runs" / "evaluation"
    phase = Phase.open("evaluate", SomeConfig(), folder, inputs)
    rows = [
        outcome(QUESTIONS[0], 5, 5, 0.5),
        outcome(QUESTIONS[1], 9, 1, 1),
        outcome(QUESTIONS[2], 0, 0, ""),
    ]
    write_table(folder / "outcomes.csv", rows, OUTCOME_COLUMNS)
    write_result(folder / "results.json", hostile_results())
    values = (CRITERION, A, B, QUESTIONS[1], 1, "gender", HOSTILE, 1, 6)
    differences: list[dict[str, Any]] = [dict(zip(DIFFERENCE_COLUMNS, values, strict=True))]
    write_table(folder / "group_differences.csv", differences, DIFFERENCE_COLUMNS)
    phase.finish(counts={HOSTILE: 1})
    flagged(root / "runs", inputs[f"responses.{B}"])
    return root / "runs"


def flagged(runs: Path, replies: Path) -> None:
    """Finished runs of toxicity and probes that flag replies of a file, under other names."""
    phase = Phase.open("toxicity", SomeConfig(), runs / "toxicity", {"responses.b": replies})
    scores = [
        {"model": "b", "question_id": question, "number": 1, "toxicity": score}
        for question, score in zip(QUESTIONS, ("0.1", "", "0.5"), strict=True)
    ]
    write_table(
        runs / "toxicity" / "scores.csv", scores, ("model", "question_id", "number", "toxicity")
    )
    write_result(runs / "toxicity" / "toxicity.json", TOXICITY)
    phase.finish()
    phase = Phase.open("probes", SomeConfig(), runs / "probes", {"responses.c": replies})
    verdict = {"model": "c", "probe_id": QUESTIONS[0], "number": 0, "passed": "no"}
    write_table(runs / "probes" / "verdicts.csv", [verdict], tuple(verdict))
    write_result(runs / "probes" / "probes.json", PROBES)
    phase.finish()


def written(root: Path, *, include_texts: bool) -> Path:
    """Write a report about an evaluation; return its page."""
    folder = root / f"report-{include_texts}"
    runs = root / "runs"
    if not runs.exists():
        evaluated(root)
    config = ReportConfig(
        inputs=(runs,), output_dir=folder, title=HOSTILE, include_texts=include_texts
    )
    report(config)
    return folder / "report.html"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """The page with and without texts."""
    root = tmp_path_factory.mktemp("hostile")
    return {texts: written(root, include_texts=texts) for texts in (False, True)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


SHOWN = "[...document.querySelectorAll('.question')].filter(q => !q.hidden).map(q => q.id)"


def choose(page: Page, name: str, value: str) -> list[str]:
    """Set a field of the browser's form; return the ids of the questions that stay."""
    return page.value(
        f"(() => {{ const form = document.querySelector('.filters');"
        f" form.elements[{json.dumps(name)}].value = {json.dumps(value)};"
        f" form.dispatchEvent(new Event('input')); return {SHOWN}; }})()"
    )


@pytest.mark.slow(seconds=12)
@pytest.mark.parametrize("width", [1280, 375])
def test_hostile_texts_run_nothing_load_nothing_and_fit_the_page(pages, browser, width):
    page = browser.open(pages[True], width=width)
    assert page.value("window.taken") is None
    assert [url for url in page.requests if not url.startswith("data:")] == [pages[True].as_uri()]
    assert page.messages == []
    assert page.value("document.documentElement.scrollWidth") <= width
    assert page.value("document.querySelectorAll('script').length") == 2
    images = "[...document.images].map(i => i.decode().then(() => i.naturalWidth))"
    assert min(page.value(f"Promise.all({images})")) > 100
    visible = "⟨U+202E⟩"
    assert visible in page.value("document.querySelector('h1').textContent")
    reply = page.value("document.querySelector('.reply').textContent")
    assert reply == f"reply 0 {HOSTILE}"
    assert page.value("getComputedStyle(document.querySelector('.reply')).unicodeBidi") == "isolate"


@pytest.mark.slow(seconds=6)
def test_a_wide_table_scrolls_by_itself_and_keeps_its_first_column(pages, browser):
    page = browser.open(pages[False], width=375)
    moved = page.value(
        "(() => { const box = [...document.querySelectorAll('.wide')].find("
        "b => b.scrollWidth > b.clientWidth + 40 && b.offsetParent);"
        " const head = box.querySelector('tbody th'); const before = head.getBoundingClientRect().x;"
        " box.scrollLeft = 40; return [box.scrollLeft, head.getBoundingClientRect().x - before]; })()"
    )
    assert moved == [40, pytest.approx(0, abs=1.5)]


@pytest.mark.slow(seconds=6)
def test_questions_are_searched_filtered_ordered_and_linked_to(pages, browser):
    anchors = [visible(f"q={question}") for question in QUESTIONS]
    page = browser.open(pages[True], width=1280, fragment="#q=q3")
    assert page.value("document.getElementById('q=q3').open") is True
    assert page.value("document.getElementById('q=q1').open") is False
    assert page.value(SHOWN) == anchors
    page.value("document.querySelectorAll('.question a')[1].click()")
    assert page.value("document.querySelectorAll('.question')[1].open") is True
    assert choose(page, "words", "post Q3") == [anchors[2]]
    assert choose(page, "words", "") == anchors
    assert choose(page, "show", "close") == [anchors[0]]
    assert choose(page, "show", "a") == [anchors[1]]
    assert choose(page, "show", "b") == []
    assert choose(page, "show", "missing") == [anchors[2]]
    assert choose(page, "show", "cut") == [anchors[0]]
    assert choose(page, "show", "empty") == [anchors[2]]
    assert page.value("document.querySelector('output').textContent") == "1 of 3 questions"
    assert choose(page, "show", "toxic") == [anchors[2]]
    assert choose(page, "show", "probe") == [anchors[0]]
    choose(page, "show", "")
    assert choose(page, "group", "0") == [anchors[1]]
    assert choose(page, "group", "") == anchors
    assert choose(page, "order", "clear") == [anchors[1], anchors[0], anchors[2]]
    assert choose(page, "pair", "0") == [anchors[1], anchors[0], anchors[2]]
    assert choose(page, "order", "close") == anchors


@pytest.mark.slow(seconds=6)
def test_without_its_script_the_page_says_the_same_and_has_no_dead_form(pages, browser):
    page = browser.open(pages[True], width=1280, script=False)
    document = page.call("DOM.getDocument", depth=-1)["root"]["nodeId"]

    def count(selector: str) -> int:
        nodes = page.call("DOM.querySelectorAll", nodeId=document, selector=selector)
        return len(nodes["nodeIds"])

    assert count(".question") == 3 and count(".reply") == 6 and count(".votes tbody tr") == 3
    assert count(".filters[hidden]") == 1


def test_posts_and_replies_are_in_the_page_only_where_they_are_asked_for(pages):
    without = pages[False].read_text()
    assert "post q1" not in without and "reply 0" not in without and "--include-texts" in without
    assert "cut at the token limit" in without, "what is known of a reply is none of its words"
    assert "prefer the other reply, and of how many comparisons: gender: " in without
    assert "a reply toxic" in without and "a reply did not pass as a reply to" in without
    page = pages[True].read_text()
    assert "post q1" in page and "reply 0" in page
    assert pages[True].stat().st_mode & 0o077 == 0, "people's words are for the owner alone"


def test_replies_that_are_gone_or_changed_are_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "_render", lambda figure, kind, area: b"")
    evaluated(tmp_path)
    replies = tmp_path / "replies1.csv"
    replies.write_text(replies.read_text().replace("reply 1", "reply X", 1))
    with pytest.raises(UserError, match=r"--include-texts: .*replies1.csv has changed since"):
        written(tmp_path, include_texts=True)
    assert "has changed since" in written(tmp_path, include_texts=False).read_text()
    replies.unlink()
    with pytest.raises(UserError, match=r"compared are no longer in .*replies1.csv"):
        written(tmp_path, include_texts=True)


def test_an_outcome_of_an_unknown_model_or_of_no_number_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "_render", lambda figure, kind, area: b"")
    outcomes = evaluated(tmp_path) / "evaluation" / "outcomes.csv"
    right = outcomes.read_text()
    outcomes.write_text(right.replace(B, "c"))
    with pytest.raises(UserError, match=r"outcomes.csv, line 2: no model is called 'c' in"):
        written(tmp_path, include_texts=False)
    outcomes.write_text(right.replace('"9"', '"-9"'))
    with pytest.raises(UserError, match="line 3: votes_a must be a whole number, not '-9'"):
        written(tmp_path, include_texts=False)


def test_groups_that_all_agree_leave_a_file_without_rows_and_no_filter(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "_render", lambda figure, kind, area: b"")
    write_table(
        evaluated(tmp_path) / "evaluation" / "group_differences.csv", [], DIFFERENCE_COLUMNS
    )
    page = written(tmp_path, include_texts=False).read_text()
    assert "reply 0" not in page and "prefer the other reply" not in page


def test_script_data_cannot_end_its_element_and_reads_back():
    text = script_data({"x": HOSTILE})
    assert not set(text) & set("<>&\u2028") and text.isascii()
    assert json.loads(text) == {"x": HOSTILE}
