"""``study sample``: a sample is like what it is drawn from, and gives no model away."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import pytest
from study_world import CRITERIA, Outcome, pattern, sample_config, write_evaluation

from jaxmodpo.errors import UserError
from jaxmodpo.study.sample import study_sample
from jaxmodpo.study.study_file import StudyFile, read_study


def study_of(folder: Path, full: int = 60, **settings) -> StudyFile:
    evaluation = write_evaluation(folder, pattern(full))
    study_sample(sample_config(evaluation, **settings))
    return read_study(folder / "study" / "study.json")


def test_the_sample_has_the_full_sets_joint_outcomes_to_within_one_question(tmp_path):
    study = study_of(tmp_path, 60, questions=25)
    outcomes = {f"q{number}": of_question for number, of_question in enumerate(pattern(60))}
    full = Counter(outcomes.values())
    sampled = Counter(outcomes[item.question_id] for item in study.items if item.question_id)
    assert sum(sampled.values()) == 25
    for stratum, count in full.items():
        assert abs(sampled[stratum] - 25 * count / 60) < 1
    manifest = json.loads((tmp_path / "study" / "manifest.json").read_text())
    assert manifest["results"]["outcomes"]["a, a"] == {
        "full": 33,
        "full_share": 0.55,
        "sample": 14,
        "sample_share": 0.56,
    }


def test_reply_a_is_the_first_models_whatever_the_order_in_the_outcomes(tmp_path):
    study = study_of(tmp_path, questions=5)
    for item in study.items:
        if item.kind == "question":
            assert item.reply_a == f"kind writes to {item.question_id[1:]}"
            assert item.reply_b == f"plain writes to {item.question_id[1:]}"


def test_each_question_has_its_raters_and_sides_and_loads_differ_by_one_at_most(tmp_path):
    study = study_of(tmp_path, questions=23, raters=7, ratings_per_question=3)
    kinds = {item.item_id: item.kind for item in study.items}
    for kind in ("question", "attention", "training"):
        sides_of_item: dict[str, list[bool]] = {}
        sides_of_rater: list[list[bool]] = []
        for assignment in study.assignments:
            of_rater: list[bool] = []
            for position in assignment.places:
                if kinds[position.item_id] == kind:
                    of_rater.append(position.a_is_left)
                    sides_of_item.setdefault(position.item_id, []).append(position.a_is_left)
            sides_of_rater.append(of_rater)
        expected = 3 if kind == "question" else 7
        assert {len(sides) for sides in sides_of_item.values()} == {expected}
        for sides in [*sides_of_item.values(), *sides_of_rater]:
            assert abs(2 * sum(sides) - len(sides)) <= 1
        loads = [len(sides) for sides in sides_of_rater]
        assert max(loads) - min(loads) <= 1


def test_practice_comes_first_and_orders_differ_between_raters(tmp_path):
    study = study_of(tmp_path, questions=12, raters=3)
    kinds = {item.item_id: item.kind for item in study.items}
    orders = []
    for assignment in study.assignments:
        sequence = [kinds[position.item_id] for position in assignment.places]
        practice = sequence.count("training")
        assert practice and set(sequence[:practice]) == {"training"}
        assert sequence.count("attention") == 3
        orders.append(tuple(position.item_id for position in assignment.places))
    assert len(set(orders)) == 3


def test_nothing_that_raters_see_of_an_item_names_a_model_or_a_question(tmp_path):
    study = study_of(tmp_path, questions=8)
    ids = [item.item_id for item in study.items]
    assert len(set(ids)) == len(ids)
    assert {len(item_id) for item_id in ids} == {16}
    visible_texts = [study.title, *vars(study.texts).values(), *ids]
    for text, model in itertools.product(map(str, visible_texts), study.models):
        assert model not in text
    assert [criterion.name for criterion in study.criteria] == sorted(CRITERIA, reverse=True)


def test_the_same_seed_makes_the_same_study_and_another_one_another(tmp_path):
    first = study_of(tmp_path / "1", questions=9, seed=4)
    again = study_of(tmp_path / "2", questions=9, seed=4)
    other_seed = study_of(tmp_path / "3", questions=9, seed=5)
    assert first == again
    assert [item.item_id for item in first.items] != [item.item_id for item in other_seed.items]


def test_a_seed_that_nobody_names_is_a_secret_of_the_study_file_which_draws_it_again(tmp_path):
    first = study_of(tmp_path / "1", questions=9, seed=None)
    without_seed = study_of(tmp_path / "2", questions=9, seed=None)
    assert first.assignments != without_seed.assignments
    # All 2^32 of a common seed could be tried.
    assert max(first.seed, without_seed.seed) > 2**48
    manifest = (tmp_path / "1" / "study" / "manifest.json").read_text()
    assert str(first.seed) not in manifest
    assert study_of(tmp_path / "3", questions=9, seed=first.seed) == first


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"models": ("modpo", "bass")}, "no model 'bass'; did you mean 'base'"),
        ({"models": ("modpo", "modpo")}, "two different models"),
        ({"questions": 41}, "--questions 41: only 40 questions"),
        ({"stratify_by": ("empathy",)}, "no criterion 'empathy'"),
        ({"only": ("kindness",)}, "no criterion 'kindness'"),
        ({"replies": (1, 2)}, "--replies 2: the models of .* have 1"),
        ({"replies": (1, 1)}, "--replies needs a number at least, and each once"),
        ({"ratings_per_question": 9}, "needs as many --raters, and there are 6"),
        ({"rehearsal": False}, r"information still holds \[\[NAME AND INSTITUTION"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(tmp_path, settings, sentence):
    evaluation = write_evaluation(tmp_path, pattern(40))
    with pytest.raises(UserError, match=sentence):
        study_sample(sample_config(evaluation, **{"questions": 20, **settings}))


def test_replies_that_cannot_be_compared_are_left_out_and_counted(tmp_path):
    def texts(name: str, number: int) -> str:
        if number == 0:
            return "the same"
        return " " if number == 1 and name == "plain" else f"{name} writes to {number}"

    outcomes: list[Outcome] = [*pattern(10), (None, "a")]
    evaluation = write_evaluation(tmp_path, outcomes, texts)
    phase = study_sample(sample_config(evaluation, questions=8))
    assert phase.results["left_out"] == {
        "identical replies": 1,
        "empty replies": 1,
        "not judged": 1,
    }
    with pytest.raises(UserError, match=r"only 8 questions .*1 have identical replies, 1 an empty"):
        study_sample(sample_config(evaluation, questions=9, output_dir=tmp_path / "more"))


def test_models_that_never_differ_are_refused(tmp_path):
    evaluation = write_evaluation(tmp_path, pattern(4), lambda name, number: "the same")
    with pytest.raises(UserError, match="gave the same replies to all questions"):
        study_sample(sample_config(evaluation, questions=2))


def test_replies_that_changed_since_they_were_judged_are_refused(tmp_path):
    evaluation = write_evaluation(tmp_path, pattern(20))
    path = tmp_path / "base.csv"
    path.write_text(path.read_text().replace("plain", "polished"))
    with pytest.raises(UserError, match=r"base\.csv has changed since"):
        study_sample(sample_config(evaluation, questions=5))
