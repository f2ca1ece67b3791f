"""The study file: all that a study consists of before anybody takes part.

``jaxmodpo study sample`` writes it, the web application serves it, and the analysis reads it::

    study = read_study(Path("study/study.json"))
    places = study.assignments[0].places      # what the first rater sees, in order
    item = study.item(places[0].item_id)

It says which model wrote which reply and which of them stands on the left. It therefore stays on
the server: what raters may see of an item is made by the application, from an item and a place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from jaxmodpo.errors import UserError
from jaxmodpo.results.versioned import Result, read_result
from jaxmodpo.schema import Tally

STUDY = "study.json"

Choice = Literal["left", "right", "equal"]
"""what a rater answers to one criterion of one item: the reply on that side is better, or both are
as good as each other"""

CHOICES: tuple[Choice, ...] = ("left", "right", "equal")

ItemKind = Literal["question", "attention", "training"]
"""``question`` counts in the analysis; ``attention`` says in its post what to press; ``training``
comes first, and is followed by an explanation"""

Recruitment = Literal["personal-links", "prolific"]
"""how raters come: each by a link of their own, or through Prolific"""


@dataclass(frozen=True, kw_only=True)
class StudyCriterion:
    """One thing that two replies are compared by."""

    name: str
    title: str
    """what raters read for it, as ``Patient autonomy``"""
    description: str
    better_when: str = ""
    worse_when: str = ""


@dataclass(frozen=True, kw_only=True)
class StudyItem:
    """A post and two replies to it."""

    item_id: str
    """a random token that tells nothing of the question or of its models"""
    kind: ItemKind
    post: str
    reply_a: str
    """by the study's first model; of an attention check or a training item by nobody"""
    reply_b: str
    question_id: str = ""
    """the evaluation's id of the post; empty unless the kind is ``question``"""
    reply: Tally = 0
    """the number of the models' replies to it, from 1; 0 unless the kind is ``question``"""
    expected: Mapping[str, Literal["a", "b", "equal"]] = field(default_factory=dict)
    """the right answers by criterion: of an attention check all, of a training item those that its
    explanation is about"""
    explanation: str = ""
    """what a rater reads after answering a training item"""


@dataclass(frozen=True, kw_only=True)
class Place:
    """An item at its place in what one rater sees."""

    item_id: str
    a_is_left: bool
    """whether ``reply_a`` stands on the left for this rater"""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """The items of one rater, in order; a rater takes a free one and keeps it."""

    number: Tally
    """from 1"""
    places: tuple[Place, ...]


@dataclass(frozen=True, kw_only=True)
class StudyTexts:
    """What raters read besides items; plain text, in which an empty line begins a paragraph."""

    information: str
    """who asks, what for, how long it takes, what is stored and for how long, whom to turn to"""
    consent: tuple[str, ...]
    """statements, each of which a rater has to agree to"""
    instructions: str
    content_warning: str
    consent_version: str = "1"
    """to be raised whenever information or consent changes; it is stored with each consent"""


@dataclass(frozen=True, kw_only=True)
class StudyFile(Result):
    """A study as it is served."""

    VERSION: ClassVar[int] = 1

    title: str
    """raters see it: it names no model"""
    models: tuple[str, ...]
    """the two models compared: the one that is ``a`` in every item, and the one that is ``b``"""
    criteria: tuple[StudyCriterion, ...]
    items: tuple[StudyItem, ...]
    assignments: tuple[Assignment, ...]
    recruitment: Recruitment
    texts: StudyTexts
    seed: Tally
    """of the sample, of orders and of sides, which whoever knows it can compute"""
    evaluation_sha256: str
    """of the ``outcomes.csv`` that its questions were picked from"""
    attention_failures_allowed: Tally = 1
    """attention checks that a rater may fail before being excluded"""

    def item(self, item_id: str) -> StudyItem:
        """Return the item of an id.

        Raises:
            KeyError: there is none.
        """
        for item in self.items:
            if item.item_id == item_id:
                return item
        raise KeyError(item_id)

    def check(self, source: str) -> None:
        """Refuse places of items that are not there, ids that come twice, and expectations of
        criteria that the study does not have.

        Raises:
            UserError: naming the file and what is wrong.
        """
        if len(self.models) != 2:
            raise UserError(f"{source}: a study compares two models, not {len(self.models)}")
        item_ids = {item.item_id for item in self.items}
        if len(item_ids) < len(self.items):
            raise UserError(f"{source}: an item_id comes twice")
        criteria = {criterion.name for criterion in self.criteria}
        for item in self.items:
            for criterion in item.expected:
                if criterion not in criteria:
                    raise UserError(
                        f"{source}: item {item.item_id} expects an answer to '{criterion}', which"
                        " is none of the study's criteria"
                    )
        for assignment in self.assignments:
            placed = [place.item_id for place in assignment.places]
            for item_id in placed:
                if item_id not in item_ids:
                    raise UserError(
                        f"{source}: assignment {assignment.number} has the item {item_id}, which"
                        " the study lacks"
                    )
            if len(set(placed)) < len(placed):
                raise UserError(f"{source}: assignment {assignment.number} has an item twice")


def read_study(path: Path) -> StudyFile:
    """Read a study file.

    Raises:
        UserError: not a study file of this version, or its parts do not fit together.
    """
    return read_result(path, StudyFile)
