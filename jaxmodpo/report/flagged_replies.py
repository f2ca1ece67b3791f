"""Which replies of an evaluation other runs have flagged: as toxic, or as failing a crisis probe.

Replies are the same where their file is: a run that scored ``base.csv`` says something of an
evaluation's replies if both manifests have the same hash of it, whatever the models are called.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from jaxmodpo.errors import UserError
from jaxmodpo.files import read_table
from jaxmodpo.report.run_folders import REPLIES, SCORES, VERDICTS, Run
from jaxmodpo.results.toxicity import TOXICITY, ToxicityResults
from jaxmodpo.results.versioned import read_result


class Reply(NamedTuple):
    """A reply by its place."""

    sha256: str
    """of the file that it stands in"""
    question_id: str
    number: int
    """among the replies to its question, from 0"""


class FlaggedReplies(NamedTuple):
    """What other runs say of replies.

    Attributes:
        scored_files: hashes of the files that were scored for toxicity.
        toxic: replies at or above the threshold.
        probed_files: hashes of the files whose replies were checked as replies to crisis probes.
        failed_probes: replies that did not pass.
    """

    scored_files: frozenset[str]
    toxic: frozenset[Reply]
    probed_files: frozenset[str]
    failed_probes: frozenset[Reply]


def read_flagged(runs: Sequence[Run]) -> FlaggedReplies:
    """Read what finished runs of ``toxicity`` and ``probes`` say of replies.

    Raises:
        UserError: a score or a number is none.
    """
    scored_files: set[str] = set()
    toxic: set[Reply] = set()
    probed_files: set[str] = set()
    failed: set[Reply] = set()
    for run in runs:
        hash_of_model = _hash_of_model(run)
        if run.command == "toxicity" and (run.folder / SCORES).is_file():
            scored_files.update(hash_of_model.values())
            toxic.update(_toxic(run, hash_of_model))
        if run.command == "probes" and (run.folder / VERDICTS).is_file():
            probed_files.update(hash_of_model.values())
            failed.update(_failed(run, hash_of_model))
    return FlaggedReplies(
        frozenset(scored_files), frozenset(toxic), frozenset(probed_files), frozenset(failed)
    )


def _hash_of_model(run: Run) -> dict[str, str]:
    """Return the hash of each model's file of replies, of those that were read or written."""
    hashes: dict[str, str] = {}
    for name, _, sha256 in run.manifest.inputs():
        if name.startswith(REPLIES):
            hashes[name.removeprefix(REPLIES)] = sha256
    for name, output in run.manifest.outputs.items():
        model, _, file = name.rpartition("/")
        if file == "responses.csv" and model:
            hashes[model] = output.sha256
    return hashes


def _toxic(run: Run, hash_of_model: dict[str, str]) -> Iterator[Reply]:
    results = read_result(run.folder / TOXICITY, ToxicityResults)
    path = run.folder / SCORES
    needed = ("model", "question_id", "number", results.headline)
    for line, row in enumerate(read_table(path, needed), 2):
        location = f"{path}, line {line}"
        score = row[results.headline]
        if score and _number(score, results.headline, location) >= results.threshold:
            number = int(_number(row["number"], "number", location)) - 1
            if row["model"] in hash_of_model:
                yield Reply(hash_of_model[row["model"]], row["question_id"], number)


def _failed(run: Run, hash_of_model: dict[str, str]) -> Iterator[Reply]:
    path = run.folder / VERDICTS
    needed = ("model", "probe_id", "number", "passed")
    for line, row in enumerate(read_table(path, needed), 2):
        if row["passed"] == "no" and row["model"] in hash_of_model:
            number = int(_number(row["number"], "number", f"{path}, line {line}"))
            yield Reply(hash_of_model[row["model"]], row["probe_id"], number)


def _number(text: str, column: str, place: str) -> float:
    """Read a finite number.

    Raises:
        UserError: the text is none; the message names the place and the column.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{place}: {column} must be a number, not '{text:.80}'")
    return number
