"""Whether a rater read what they answered: the checks whose post says what to press."""

from __future__ import annotations

from collections.abc import Iterable

from jaxmodpo.study.annotations import Annotation
from jaxmodpo.study.study_file import StudyFile


def failed_checks(study: StudyFile, answers: Iterable[Annotation]) -> int:
    """Return how many attention checks one rater failed: those with a wrong answer to any
    criterion. A check that is not answered is not failed.
    """
    expected = {item.item_id: item.expected for item in study.items if item.kind == "attention"}
    failed: set[str] = set()
    for answer in answers:
        right = expected.get(answer.item_id, {}).get(answer.criterion)
        if right is not None and answer.choice != right:
            failed.add(answer.item_id)
    return len(failed)


def exclusion(study: StudyFile, answers: Iterable[Annotation]) -> str:
    """Return why a rater's answers are left out for their attention; empty where they count."""
    failed = failed_checks(study, answers)
    if failed <= study.attention_failures_allowed:
        return ""
    checks = "attention check" if failed == 1 else "attention checks"
    return f"failed {failed} {checks}"
