"""Answers of people, with the models' names: what the application exports and the analysis reads.

One row is one rater's answer to one criterion of one item::

    rater,kind,question_id,reply,item_id,criterion,choice,side,seconds,excluded,reason
    R07,question,q-113,1,4f2a91c0,empathy,a,left,38.2,,

It names models by their place in the study file, ``a`` and ``b``, whatever side they stood on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxmodpo.study.study_file import Choice, ItemKind

ANNOTATIONS = "annotations.csv"

Preferred = Literal["a", "b", "equal"]


@dataclass(frozen=True, slots=True)
class Annotation:
    """One rater's answer to one criterion of one item.

    Attributes:
        rater: a pseudonym, the same for all answers of a person.
        kind: of the item.
        question_id: the evaluation's id of the post; empty unless the kind is ``question``.
        reply: the number of the replies compared, from 1; 0 likewise.
        item_id: the item's id in the study file.
        criterion: what was compared.
        choice: the model preferred, by its place in the study file.
        side: what the rater pressed.
        seconds: from the item's first showing to its last answer, pauses included; below 0 where
            unknown.
        excluded: why the rater's answers are left out of the analysis; empty where they count.
        reason: what the rater wrote to it, if anything.
    """

    rater: str
    kind: ItemKind
    question_id: str
    reply: int
    item_id: str
    criterion: str
    choice: Preferred
    side: Choice
    seconds: float
    excluded: str = ""
    reason: str = ""


def preferred(side: Choice, *, a_is_left: bool) -> Preferred:
    """Return which model a rater preferred who pressed a side."""
    if side == "equal":
        return "equal"
    return "a" if (side == "left") == a_is_left else "b"
