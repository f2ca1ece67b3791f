"""The file of annotations, as the application exports it and the analysis reads it back.

A study says which raters, items and criteria there are::

    write_annotations(folder / ANNOTATIONS, annotations)
    annotations = read_annotations(folder / ANNOTATIONS, study)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxmodpo.errors import UserError, nearest
from jaxmodpo.files import Row, read_table, write_table
from jaxmodpo.study.annotations import Annotation
from jaxmodpo.study.study_file import StudyFile, StudyItem

COLUMNS = tuple(field.name for field in dataclasses.fields(Annotation))
"""of the file, in its order"""

_CHOICES = ("a", "b", "equal")
_SIDES = ("left", "right", "equal")


def write_annotations(path: Path, annotations: Sequence[Annotation]) -> None:
    """Write annotations as CSV, for their owner's eyes alone."""
    write_table(path, [dataclasses.asdict(annotation) for annotation in annotations], COLUMNS)


def read_annotations(path: Path, study: StudyFile) -> list[Annotation]:
    """Read annotations of a study.

    Raises:
        UserError: the file cannot be read, a row names an item or a criterion that the study lacks
            or another question than the item has, an answer is none of those there are, a rater
            answers a criterion of an item twice, or is excluded in one row and not in another.
    """
    items = {item.item_id: item for item in study.items}
    criteria = [criterion.name for criterion in study.criteria]
    annotations: list[Annotation] = []
    answered: set[tuple[str, str, str]] = set()
    exclusions: dict[str, str] = {}
    for line, row in enumerate(read_table(path, COLUMNS), 2):
        location = f"{path}, line {line}"
        annotation = _annotation(row, items, criteria, location)
        answer = (annotation.rater, annotation.item_id, annotation.criterion)
        if answer in answered:
            raise UserError(
                f"{location}: {annotation.rater} answers {annotation.criterion} of the item"
                f" {annotation.item_id} a second time; keep one answer"
            )
        answered.add(answer)
        if exclusions.setdefault(annotation.rater, annotation.excluded) != annotation.excluded:
            raise UserError(
                f"{location}: the rater {annotation.rater} is excluded in some rows, and in others"
                " not or for another reason"
            )
        annotations.append(annotation)
    return annotations


def _annotation(
    row: Mapping[str, str], items: Mapping[str, StudyItem], criteria: Sequence[str], place: str
) -> Annotation:
    item = items.get(row["item_id"])
    if item is None:
        raise UserError(f"{place}: the study has no item '{row['item_id']:.80}'")
    if row["criterion"] not in criteria:
        hint = nearest(row["criterion"], criteria)
        raise UserError(f"{place}: the study has no criterion '{row['criterion']:.80}'{hint}")
    if row["question_id"] != item.question_id or row["kind"] != item.kind:
        raise UserError(
            f"{place}: the item {item.item_id} is another one in the study file; the two files are"
            " of different studies"
        )
    if not row["rater"]:
        raise UserError(f"{place} names no rater")
    _refuse_other(row["choice"], _CHOICES, "choice", place)
    _refuse_other(row["side"], _SIDES, "side", place)
    if (row["choice"] == "equal") != (row["side"] == "equal"):
        raise UserError(f"{place}: choice and side must both be equal, or neither")
    fields: Row = {name: row[name] for name in COLUMNS}
    fields["reply"] = item.reply
    fields["seconds"] = _seconds(row["seconds"], place)
    return Annotation(**fields)


def _refuse_other(value: str, allowed: Sequence[str], column: str, place: str) -> None:
    if value not in allowed:
        raise UserError(f"{place}: {column} must be one of {', '.join(allowed)}, not '{value:.80}'")


def _seconds(text: str, place: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise UserError(f"{place}: seconds must be a number, not '{text:.80}'")
    return seconds
