"""What a rater may see of an item: a post and two replies by their sides. Neither models nor ids of
items or questions are in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxmodpo.study.annotations import Preferred
from jaxmodpo.study.app.raters import Rater
from jaxmodpo.study.study_file import Choice, Place, StudyCriterion, StudyFile, StudyItem


@dataclass(frozen=True)
class ShownItem:
    """An item as a rater sees it.

    Attributes:
        position: from 1, in what this rater sees; it stands in the page's address.
        label: what the page is called, as ``Item 3 of 12``.
        is_practice: whether an explanation follows.
    """

    position: int
    label: str
    is_practice: bool
    post: str
    left: str
    right: str


@dataclass(frozen=True)
class Feedback:
    """What an answer to a practice item might have been."""

    criterion: str
    answered: Choice
    expected: Choice

    @property
    def agrees(self) -> bool:
        return self.answered == self.expected


class View:
    """A study's items as its raters see them."""

    def __init__(self, study: StudyFile) -> None:
        self._items = {item.item_id: item for item in study.items}
        self._places = {each.number: each.places for each in study.assignments}
        self._criteria = study.criteria

    def count(self, rater: Rater) -> int:
        """Return how many items a rater has."""
        return len(self._of(rater))

    def item_id(self, rater: Rater, position: int) -> str:
        """Return the item at a position; it is for the store and never for a page."""
        return self._of(rater)[position - 1].item_id

    def first_open(self, rater: Rater, answered: Mapping[str, int]) -> int | None:
        """Return the first position that lacks an answer; None where none does.

        Args:
            answered: criteria answered of each item, by its id.
        """
        for position, place in enumerate(self._of(rater), 1):
            if answered.get(place.item_id, 0) < len(self._criteria):
                return position
        return None

    def shown(self, rater: Rater, position: int) -> ShownItem:
        """Return what is seen at a position."""
        places = self._of(rater)
        place = places[position - 1]
        item = self._items[place.item_id]
        practice = [other for other in places if self._is_practice(other)]
        is_practice = self._is_practice(place)
        if is_practice:
            label = f"Practice {practice.index(place) + 1} of {len(practice)}"
        else:
            others = [other for other in places if not self._is_practice(other)]
            label = f"Item {others.index(place) + 1} of {len(others)}"
        left, right = item.reply_a, item.reply_b
        if not place.a_is_left:
            left, right = right, left
        return ShownItem(position, label, is_practice, item.post, left, right)

    def feedback(
        self, rater: Rater, position: int, answered: Mapping[str, Choice]
    ) -> tuple[list[Feedback], str]:
        """Return how answers to a practice item compare, and its explanation."""
        place = self._of(rater)[position - 1]
        item = self._items[place.item_id]
        compared: list[Feedback] = []
        for criterion in self._criteria:
            name = criterion.name
            if name in item.expected and name in answered:
                expected = _side(item, criterion, place.a_is_left)
                compared.append(Feedback(criterion.title, answered[name], expected))
        return compared, item.explanation

    def _of(self, rater: Rater) -> tuple[Place, ...]:
        assert rater.assignment is not None
        return self._places[rater.assignment]

    def _is_practice(self, place: Place) -> bool:
        return self._items[place.item_id].kind == "training"


def _side(item: StudyItem, criterion: StudyCriterion, a_is_left: bool) -> Choice:
    expected: Preferred = item.expected[criterion.name]
    if expected == "equal":
        return "equal"
    return "left" if (expected == "a") == a_is_left else "right"
