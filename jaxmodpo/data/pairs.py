"""Preference pairs and rankings from files, in every layout that people have.

All become :class:`jaxmodpo.records.Pair`, so that training knows one layout. Question and response
ids are made from the texts where a file has none::

    pairs = load_pairs(Path("safety_rankings.json"), per_question="all")
    margins = load_column(Path("helpful.parquet"), "margin", load_pairs(Path("helpful.parquet")))
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxmodpo.data.layouts import pair_of_row
from jaxmodpo.data.rows import json_list, read_rows
from jaxmodpo.errors import UserError
from jaxmodpo.rankings import LeftOut, PairsPerQuestion, pairs_of
from jaxmodpo.records import Pair, Ranking, read_rankings

logger = logging.getLogger(__name__)


def load_pairs(
    path: Path, per_question: PairsPerQuestion = "best-worst", left_out: LeftOut | None = None
) -> list[Pair]:
    """Read preference pairs, or make them of the rankings in a ``{criterion}_rankings.json``.

    The file's kind follows from its name: ``.json`` (a list), ``.jsonl`` or ``.jsonl.gz``,
    ``.parquet``, ``.csv``, or a folder written by ``datasets``. A row is in one of these layouts:

    - the authors': ``question_id, question_text, chosen, rejected``, the last two with
      ``response_id`` and ``response_text``;
    - ``prompt, chosen, rejected`` as texts, or as lists of ``{role, content}`` messages; chosen and
      rejected may be whole conversations that repeat the prompt, as UltraFeedback's are;
    - ``chosen, rejected`` alone, as message lists that begin alike, or as HH-RLHF's
      ``"\\n\\nHuman: … \\n\\nAssistant: …"`` transcripts: what they share is the prompt.

    A prompt of one message is its text; a longer one becomes lines that begin with ``User:`` or
    ``Assistant:``, and so does a response of several messages, where two conversations part before
    their last message. ``question_id``, ``chosen_response_id`` and ``rejected_response_id`` beside
    these layouts are taken; otherwise ids are digests of the texts. Rows whose two responses are
    equal carry no preference: they are an error, except in HH-RLHF's transcripts, where a user
    cannot mend the published file: those are left out and counted in the log. An empty reply in a
    transcript stays, since it was preferred or not like any other.

    Args:
        path: the file or folder.
        per_question: how many pairs are made of a ranking, see :func:`pairs_of`. A file of pairs is
            taken as it is, so that a number makes no sense there.
        left_out: counts what is left out of rankings.

    Raises:
        UserError: unreadable, no rows, or a row that lacks a field or prefers nothing; it names
            file and row. Or ``per_question`` asks a number of a file of pairs.
    """
    if holds_rankings(path):
        return pairs_of(load_rankings(path), per_question, left_out)
    if isinstance(per_question, int):
        raise UserError(
            f"--pairs-per-question {per_question} needs rankings, as in safety_rankings.json;"
            f" {path} holds pairs"
        )
    pairs: list[Pair] = []
    equal_responses = 0
    for number, row in enumerate(read_rows(path), 1):
        pair = pair_of_row(row, f"{path}, row {number}")
        if pair is None:
            equal_responses += 1
        else:
            pairs.append(pair)
    if equal_responses:
        logger.warning("%s: %d rows with equal responses left out", path, equal_responses)
    if not pairs:
        raise UserError(f"{path} holds no preference pairs")
    return pairs


def count_rows(path: Path) -> int:
    """Return how many rows a file of pairs or rankings has, in any layout that :func:`load_pairs`
    reads.

    Raises:
        UserError: it cannot be read.
    """
    return sum(1 for _ in read_rows(path))


def holds_rankings(path: Path) -> bool:
    """Tell a file of rankings from one of pairs."""
    if path.suffix != ".json" or not path.is_file():
        return False
    first = next(json_list(path), None)
    return isinstance(first, Mapping) and "ranking" in first


def load_rankings(path: Path) -> list[Ranking]:
    """Read a ``{criterion}_rankings.json``.

    Raises:
        UserError: it is none, or a ranking has fewer than two responses.
    """
    if not holds_rankings(path):
        raise UserError(
            f"{path} holds no rankings; 'jaxmodpo preferences' writes them as"
            " CRITERION_rankings.json"
        )
    rankings = read_rankings(path)
    for ranking in rankings:
        if len(ranking.candidates) < 2:
            raise UserError(
                f"{path}: the ranking of question {ranking.question_id} has fewer than two"
                " responses"
            )
    return rankings


def load_column(path: Path, name: str, pairs: Sequence[Pair]) -> np.ndarray:
    """Read a column of numbers that stands beside pairs, ``[pairs]`` float64.

    Args:
        path: the file that the pairs were read from.
        name: the column's.
        pairs: what :func:`load_pairs` gave; each number belongs to the pair of its row.

    Raises:
        UserError: the file holds rankings, a row lacks the column or holds no finite number there,
            or the file holds other pairs than these.
    """
    if holds_rankings(path):
        raise UserError(f"{path} holds rankings, which have no column '{name}'; give pairs")
    values: list[float] = []
    for number, row in enumerate(read_rows(path), 1):
        location = f"{path}, row {number}"
        pair = pair_of_row(row, location)
        if pair is None:
            continue
        # The file is read a second time, and rows are matched by their order: a number must not go
        # to another pair because somebody saved the file in between.
        if len(values) == len(pairs) or pair != pairs[len(values)]:
            raise UserError(
                f"{location}: another pair than when the pairs were read; let nobody write to the file"
            )
        try:
            value = float(row[name])
        except (KeyError, TypeError, ValueError, OverflowError):
            value = math.nan
        if not math.isfinite(value):
            value_in_words = f"{row.get(name, 'it is missing')}"[:60]
            raise UserError(
                f"{location}: the column '{name}' holds no finite number: {value_in_words}"
            )
        values.append(value)
    if len(values) < len(pairs):
        raise UserError(
            f"{path} holds {len(values)} pairs and not {len(pairs)} as when they were read"
        )
    return np.array(values)
