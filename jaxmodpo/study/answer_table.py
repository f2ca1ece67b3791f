"""People's answers by one criterion as an array, with the judge's labels beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxmodpo.results.human_study import LABELS
from jaxmodpo.statistics.arrays import Array
from jaxmodpo.statistics.human_choices import NONE, Labels, count_choices, majority_labels
from jaxmodpo.study.annotations import Annotation
from jaxmodpo.study.judged import Judged
from jaxmodpo.study.study_file import StudyItem


@dataclass(frozen=True)
class AnswerTable:
    """The answers to one criterion of all of a study's questions.

    Attributes:
        items: the study's questions.
        choices: ``[items, raters]``, as :mod:`jaxmodpo.statistics.human_choices` numbers them.
        judge: ``[items]``, the judge's labels.
        question: ``[items]``, the number of each item's question, for resampling.
    """

    items: Sequence[StudyItem]
    choices: Labels
    judge: Labels
    question: Labels

    @property
    def counts(self) -> Labels:
        """How many raters chose each label: ``[items, 3]``."""
        return count_choices(self.choices)

    @property
    def majority(self) -> Labels:
        """The majority's label of each item."""
        return majority_labels(self.counts)

    def by_question(self, sums: Array) -> Array:
        """Add up what each item has over the items of a question: ``[items, …]`` to
        ``[questions, …]``; questions are what the bootstrap draws.
        """
        questions = int(self.question.max(initial=-1)) + 1
        added = np.zeros((questions, *sums.shape[1:]))
        np.add.at(added, self.question, sums)
        return added


def answer_table(
    criterion: str,
    items: Sequence[StudyItem],
    annotations: Sequence[Annotation],
    judged: Judged,
) -> AnswerTable:
    """Arrange the answers to one criterion.

    Args:
        criterion: its name.
        items: the study's questions, in the order of the rows.
        annotations: of raters who count.
        judged: what the judge said of the two models.
    """
    raters = sorted({annotation.rater for annotation in annotations})
    row_of_item = {item.item_id: row for row, item in enumerate(items)}
    column_of_rater = {rater: column for column, rater in enumerate(raters)}
    number_of_label = {label: number for number, label in enumerate(LABELS)}
    choices = np.full((len(items), len(raters)), NONE, np.int64)
    for annotation in annotations:
        if annotation.criterion == criterion and annotation.item_id in row_of_item:
            row = row_of_item[annotation.item_id]
            column = column_of_rater[annotation.rater]
            choices[row, column] = number_of_label[annotation.choice]
    judge = np.full(len(items), NONE, np.int64)
    for row, item in enumerate(items):
        label = judged.get((item.question_id, item.reply), {}).get(criterion)
        if label is not None:
            judge[row] = number_of_label[label]
    return AnswerTable(items, choices, judge, _question_numbers(items))


def _question_numbers(items: Sequence[StudyItem]) -> Labels:
    # Each question's number, in the order in which it first comes.
    numbers: dict[str, int] = {}
    for item in items:
        numbers.setdefault(item.question_id, len(numbers))
    return np.array([numbers[item.question_id] for item in items], np.int64)
