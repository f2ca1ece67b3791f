"""Names for judges and ledgers, as short as tells them apart.

A judge is known by its identity, a hash, in a ledger, a path; neither can be read in a table. Most
of the time the model's name is enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from jaxmodpo.evaluation.vote_table import Judge, Numbers, VoteTable

_NOBODY = -1
"""stands for the judge of a vote that failed"""


def number_judges(
    tables: Sequence[VoteTable],
    sources: Sequence[tuple[str, str]],
    models: Sequence[str],
    valid: int,
) -> tuple[list[Judge], list[VoteTable]]:
    """Find the judges, by ledger, identity and model; return them and the tables with their
    numbers.

    Args:
        tables: whose votes have no judge yet.
        sources: ledger and identity of each source, by number.
        models: by number.
        valid: the number of the status of valid votes. Nobody answered the others.
    """
    codes_by_table = [_codes(table, len(models), valid) for table in tables]
    judge_codes = _distinct_judges(codes_by_table)
    identities: list[tuple[str, str, str]] = []
    for code in judge_codes:
        # The inverse of what _codes does.
        source, model = divmod(code, len(models))
        ledger, identity = sources[source]
        identities.append((ledger, identity, models[model]))
    names = _judge_names(identities)
    judges = [Judge(name, *identity) for name, identity in zip(names, identities, strict=True)]
    numbered: list[VoteTable] = []
    for table, codes in zip(tables, codes_by_table, strict=True):
        # Every judge's code stands in the sorted list, so that the place where it would be put in
        # is its number.
        numbers = np.searchsorted(judge_codes, codes)
        numbers = np.where(codes == _NOBODY, _NOBODY, numbers)
        numbered.append(replace(table, judge=numbers.astype(np.int32)))
    return judges, numbered


def _codes(table: VoteTable, model_count: int, valid: int) -> Numbers:
    """Return who cast each vote, source and model, as one number."""
    # There may be millions of votes, and arrays of numbers are compared in no time.
    codes = table.source.astype(np.int64) * model_count + table.model
    return np.where(table.status == valid, codes, _NOBODY)


def _distinct_judges(codes_by_table: Sequence[Numbers]) -> list[int]:
    """Return the codes of all who cast a vote, each once and sorted; nobody is none of them."""
    distinct_codes: set[int] = set()
    for codes in codes_by_table:
        distinct_codes.update(np.unique(codes).tolist())
    distinct_codes.discard(_NOBODY)
    return sorted(distinct_codes)


def _judge_names(judges: Sequence[tuple[str, str, str]]) -> list[str]:
    """Name each judge, of ledger, identity and model, by as little as tells them apart."""
    # A model may be asked at two endpoints, or with two prompts, whose votes are not one judge's.
    by_model: list[str] = []
    by_ledger: list[str] = []
    in_full: list[str] = []
    for ledger, identity, model in judges:
        model_name = model or identity
        by_model.append(model_name)
        by_ledger.append(f"{model_name} ({ledger})")
        in_full.append(f"{model} ({ledger}: {identity})")
    return _first_distinct([by_model, by_ledger, in_full])


def source_name(source: tuple[str, str], judges: Iterable[Judge]) -> str:
    """Name who was asked by the judges that answered, or by its identity where none did."""
    names = [judge.name for judge in judges if (judge.ledger, judge.identity) == source]
    _, identity = source
    return " or ".join(names) or identity


def short_names(paths: Sequence[str]) -> list[str]:
    """Name files by as many of their last parts as tell them apart."""
    parts_by_path = [Path(path).parts for path in paths]
    longest = max(map(len, parts_by_path), default=1)
    candidates: list[list[str]] = []
    # From the file's name alone to the whole path.
    for count in range(1, longest + 1):
        last_parts = [path_parts[-count:] for path_parts in parts_by_path]
        candidates.append([str(Path(*names)) for names in last_parts])
    return _first_distinct(candidates)


def _first_distinct(candidates: Sequence[list[str]]) -> list[str]:
    """Return the first list of names without a name twice, or the last where all have one."""
    for names in candidates:
        if len(set(names)) == len(names):
            return names
    return candidates[-1]
