"""Criteria files: ours are complete, and a user's mistakes are named."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from jaxmodpo.criteria import Criterion, load_criteria
from jaxmodpo.errors import UserError

OURS = ("therapeutic", "gricean", "clinicians")
ROW = "{name: warmth, description: d, better_when: b, worse_when: w}"


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_our_files_hold_the_papers_criteria_in_its_order():
    assert [c.name for c in load_criteria("therapeutic")] == [
        "empathy",
        "active_listening",
        "self_motivated_change",
        "trust_rapport",
        "patient_autonomy",
        "safety",
        "overall",
    ]
    assert [c.name for c in load_criteria("gricean")] == [
        "quantity",
        "quality",
        "relation",
        "manner",
        "safety",
    ]


def test_clinicians_read_the_papers_titles_and_answer_what_the_judge_is_asked():
    ours = load_criteria("clinicians")
    assert [criterion.title for criterion in ours] == [
        "Safety and risk management",
        "Empathy",
        "Encouraging self-motivated change",
        "Trust and rapport",
        "Patient autonomy",
        "Active listening",
        "Overall preference",
    ]
    judged = {criterion.name: criterion for criterion in load_criteria("therapeutic")}
    assert judged.keys() == {criterion.name for criterion in ours}
    for criterion in ours:
        assert criterion.description != judged[criterion.name].description
        assert "you would rather receive" not in criterion.description


def test_safety_is_the_same_objective_in_both_sets():
    assert load_criteria("therapeutic", ["safety"]) == load_criteria("gricean", ["safety"])


def test_overall_names_no_virtue_and_every_other_criterion_says_both_sides():
    everything = itertools.chain.from_iterable(map(load_criteria, OURS))
    for criterion in everything:
        if criterion.name == "overall":
            assert (criterion.better_when, criterion.worse_when) == ("", "")
        else:
            assert criterion.better_when and criterion.worse_when


def test_only_selects_and_keeps_the_files_order():
    assert [c.name for c in load_criteria("therapeutic", ["safety", "empathy"])] == [
        "empathy",
        "safety",
    ]


def test_a_file_of_the_users_is_read(tmp_path):
    path = written(
        tmp_path,
        "criteria:\n  - name: warmth\n    description: a\n      b\n    better_when: c\n   "
        " worse_when: d\n",
    )
    assert load_criteria(path) == [Criterion("warmth", "a b", "c", "d")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("criterions: []", "unknown key 'criterions'; did you mean 'criteria'?"),
        ("criteria: []", "at least one criterion"),
        ("criteria: [warmth]", "criterion 1 must be a mapping"),
        (f"criteria: [{ROW}, {ROW}]", "the criterion warmth stands there twice"),
        (
            "criteria: [{name: warmth, description: d, better_when: b}]",
            "criterion 1 lacks the field worse_when",
        ),
        (f"criteria: [{ROW.replace('better_when', 'beter_when')}]", "did you mean 'better_when'?"),
        (f"criteria: [{ROW.replace('warmth', 'Warm/th')}]", "the name 'Warm/th' must be"),
        (
            "criteria: [" + ROW.replace("}", ", title: 3}") + "]",
            "the field title must be text, not 3",
        ),
        (
            f"criteria: [{ROW.replace('description: d', 'description: 3')}]",
            "the field description must be text, not 3",
        ),
        (
            f"criteria: [{ROW.replace('description: d', 'description: ...')}]".replace("...", '""'),
            "description is empty",
        ),
        (
            f"criteria: [{ROW.replace('better_when: b', 'better_when: no one')}]".replace(
                "no one", '""'
            ),
            "both be empty",
        ),
    ],
)
def test_a_broken_file_is_refused_with_its_name_and_place(tmp_path, text, said):
    path = written(tmp_path, text)
    with pytest.raises(UserError) as caught:
        load_criteria(path)
    assert str(path) in str(caught.value) and said in str(caught.value)


def test_an_unknown_name_in_only_names_the_nearest():
    with pytest.raises(UserError, match="no criterion 'empaty'; did you mean 'empathy'"):
        load_criteria("therapeutic", ["empaty"])


def test_an_unknown_set_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'gricean'"):
        load_criteria("griceian")


def test_the_authors_mapping_is_read_as_it_is(tmp_path):
    texts = {"description": "d", "better_when": "b", "worse_when": "w"}
    content = {
        "config_name": "x",
        "criteria": {
            "warmth": {"name": "Warmth and Care", "short_name": "warmth", **texts},
            "clarity": "How clear is it?",
        },
        "default_criteria": ["warmth"],
    }
    path = tmp_path / "authors.json"
    path.write_text(json.dumps(content, indent="\t"))
    warmth, clarity = load_criteria(path)
    assert warmth == Criterion("warmth", "d", "b", "w", "Warmth and Care")
    assert clarity == Criterion("clarity", "How clear is it?", "", "")
    assert load_criteria(path, ["clarity"]) == [clarity]


@pytest.mark.parametrize(
    ("criteria", "sentence"),
    [
        ({"Warm Th": "d"}, "criterion 1: the name 'Warm Th' must be lower-case letters"),
        ({"warmth": 5}, "criterion 1 must be a mapping of name, description"),
        ({"warmth": {"description": "d"}}, "criterion 1 lacks the field better_when"),
        ({}, "must hold 'criteria:', a list of at least one criterion"),
    ],
)
def test_a_wrong_mapping_is_refused_by_name(tmp_path, criteria, sentence):
    path = tmp_path / "authors.json"
    path.write_text(json.dumps({"criteria": criteria}))
    with pytest.raises(UserError) as refused:
        load_criteria(path)
    assert sentence in str(refused.value)


def test_another_key_beside_the_authors_mapping_is_refused(tmp_path):
    path = tmp_path / "authors.json"
    path.write_text(json.dumps({"criteria": {"warmth": "d"}, "config_nam": "x"}))
    with pytest.raises(UserError, match="unknown key 'config_nam'; did you mean 'config_name'"):
        load_criteria(path)
