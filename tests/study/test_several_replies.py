"""A question with several pairs of replies: sampled, served, answered and analyzed."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from app_world import Browser, opened, write_study
from study_world import CRITERIA

from jaxmodpo.results.human_study import CriterionFindings
from jaxmodpo.results.versioned import write_result
from jaxmodpo.study.analyze import StudyAnalyzeConfig, analyze
from jaxmodpo.study.annotation_files import read_annotations
from jaxmodpo.study.annotations import ANNOTATIONS, Annotation
from jaxmodpo.study.app.exports import export_answers
from jaxmodpo.study.simulate import StudySimulateConfig, study_simulate
from jaxmodpo.study.study_file import StudyFile, read_study


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a study of six questions with two pairs of replies each."""
    return write_study(tmp_path, questions=6, raters=4, replies=(1, 2), replies_of_each=2)


def test_each_pair_is_an_item_of_its_own_under_one_question(path: Path):
    study = read_study(path)
    questions = [item for item in study.items if item.kind == "question"]
    assert Counter(item.question_id for item in questions).most_common()[-1][1] == 2
    for item in questions:
        number = item.question_id[1:]
        assert item.reply_a == f"kind writes to {number}, reply {item.reply}"
        assert item.reply_b == f"plain writes to {number}, reply {item.reply}"
    assert {item.reply for item in questions} == {1, 2} and len(questions) == 12


def test_both_items_of_a_question_are_served_stored_and_analyzed(path: Path, tmp_path: Path):
    store = opened(path)
    study = store.study
    shown: dict[str, set[str]] = defaultdict(set)
    for _ in range(2):
        pseudonym, token = store.raters.new_link()
        browser = Browser(store)
        browser.get(f"/r/{token}")
        browser.consent()
        browser.rate_all(store, pseudonym)
        for position in range(1, len(study.items) + 1):
            texts = re.findall(
                r"kind writes to (\d+), reply (\d)", browser.get(f"/item/{position}").text
            )
            shown[pseudonym].update(f"{number} {reply}" for number, reply in texts)
        browser.get("/finish")
        browser.post("/finish")
    assert {len(texts) for texts in shown.values()} == {12}
    annotations = tmp_path / ANNOTATIONS
    export_answers(store, annotations, blinded=False)
    store.close()
    rows = read_annotations(annotations, study)
    of_questions = {(row.question_id, row.reply) for row in rows if row.kind == "question"}
    assert len(of_questions) == 12
    results = analyze(config_of(path, annotations), study, rows)
    assert results.questions == 6
    for findings in results.criteria.values():
        assert (findings.questions, findings.answers) == (6, 2 * 12)
        assert findings.corrected.labeled == 6 and findings.corrected.unlabeled == 14


def config_of(path: Path, annotations: Path) -> StudyAnalyzeConfig:
    return StudyAnalyzeConfig(
        study=path,
        annotations=annotations,
        outcomes=path.parents[1] / "evaluation" / "outcomes.csv",
        output_dir=path.parents[1] / "analysis",
        bootstrap=200,
    )


def test_a_second_item_that_says_the_same_adds_nothing_to_what_is_known(path: Path):
    folder = path.parents[1] / "answers"
    study_simulate(StudySimulateConfig(study=path, output_dir=folder, reliability=0.7))
    study = read_study(path)
    rows = read_annotations(folder / ANNOTATIONS, study)
    twice = said_again(rows)
    once_study = first_replies(study)
    once_path = path.with_name("once.json")
    write_result(once_path, once_study)
    once_rows = [row for row in twice if row.kind != "question" or row.reply == 1]
    both = analyze(config_of(path, folder / ANNOTATIONS), study, twice)
    once = analyze(config_of(once_path, folder / ANNOTATIONS), once_study, once_rows)
    for criterion in CRITERIA:
        assert figures(both.criteria[criterion]) == figures(once.criteria[criterion])
    # They could narrow intervals, if items were resampled in place of questions.
    low, high = both.criteria["safety"].levels.human_human.interval or (0, 0)
    assert high > low


def said_again(rows: list[Annotation]) -> list[Annotation]:
    """Let each rater say of a question's second item what they said of its first."""
    first = {
        (row.rater, row.question_id, row.criterion): row.choice
        for row in rows
        if row.kind == "question" and row.reply == 1
    }
    again: list[Annotation] = []
    for row in rows:
        if row.kind == "question":
            choice = first[row.rater, row.question_id, row.criterion]
            row = dataclasses.replace(row, choice=choice)
        again.append(row)
    return again


def first_replies(study: StudyFile) -> StudyFile:
    """Return a study without its second items."""
    items = tuple(item for item in study.items if item.reply != 2)
    ids = {item.item_id for item in items}
    assignments = tuple(
        dataclasses.replace(
            each, places=tuple(place for place in each.places if place.item_id in ids)
        )
        for each in study.assignments
    )
    return dataclasses.replace(study, items=items, assignments=assignments)


def figures(findings: CriterionFindings) -> dict[str, Any]:
    """Return the figures, with intervals, that are means over answers, pairs or questions."""
    return {
        "shares": findings.shares,
        "fleiss": findings.fleiss,
        "levels": findings.levels,
        "inflation": findings.inflation,
        "leave one out": findings.leave_one_out_of_all,
        "two classes": findings.two_class.kappa,
        "people": findings.corrected.people,
        "corrected": findings.corrected.corrected,
    }
