"""Every figure of a study of five questions and three raters, worked out by hand."""

from __future__ import annotations

from fractions import Fraction

import pytest

from jaxmodpo.results.human_study import CriterionFindings
from jaxmodpo.study.annotations import Annotation, Preferred
from jaxmodpo.study.answer_table import answer_table
from jaxmodpo.study.findings import Resampling, findings_of
from jaxmodpo.study.judged import Judged
from jaxmodpo.study.study_file import StudyItem

# By question what the raters R1, R2 and R3 chose, and what the judge says.
CHOICES: list[tuple[tuple[Preferred, ...], Preferred]] = [
    (("a", "a", "b"), "a"),
    (("b", "b", "a"), "a"),
    (("a", "b", "equal"), "b"),
    (("a", "a", "a"), "a"),
    (("equal", "equal", "equal"), "equal"),
]


@pytest.fixture(scope="module")
def found() -> CriterionFindings:
    # The judge has two questions more, which nobody labeled.
    judged: Judged = {("q5", 1): {"safety": "a"}, ("q6", 1): {"safety": "b"}}
    items: list[StudyItem] = []
    annotations: list[Annotation] = []
    for number, (choices, label) in enumerate(CHOICES):
        item = StudyItem(
            item_id=f"i{number}",
            kind="question",
            post="post",
            reply_a="one",
            reply_b="another",
            question_id=f"q{number}",
            reply=1,
        )
        items.append(item)
        judged[item.question_id, 1] = {"safety": label}
        for rater, choice in enumerate(choices, 1):
            annotations.append(
                Annotation(
                    rater=f"R{rater}",
                    kind="question",
                    question_id=item.question_id,
                    reply=1,
                    item_id=item.item_id,
                    criterion="safety",
                    choice=choice,
                    side="equal",
                    seconds=60.0,
                )
            )
    table = answer_table("safety", items, annotations, judged)
    return findings_of("safety", table, judged, 1, Resampling(100, 0))


def assert_is(figure, expected: Fraction | float) -> None:
    assert figure.value == pytest.approx(float(expected), abs=1e-12)


def test_shares_and_confusion_are_of_the_majoritys_labels(found):
    assert (found.questions, found.answers) == (5, 15)
    assert_is(found.shares["a"], Fraction(2, 5))
    assert_is(found.shares["b"], Fraction(1, 5))
    assert_is(found.shares["equal"], Fraction(2, 5))
    assert found.confusion == ((2, 0, 0), (1, 0, 0), (0, 1, 1))


def test_the_judge_against_the_majority(found):
    assert found.two_class.questions == 3
    assert_is(found.two_class.accuracy, Fraction(2, 3))
    # The judge says a of all three, so that chance agrees as often: κ is 0 and AC1 is not.
    assert_is(found.two_class.kappa, 0)
    assert_is(found.two_class.ac1, Fraction(7, 13))
    assert_is(found.three_class.accuracy, Fraction(3, 5))
    assert_is(found.levels.human_human, Fraction(8, 15))
    assert_is(found.levels.human_judge, Fraction(10, 15))
    assert_is(found.levels.judge_majority, Fraction(3, 5))


def test_one_person_against_the_others(found):
    # Of the decided questions R1 and R2 can be compared on the fourth alone, and R3 on three.
    assert_is(found.leave_one_out.accuracy, Fraction(7, 9))
    assert found.leave_one_out.accuracy.raters == 3
    assert found.leave_one_out.accuracy.standard_error == pytest.approx(2 / 9)
    # The third question adds that R1 and R2 each differ from the one other who decides.
    assert_is(found.leave_one_out_of_all.accuracy, Fraction(4, 9))


def test_accuracy_by_consensus(found):
    by_end = {one.to: one for one in found.consensus}
    assert by_end[0.7].questions == 2
    assert_is(by_end[0.7].accuracy, Fraction(1, 2))
    assert by_end[1.0].questions == 1
    assert_is(by_end[1.0].accuracy, 1)
    assert by_end[0.6].accuracy.value is None


def test_win_rates_and_inflation(found):
    assert_is(found.inflation, Fraction(1, 10))
    assert_is(found.corrected.people, Fraction(3, 5))
    assert_is(found.corrected.judge, Fraction(9, 14))
    assert (found.corrected.labeled, found.corrected.unlabeled) == (5, 2)


def test_examples_are_the_clearest_question_of_each_cell(found):
    cells = {(one.majority, one.judge): one.question_id for one in found.examples}
    assert cells == {
        ("a", "a"): "q3",
        ("b", "a"): "q1",
        ("equal", "b"): "q2",
        ("equal", "equal"): "q4",
    }
    assert found.examples[0].votes == {"a": 3, "b": 0, "equal": 0}
