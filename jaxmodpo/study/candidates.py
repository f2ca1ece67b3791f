"""The questions that a study may be drawn from: an evaluation's, with both models' replies.

Replies are read from the files that the evaluation compared, which its manifest names with their
hashes: a file that has changed since holds other replies than the judge saw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxmodpo.errors import UserError, nearest
from jaxmodpo.evaluation.contest import read_replies
from jaxmodpo.report.browsing import changed_replies
from jaxmodpo.report.run_folders import OUTCOMES, REPLIES, Run
from jaxmodpo.results.evaluation import RESULTS, EvaluationResults
from jaxmodpo.results.manifest import MANIFEST, read_manifest
from jaxmodpo.results.versioned import read_result
from jaxmodpo.study.annotations import Preferred
from jaxmodpo.study.judged import read_judged


@dataclass(frozen=True)
class ReplyPair:
    """A reply of each of the two models to one question, and what the judge said of them."""

    number: int
    """of the models' replies, from 1"""
    reply_a: str
    reply_b: str
    outcomes: Mapping[str, Preferred]


@dataclass(frozen=True)
class Candidate:
    """A question with the replies that are shown of it."""

    question_id: str
    post: str
    pairs: Sequence[ReplyPair]


@dataclass(frozen=True)
class Candidates:
    """The questions that a study may be drawn from, and how many it may not be drawn from."""

    usable: Sequence[Candidate]
    identical: int
    """questions of which two replies that would be compared are the same text"""
    empty: int
    """questions with a reply that holds no text"""
    not_judged: int
    """questions without a valid vote on a criterion that the sample is stratified by"""


def read_candidates(
    folder: Path, models: Sequence[str], numbers: Sequence[int], stratify_by: Sequence[str]
) -> Candidates:
    """Read what an evaluation has of two models.

    Args:
        folder: of the evaluation.
        models: the two.
        numbers: which of the models' replies to each question, from 1.
        stratify_by: criteria by which each question must have an outcome.

    Raises:
        UserError: no evaluation, one without the models, the criteria or the reply, or one whose
            files of replies are gone or have changed.
    """
    run = _evaluation(folder)
    results = read_result(folder / RESULTS, EvaluationResults)
    _refuse_unknown(folder, "model", models, list(results.models))
    _refuse_unknown(folder, "criterion", stratify_by, results.criteria)
    if max(numbers) > results.replies_per_question:
        raise UserError(
            f"--replies {max(numbers)}: the models of {folder} have {results.replies_per_question}"
            " to each question"
        )
    changed = changed_replies(run, models)
    if changed:
        raise UserError(changed)
    files = {model: Path(run.manifest.input_paths[f"{REPLIES}{model}"]) for model in models}
    questions, replies = read_replies(files, "common")
    judged = read_judged(folder / OUTCOMES, models)
    usable: list[Candidate] = []
    identical = empty = not_judged = 0
    for index, question in enumerate(questions):
        pairs: list[ReplyPair] = []
        for number in numbers:
            outcomes = judged.get((question.question_id, number))
            if outcomes is not None:
                first, second = (replies[model][index][number - 1] for model in models)
                pairs.append(ReplyPair(number, first.response_text, second.response_text, outcomes))
        if not pairs:
            # The judge was not asked about this question.
            continue
        if any(not (pair.reply_a.strip() and pair.reply_b.strip()) for pair in pairs):
            empty += 1
        elif any(pair.reply_a == pair.reply_b for pair in pairs):
            identical += 1
        elif len(pairs) < len(numbers) or not _are_judged(pairs, stratify_by):
            not_judged += 1
        else:
            usable.append(Candidate(question.question_id, question.question_text, pairs))
    return Candidates(usable, identical=identical, empty=empty, not_judged=not_judged)


def _are_judged(pairs: Sequence[ReplyPair], criteria: Sequence[str]) -> bool:
    return all(criterion in pair.outcomes for pair in pairs for criterion in criteria)


def _evaluation(folder: Path) -> Run:
    """Return the evaluation in a folder."""
    for name in (MANIFEST, RESULTS, OUTCOMES):
        if not (folder / name).is_file():
            raise UserError(
                f"--evaluation: {folder} holds no {name}; give the folder of a 'jaxmodpo evaluate'"
                " that has ended"
            )
    return Run(str(folder), folder, read_manifest(folder / MANIFEST))


def _refuse_unknown(folder: Path, noun: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise UserError(f"{folder} has no {noun} '{name}'{nearest(name, known)}")
