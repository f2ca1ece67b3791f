"""What a judge said of two models: the rows of an evaluation's ``outcomes.csv`` about them.

::

    judged = read_judged(folder / "outcomes.csv", ("modpo", "base"))
    judged["q-113", 1]["empathy"]          # "a": the judge's majority preferred modpo's reply
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxmodpo.errors import UserError, nearest
from jaxmodpo.evaluation.outcomes import OUTCOME_COLUMNS
from jaxmodpo.files import read_table
from jaxmodpo.study.annotations import Preferred

Unit = tuple[str, int]
"""a question, and the number of the models' replies to it, from 1"""

Judged = dict[Unit, dict[str, Preferred]]
"""by unit and criterion; a criterion without a valid vote is absent, a unit without any is empty"""

_OUTCOMES: Mapping[float, Preferred] = {1.0: "a", 0.5: "equal", 0.0: "b"}
_EXCHANGED: Mapping[Preferred, Preferred] = {"a": "b", "b": "a", "equal": "equal"}


def read_judged(path: Path, models: Sequence[str]) -> Judged:
    """Read what a judge said of two models, the first of which is ``a``, whatever the file's order.

    Units whose replies are identical texts are ``equal``, as in the evaluation.

    Raises:
        UserError: the file cannot be read, or does not compare the two models.
    """
    judged: Judged = {}
    names: set[str] = set()
    for line, row in enumerate(read_table(path, OUTCOME_COLUMNS), 2):
        pair = (row["a"], row["b"])
        names.update(pair)
        if set(pair) != set(models):
            continue
        location = f"{path}, line {line}"
        of_unit = judged.setdefault((row["question_id"], _reply(row["reply"], location)), {})
        preferred = _preferred(row["outcome"], location)
        if preferred is not None:
            is_exchanged = row["a"] != models[0]
            of_unit[row["criterion"]] = _EXCHANGED[preferred] if is_exchanged else preferred
    _refuse_other_models(path, models, names, judged)
    return judged


def _refuse_other_models(
    path: Path, models: Sequence[str], names: set[str], judged: Judged
) -> None:
    for model in models:
        if model not in names:
            raise UserError(f"{path} compares no model '{model}'{nearest(model, names)}")
    if not judged:
        raise UserError(f"{path} never compares {models[0]} with {models[1]}")


def _reply(text: str, place: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise UserError(f"{place}: reply must be a whole number from 1, not '{text:.80}'")
    return int(text)


def _preferred(text: str, place: str) -> Preferred | None:
    """Return whom an outcome prefers; None where no vote was valid."""
    if not text:
        return None
    try:
        return _OUTCOMES[float(text)]
    except (ValueError, KeyError):
        raise UserError(f"{place}: outcome must be 1, 0.5, 0 or empty, not '{text:.80}'") from None
