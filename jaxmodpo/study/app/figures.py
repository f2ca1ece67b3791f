"""How a study goes: by rater, by item, and how far raters agree. No figure names a model."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from jaxmodpo.statistics.human_choices import fleiss_of_sums, fleiss_sums
from jaxmodpo.study.annotations import Annotation
from jaxmodpo.study.app.raters import Rater
from jaxmodpo.study.app.store import Store
from jaxmodpo.study.attention import failed_checks
from jaxmodpo.study.study_file import StudyFile


@dataclass(frozen=True)
class RaterProgress:
    """How far a rater is.

    Attributes:
        done: items with an answer to every criterion.
        items: that the rater has.
        median_seconds: of the items done, pauses included; None before the first.
        changed: answers that were changed afterwards.
    """

    rater: Rater
    label: str
    done: int
    items: int
    checks_failed: int
    median_seconds: float | None
    changed: int


@dataclass(frozen=True)
class ItemProgress:
    """How often an item was rated, by raters who count."""

    item_id: str
    kind: str
    ratings: int
    median_seconds: float | None


@dataclass(frozen=True)
class CriterionAgreement:
    """How far raters agree on one criterion.

    Attributes:
        questions: rated by at least two raters who count.
        kappa: Fleiss' κ over a, b and equal; NaN where it is not defined.
    """

    title: str
    questions: int
    kappa: float


@dataclass(frozen=True)
class Figures:
    """How a study goes."""

    raters: Sequence[RaterProgress]
    items: Sequence[ItemProgress]
    agreement: Sequence[CriterionAgreement]
    places: int
    places_taken: int
    answers: int


def figures_of(store: Store) -> Figures:
    """Compute how a study goes, of what is stored now."""
    answers = [stored.annotation for stored in store.answers.all()]
    raters = store.raters.all()
    by_rater: dict[str, list[Annotation]] = defaultdict(list)
    for answer in answers:
        by_rater[answer.rater].append(answer)
    labels = store.raters.labels()
    changed = store.answers.revisions()
    progress: list[RaterProgress] = []
    for rater in raters:
        name = rater.pseudonym
        label = labels.get(name, "")
        revisions = changed.get(name, 0)
        progress.append(_of_rater(store.study, rater, by_rater[name], label, revisions))
    # As an analysis would have it: those who are left out still count as having taken part.
    counting = [answer for answer in answers if not answer.excluded]
    return Figures(
        raters=progress,
        items=_of_items(store.study, counting),
        agreement=_agreement(store.study, counting),
        places=len(store.study.assignments),
        places_taken=sum(rater.holds_place for rater in raters),
        answers=len(answers),
    )


def _of_rater(
    study: StudyFile, rater: Rater, answers: Sequence[Annotation], label: str, changed: int
) -> RaterProgress:
    whole_ratings, seconds = _done(study, answers)
    item_places = () if rater.assignment is None else study.assignments[rater.assignment - 1].places
    return RaterProgress(
        rater=rater,
        label=label,
        done=whole_ratings,
        items=len(item_places),
        checks_failed=failed_checks(study, answers),
        median_seconds=statistics.median(seconds) if seconds else None,
        changed=changed,
    )


def _done(study: StudyFile, answers: Sequence[Annotation]) -> tuple[int, list[float]]:
    """Return how many whole ratings there are among answers, and the known seconds of each."""
    counts: Counter[tuple[str, str]] = Counter()
    seconds: dict[tuple[str, str], float] = {}
    for answer in answers:
        counts[answer.rater, answer.item_id] += 1
        seconds[answer.rater, answer.item_id] = answer.seconds
    whole = [rating for rating, count in counts.items() if count == len(study.criteria)]
    timed = [seconds[rating] for rating in whole if seconds[rating] >= 0]
    return len(whole), timed


def _of_items(study: StudyFile, answers: Sequence[Annotation]) -> list[ItemProgress]:
    by_item: dict[str, list[Annotation]] = defaultdict(list)
    for answer in answers:
        by_item[answer.item_id].append(answer)
    progress: list[ItemProgress] = []
    for item in study.items:
        ratings, seconds = _done(study, by_item[item.item_id])
        median = statistics.median(seconds) if seconds else None
        progress.append(ItemProgress(item.item_id, item.kind, ratings, median))
    return progress


def _agreement(study: StudyFile, answers: Sequence[Annotation]) -> list[CriterionAgreement]:
    agreement: list[CriterionAgreement] = []
    for criterion in study.criteria:
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for answer in answers:
            if answer.kind == "question" and answer.criterion == criterion.name:
                counts[answer.item_id][answer.choice] += 1
        table = [[count[choice] for choice in ("a", "b", "equal")] for count in counts.values()]
        shared_items = [row for row in table if sum(row) > 1]
        kappa = float("nan")
        if shared_items:
            kappa = float(fleiss_of_sums(fleiss_sums(shared_items).sum(axis=0)))
        agreement.append(CriterionAgreement(criterion.title, len(shared_items), kappa))
    return agreement
