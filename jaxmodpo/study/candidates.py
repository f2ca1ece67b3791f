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
class Candidate:
    """A question with a reply of each of the two models, and what the judge said of them."""

    question_id: str
    post: str
    reply_a: str
    reply_b: str
    outcomes: Mapping[str, Preferred]


@dataclass(frozen=True)
class Candidates:
    """The questions that a study may be drawn from, and how many it may not be drawn from."""

    usable: Sequence[Candidate]
    identical: int
    """questions whose two replies are the same text"""
    empty: int
    """questions with a reply that holds no text"""
    not_judged: int
    """questions without a valid vote on a criterion that the sample is stratified by"""


def read_candidates(
    folder: Path, models: Sequence[str], reply: int, stratify_by: Sequence[str]
) -> Candidates:
    """Read what an evaluation has of two models.

    Args:
        folder: of the evaluation.
        models: the two.
        reply: which of the models' replies to each question, from 1.
        stratify_by: criteria by which each question must have an outcome.

    Raises:
        UserError: no evaluation, one without the models, the criteria or the reply, or one whose
            files of replies are gone or have changed.
    """
    run = _evaluation(folder)
    results = read_result(folder / RESULTS, EvaluationResults)
    _refuse_unknown(folder, "model", models, list(results.models))
    _refuse_unknown(folder, "criterion", stratify_by, results.criteria)
    if reply > results.replies_per_question:
        raise UserError(
            f"--reply {reply}: the models of {folder} have {results.replies_per_question} to each"
            " question"
        )
    changed = changed_replies(run, models)
    if changed:
        raise UserError(changed)
    files = {model: Path(run.manifest.input_paths[f"{REPLIES}{model}"]) for model in models}
    questions, replies = read_replies(files, "common")
    index_of_question = {question.question_id: index for index, question in enumerate(questions)}
    judged = read_judged(folder / OUTCOMES, models)
    usable: list[Candidate] = []
    identical = empty = not_judged = 0
    for (question_id, number), outcomes in judged.items():
        if number != reply:
            continue
        index = index_of_question[question_id]
        candidate = Candidate(
            question_id,
            questions[index].question_text,
            replies[models[0]][index][reply - 1].response_text,
            replies[models[1]][index][reply - 1].response_text,
            outcomes,
        )
        if not (candidate.reply_a.strip() and candidate.reply_b.strip()):
            empty += 1
        elif candidate.reply_a == candidate.reply_b:
            identical += 1
        elif any(criterion not in outcomes for criterion in stratify_by):
            not_judged += 1
        else:
            usable.append(candidate)
    return Candidates(usable, identical=identical, empty=empty, not_judged=not_judged)


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
