"""What an endpoint's model takes and costs, by the family that its name belongs to.

A table, ``configs/judging/models.yaml`` or the user's own, because models come and go faster than
releases: which take a temperature, what their limit of tokens is called, and what a million tokens
cost.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from jaxmodpo.config import builtin, load_yaml
from jaxmodpo.endpoints.usage import Usage
from jaxmodpo.schema import Range, read_as

Price = Annotated[float, Range(least=0)]
"""dollars for a million tokens"""

_TOKENS_PER_PRICE = 1e6


@dataclass(frozen=True)
class Family:
    """One row of the table.

    Attributes:
        match: a pattern that names fit, ``*`` for anything.
        temperature: whether the models take one.
        top_p: whether they take one.
        stop: whether they take stop strings.
        seed: whether they take one.
        limit: the name of the setting that limits an answer's tokens.
        prompt: dollars for a million tokens of prompts; None where no price is known.
        cached: of prompts' tokens that the endpoint had cached.
        answer: of answers' tokens.
        withdrawn: when the models ceased to be, in words; empty while they are.
    """

    match: str
    temperature: bool = True
    top_p: bool = True
    stop: bool = True
    seed: bool = True
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    prompt: Price | None = None
    cached: Price | None = None
    answer: Price | None = None
    withdrawn: str = ""

    def cost(self, usage: Usage) -> float | None:
        """Return dollars for one call's tokens; None where a price is missing."""
        if self.prompt is None or self.answer is None:
            return None
        cached_price = self.prompt if self.cached is None else self.cached
        # The endpoint counts cached tokens among those of the prompt.
        fresh = usage.prompt - usage.cached
        dollars = fresh * self.prompt
        dollars += usage.cached * cached_price
        dollars += usage.completion * self.answer
        return dollars / _TOKENS_PER_PRICE


@dataclass(frozen=True)
class FamiliesFile:
    """A table as it is written.

    Attributes:
        families: the rows; the first whose pattern fits a model's name is the model's.
        batch_discount: the fraction of the price that OpenAI's Batch API takes off.
        as_of: the day on which the prices were looked up, for people.
    """

    families: list[Family]
    batch_discount: Annotated[float, Range(least=0, below=1)] = 0.0
    as_of: str | float = ""


@dataclass(frozen=True)
class Families:
    """The table; ``batch_discount`` is the share of the price that the Batch API takes off."""

    rows: tuple[Family, ...]
    batch_discount: float
    as_of: str

    @classmethod
    def load(cls, source: str | Path = "models") -> Families:
        """Read a table.

        Raises:
            UserError: an unknown or ill-typed field.
        """
        path = builtin("judging", source)
        table = load_yaml(path)
        file = read_as(table, FamiliesFile, str(path))
        return cls(tuple(file.families), float(file.batch_discount), str(file.as_of))

    def of(self, model: str) -> Family:
        """Return the family of a model; one without a known price where none fits."""
        # The first that fits, so that the table names exceptions before what they are excepted
        # from.
        for row in self.rows:
            if fnmatch.fnmatchcase(model, row.match):
                return row
        return Family(model)
