"""Votes that somebody else collected, counted anew without a judge: ``evaluate --votes``.

Read are the result folders of the paper's authors, ``MODEL1_vs_MODEL2`` with a
``CRITERION_results.json`` for each criterion, and a single JSON file of rows::

    [{"criterion": "empathy", "a": "dpo", "b": "base", "question_id": "q1",
      "votes_a": 31, "votes_b": 19, "ties": 0}]

A winner that such a file names is not believed: outcomes follow from the votes, and a question
without a vote has none, which the authors' scripts call a tie.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

from jaxmodpo.criteria import Criterion
from jaxmodpo.errors import UserError
from jaxmodpo.evaluation.contest import Contest
from jaxmodpo.evaluation.outcomes import (
    Outcomes,
    count,
    count_judged,
    incomplete_comparisons,
    summarize,
)
from jaxmodpo.evaluation.ratings import rate_models
from jaxmodpo.files import Row, read_json
from jaxmodpo.judging.voting import Missingness
from jaxmodpo.parsing import JsonObject
from jaxmodpo.records import Candidate, Question, identifier
from jaxmodpo.results.evaluation import Counts, EvaluationResults, TiesRule
from jaxmodpo.schema import Tally as Count
from jaxmodpo.schema import read_as

SUMMARY = "summary_stats.json"
ENDING = "_results.json"

COLLECTED = (
    "The votes were collected by somebody else: how they were asked for, and whether failed ones"
    " were left out, is not known here."
)
"""what is said before any number"""


class _Row(TypedDict):
    """A row of a single file."""

    criterion: str
    a: str
    b: str
    question_id: Any
    votes_a: Count
    votes_b: Count
    ties: NotRequired[Count]


class _AuthorsRow(TypedDict):
    """A row of a ``CRITERION_results.json``; further keys are left alone."""

    question_id: Any
    model1_votes: Count
    model2_votes: Count


class Collected(NamedTuple):
    """What was compared, and the rows of ``outcomes.csv``."""

    contest: Contest
    rows: Sequence[Row]


def read_collected(paths: Sequence[Path], only: Sequence[str] = ()) -> Collected:
    """Read votes.

    Args:
        paths: result folders, or files of rows.
        only: criteria to keep; all if empty.

    Raises:
        UserError: a file is of another shape, votes on a comparison stand there twice, or nothing
            is left; the message names the file and the row.
    """
    rows: list[Row] = []
    location_of_votes: dict[tuple[str, frozenset[str], str], str] = {}
    for path in paths:
        for location, row in _rows(path):
            if only and row["criterion"] not in only:
                continue
            if row["a"] == row["b"]:
                raise UserError(f"{location}: {row['a']} is compared with itself")
            # Two files may name the same models in either order, and would count their votes twice.
            models = frozenset((row["a"], row["b"]))
            key = (row["criterion"], models, row["question_id"])
            if key in location_of_votes:
                earlier = location_of_votes[key]
                raise UserError(
                    f"{location}: the votes on {row['a']} and {row['b']} for question"
                    f" {row['question_id']} by {row['criterion']} stand in {earlier} too"
                )
            location_of_votes[key] = location
            rows.append(row)
    if not rows:
        raise UserError("--votes: no votes in " + ", ".join(map(str, paths)))
    return Collected(_contest(rows), rows)


def count_collected(contest: Contest, rows: Sequence[Row]) -> Counts:
    """Count votes and units; who gave a vote is not known, nor how many failed."""
    counts = count(contest, rows, Missingness())
    by_criterion = dict(counts.by_criterion)
    for criterion, of_criterion in by_criterion.items():
        votes = 0
        for row in rows:
            if row["criterion"] == criterion:
                votes += row["votes_a"] + row["votes_b"] + row["ties"]
        # Only valid votes were handed on, so as many are taken to have been asked for.
        by_criterion[criterion] = dataclasses.replace(of_criterion, votes_asked=votes, valid=votes)
    total = sum(of_criterion.valid for of_criterion in by_criterion.values())
    return dataclasses.replace(counts, votes_asked=total, valid=total, by_criterion=by_criterion)


def results_of_collected(
    contest: Contest,
    rows: Sequence[Row],
    table: Outcomes,
    *,
    ties: TiesRule,
    resamples: int,
    seed: int,
) -> EvaluationResults:
    """Return everything that votes alone tell: nothing of personas, and nothing of replies."""
    win_rates = summarize(contest, table, ties=ties, resamples=resamples, seed=seed)
    return EvaluationResults(
        **vars(win_rates),
        counts=count_collected(contest, rows),
        questions=len(contest.questions),
        questions_judged=count_judged(contest, table),
        questions_judged_by_comparison=incomplete_comparisons(contest, table),
        # Their texts are not known; none is called empty.
        empty_replies=dict.fromkeys(contest.models, 0),
        replies_per_question=contest.replies_per_question,
        judge="somebody else's, not known here",
        note=COLLECTED,
        ratings=rate_models(contest, table, ties=ties, resamples=resamples, seed=seed),
    )


def _rows(path: Path) -> Iterator[tuple[str, Row]]:
    """Yield each row with its place."""
    if not path.is_dir():
        for number, row in enumerate(_list(path), 1):
            location = f"{path}, item {number}"
            fields: _Row = read_as(row, _Row, location)
            pair = (fields["a"], fields["b"])
            question_id = identifier(fields["question_id"], location)
            counts = (fields["votes_a"], fields["votes_b"], fields.get("ties", 0))
            yield location, _outcome_row(fields["criterion"], pair, question_id, counts)
        return
    # A folder of the authors' scripts: a file for each criterion, the models named beside them.
    files = sorted(path.glob(f"*{ENDING}"))
    if not files:
        raise UserError(f"--votes: {path} holds no CRITERION{ENDING}")
    models = _models(path)
    for file in files:
        criterion = file.name.removesuffix(ENDING)
        for number, row in enumerate(_list(file), 1):
            location = f"{file}, item {number}"
            votes: _AuthorsRow = read_as(row, _AuthorsRow, location)
            question_id = identifier(votes["question_id"], location)
            counts = (votes["model1_votes"], votes["model2_votes"], 0)
            yield location, _outcome_row(criterion, models, question_id, counts)


def _list(path: Path) -> list[Any]:
    rows: list[Any] = read_json(path, list[Any])
    return rows


def _models(folder: Path) -> tuple[str, str]:
    """Return the two models of a result folder: as its summary names them, or its own name."""
    summary = folder / SUMMARY
    if summary.is_file():
        content = read_json(summary, JsonObject)
        first = content.get("model1")
        second = content.get("model2")
        if isinstance(first, str) and isinstance(second, str):
            return first, second
    models = folder.name.split("_vs_")
    if len(models) != 2 or not all(models):
        raise UserError(
            f"--votes: {folder} names no two models: it has no {SUMMARY} with model1 and model2, and"
            " is not called MODEL1_vs_MODEL2"
        )
    return models[0], models[1]


def _outcome_row(
    criterion: str, models: tuple[str, str], question_id: str, votes: tuple[int, int, int]
) -> Row:
    """Return a row of ``outcomes.csv``: the majority of the votes decides."""
    first, second, ties = votes
    outcome: float | str = 0.5
    # A question without a vote has an empty field, which is no tie.
    if first + second + ties == 0:
        outcome = ""
    elif first != second:
        outcome = 1.0 if first > second else 0.0
    return {
        "criterion": criterion,
        "a": models[0],
        "b": models[1],
        "question_id": question_id,
        "reply": 1,
        "votes_a": first,
        "votes_b": second,
        "ties": ties,
        "failed": 0,
        "identical": 0,
        "outcome": outcome,
    }


def _contest(rows: Sequence[Row]) -> Contest:
    """Return what was compared, in the rows' order; texts are not known."""
    # Dictionaries without values: each name once, in the order in which it first comes.
    models: dict[str, None] = {}
    question_ids: dict[str, None] = {}
    criteria: dict[str, None] = {}
    for row in rows:
        models[row["a"]] = None
        models[row["b"]] = None
        question_ids[row["question_id"]] = None
        criteria[row["criterion"]] = None
    # The texts are not known, but two unknown replies must not be taken for the same one.
    replies: dict[str, list[list[Candidate]]] = {}
    for model in models:
        replies[model] = [[Candidate(f"{model}/{number}", "")] for number in question_ids]
    return Contest(
        replies=replies,
        questions=[Question(question_id, "") for question_id in question_ids],
        criteria=[Criterion(name, name, "", "") for name in criteria],
        personas={},
        voters={},
    )
