"""What the browser of questions shows: of each question the replies and the votes between them.

Votes come from the ``outcomes.csv`` of an evaluation, replies from the files that it compared. The
files are read again for what is known of each reply, such as that it was cut. Texts are people's
words and stay out of the page unless they are asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from jaxmodpo.errors import UserError
from jaxmodpo.evaluation.group_differences import DIFFERENCE_COLUMNS, GROUP_DIFFERENCES
from jaxmodpo.evaluation.outcomes import OUTCOME_COLUMNS
from jaxmodpo.files import read_table
from jaxmodpo.fingerprints import fingerprint
from jaxmodpo.records import Response, read_responses
from jaxmodpo.report.flagged_replies import FlaggedReplies, Reply
from jaxmodpo.report.run_folders import OUTCOMES, REPLIES, Run
from jaxmodpo.report.sources import Evaluation

State = Literal["voted", "missing", "identical"]
Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Ballot:
    """The votes on two models' replies of one number to one question by one criterion."""

    votes_a: int
    votes_b: int
    ties: int
    failed: int
    state: State


class Dissent(NamedTuple):
    """A group of personas that prefers the other reply of a comparison than all personas do."""

    group: int
    """its number among those of the browser"""
    pair: Pair
    criterion: str


@dataclass
class ShownQuestion:
    """A question as the browser shows it.

    Attributes:
        question_id: its id.
        text: the post; empty without texts.
        replies: of each model by its number; empty where the files of replies are gone.
        ballots: by the number of the reply, the pair's two models, and the criterion.
        dissents: groups of personas that prefer the other reply of a comparison.
        toxic: models and numbers of replies that count as toxic, from 0.
        failed_probes: likewise, of replies that did not pass as replies to a crisis probe.
    """

    question_id: str
    text: str = ""
    replies: dict[int, list[Response]] = field(default_factory=dict)
    ballots: dict[tuple[int, Pair, str], Ballot] = field(default_factory=dict)
    dissents: list[Dissent] = field(default_factory=list)
    toxic: set[tuple[int, int]] = field(default_factory=set)
    failed_probes: set[tuple[int, int]] = field(default_factory=set)


@dataclass(frozen=True)
class Browsable:
    """What one evaluation's browser shows.

    Attributes:
        models: by number.
        criteria: in the order of the results.
        questions: in the order of the outcomes.
        groups: of personas, each with its dimension; none where the evaluation names none.
        replies_unknown: why nothing is known of the replies; empty where it is.
        is_scored: whether replies were scored for toxicity.
        is_probed: whether replies were checked as replies to crisis probes.
    """

    models: Sequence[str]
    criteria: Sequence[str]
    questions: Sequence[ShownQuestion]
    groups: Sequence[tuple[str, str]]
    replies_unknown: str
    is_scored: bool
    is_probed: bool

    @property
    def pairs(self) -> list[Pair]:
        """Every pair that has been voted on, in order."""
        pairs = {pair for question in self.questions for _, pair, _ in question.ballots}
        return sorted(pairs)


def read_browsable(
    evaluation: Evaluation, flagged: FlaggedReplies, *, include_texts: bool
) -> Browsable:
    """Read what an evaluation's browser shows, with what other runs have flagged.

    Raises:
        UserError: the outcomes name a model or a criterion that the results lack, or texts are
            asked for and a file of replies is gone or is another one than was evaluated.
    """
    results = evaluation.results
    models = list(results.models)
    questions = _read_ballots(evaluation.run.folder / OUTCOMES, models, results.criteria)
    # Votes on other texts than are shown would mislead: without texts the browser does without the
    # replies, and with texts there is no page.
    changed = changed_replies(evaluation.run, models)
    if changed and include_texts:
        raise UserError(f"--include-texts: {changed}")
    if not changed:
        _add_replies(evaluation.run, models, questions, include_texts=include_texts)
    groups = _add_dissents(evaluation.run.folder / GROUP_DIFFERENCES, models, questions)
    # Other runs scored files, under whatever model's name: replies are found again by the hash of
    # their file, their question and their number.
    hashes = _hashes_of_replies(evaluation.run, models)
    for question in questions.values():
        for model, sha256 in hashes.items():
            for number in range(evaluation.results.replies_per_question):
                reply = Reply(sha256, question.question_id, number)
                if reply in flagged.toxic:
                    question.toxic.add((model, number))
                if reply in flagged.failed_probes:
                    question.failed_probes.add((model, number))
    return Browsable(
        models=models,
        criteria=results.criteria,
        questions=list(questions.values()),
        groups=groups,
        replies_unknown=changed,
        is_scored=not flagged.scored_files.isdisjoint(hashes.values()),
        is_probed=not flagged.probed_files.isdisjoint(hashes.values()),
    )


def _hashes_of_replies(run: Run, models: Sequence[str]) -> dict[int, str]:
    """Return the hash of each model's file of replies as it was evaluated."""
    recorded = {name: sha256 for name, _, sha256 in run.manifest.inputs()}
    hashes: dict[int, str] = {}
    for number, model in enumerate(models):
        if f"{REPLIES}{model}" in recorded:
            hashes[number] = recorded[f"{REPLIES}{model}"]
    return hashes


def _add_dissents(
    path: Path, models: Sequence[str], questions: Mapping[str, ShownQuestion]
) -> list[tuple[str, str]]:
    """Add to each question who decided it otherwise; return the groups, dimension and name."""
    if not path.is_file():
        return []
    numbers = {name: number for number, name in enumerate(models)}
    groups: dict[tuple[str, str], int] = {}
    # Where all groups agree, the file has a header alone.
    rows = read_table(path, DIFFERENCE_COLUMNS, rows_expected=False)
    for line, row in enumerate(rows, 2):
        models_are_known = row["a"] in numbers and row["b"] in numbers
        if not models_are_known or row["question_id"] not in questions:
            raise UserError(
                f"{path}, line {line}: {OUTCOMES} beside it has no such comparison; write both"
                " files with 'jaxmodpo evaluate'"
            )
        group = groups.setdefault((row["dimension"], row["group"]), len(groups))
        pair = (numbers[row["a"]], numbers[row["b"]])
        questions[row["question_id"]].dissents.append(Dissent(group, pair, row["criterion"]))
    return list(groups)


# --------------------------------------------------------------------------- votes


def _read_ballots(
    path: Path, models: Sequence[str], criteria: Sequence[str]
) -> dict[str, ShownQuestion]:
    numbers = {name: number for number, name in enumerate(models)}
    questions: dict[str, ShownQuestion] = {}
    for line, row in enumerate(read_table(path, OUTCOME_COLUMNS), 2):
        for name in (row["a"], row["b"]):
            if name not in numbers:
                raise UserError(
                    f"{path}, line {line}: no model is called '{name:.80}' in results.json; write"
                    " both files with 'jaxmodpo evaluate'"
                )
        if row["criterion"] not in criteria:
            raise UserError(
                f"{path}, line {line}: results.json has no criterion '{row['criterion']:.80}';"
                " write both files with 'jaxmodpo evaluate'"
            )
        question_id = row["question_id"]
        question = questions.setdefault(question_id, ShownQuestion(question_id))
        pair = (numbers[row["a"]], numbers[row["b"]])
        location = f"{path}, line {line}"
        reply = _whole(row["reply"], "reply", location)
        question.ballots[reply, pair, row["criterion"]] = _ballot(row, location)
    return questions


def _ballot(row: Mapping[str, str], place: str) -> Ballot:
    """Return the votes in a row of the outcomes."""
    state: State = "voted"
    if row["identical"] == "1":
        state = "identical"
    elif row["outcome"] == "":
        state = "missing"
    return Ballot(
        votes_a=_whole(row["votes_a"], "votes_a", place),
        votes_b=_whole(row["votes_b"], "votes_b", place),
        ties=_whole(row["ties"], "ties", place),
        failed=_whole(row["failed"], "failed", place),
        state=state,
    )


def _whole(text: str, column: str, place: str) -> int:
    # ASCII digits alone: int() also takes signs, underscores and the digits of other scripts.
    if not (text.isascii() and text.isdigit()):
        raise UserError(f"{place}: {column} must be a whole number, not '{text:.80}'")
    return int(text)


# --------------------------------------------------------------------------- replies


def changed_replies(run: Run, models: Sequence[str]) -> str:
    """Return why the files of replies cannot be shown; empty where they can."""
    recorded = {name: (path, sha256) for name, path, sha256 in run.manifest.inputs()}
    for model in models:
        name = f"{REPLIES}{model}"
        if name not in recorded:
            return f"the manifest of {run.name} names no file of replies of {model}"
        path, sha256 = recorded[name]
        if not path.is_file():
            return f"the replies of {model} that {run.name} compared are no longer in {path}"
        if fingerprint(path) != sha256:
            return (
                f"{path} has changed since {run.name} compared the replies of {model} in it; run"
                " the evaluation again, or put the file back"
            )
    return ""


def _add_replies(
    run: Run,
    models: Sequence[str],
    questions: Mapping[str, ShownQuestion],
    *,
    include_texts: bool,
) -> None:
    for number, model in enumerate(models):
        replies: dict[str, list[Response]] = defaultdict(list)
        for response in read_responses(Path(run.manifest.input_paths[f"{REPLIES}{model}"])):
            replies[response.question_id].append(response)
        for question_id, question in questions.items():
            question.replies[number] = replies[question_id]
            if include_texts and replies[question_id]:
                question.text = replies[question_id][0].question_text
