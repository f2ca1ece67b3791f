"""Reward margins for MODPO: where they come from, their scale, and what they say before anything is
trained.

A margin is what an objective's reward gives the primary objective's chosen response more than its
rejected one. It comes from a reward model, from an adapter's implicit reward, or from a column that
stands beside the pairs.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxmodpo.data.examples import Examples
from jaxmodpo.data.pairs import load_column
from jaxmodpo.errors import UserError
from jaxmodpo.fingerprints import fingerprint
from jaxmodpo.methods.reward_model import rewards_of_pairs
from jaxmodpo.policy.loaded import Policy, with_adapter
from jaxmodpo.ranges import Positive
from jaxmodpo.records import Pair
from jaxmodpo.results.manifest import MANIFEST, find_manifest
from jaxmodpo.schema import read_as
from jaxmodpo.training.cache import cached, examples_digest
from jaxmodpo.training.settings import PolicyTrainingConfig

logger = logging.getLogger(__name__)

Kind = Literal["reward", "adapter", "column"]
QUANTILES = (5, 25, 50, 75, 95)


@dataclass(frozen=True)
class Source:
    """Where one objective's margins come from.

    Attributes:
        kind: a reward model's folder, an adapter's folder, or one or two columns.
        where: the folder, or the columns' names with a comma between.
    """

    kind: Kind
    where: str

    @classmethod
    def parse(cls, text: str) -> Source:
        """Read ``FOLDER``, ``adapter:FOLDER``, ``column:MARGIN`` or ``column:CHOSEN,REJECTED``."""
        for kind in ("adapter", "column"):
            if text.startswith(f"{kind}:"):
                where = text.removeprefix(f"{kind}:")
                if not where or (kind == "column" and len(where.split(",")) > 2):
                    raise UserError(
                        f"--margin '{text}' must be adapter:FOLDER, column:NAME or"
                        " column:CHOSEN,REJECTED"
                    )
                return cls(kind, where)
        return cls("reward", text)

    @property
    def folder(self) -> Path | None:
        """What a run depends on besides its pairs."""
        return None if self.kind == "column" else Path(self.where)


@dataclass(frozen=True)
class Margins:
    """The margins of every further objective on the primary's pairs.

    Attributes:
        names: of the objectives.
        values: ``[pairs, margins]`` float32, chosen minus rejected, scaled.
        description: of each objective's, for the manifest.
    """

    names: tuple[str, ...]
    values: np.ndarray
    description: dict[str, dict[str, Any]]

    def table(self) -> str:
        """Lay out each margin's distribution, and how it goes with the primary preference and the
        other margins.

        The correlation takes every pair in both orders, as +1 and −1 against the margin and its
        negative: mean(m) / √mean(m²). It is 1 where an objective repeats the primary and −1 where
        it opposes it.
        """
        width = max(6, *map(len, self.names))
        quantiles = "".join(f"{f'{q}%':>8}" for q in QUANTILES)
        lines = [
            f"{'margin':<{width}}{'mean':>8}{'std':>8}{quantiles}{'agrees':>8}{'correlation':>13}"
        ]
        for name, said in self.description.items():
            numbers = [said["margin_mean"], said["margin_std"], *said["margin_quantiles"]]
            cells = "".join(f"{number:8.2f}" for number in numbers)
            verdict = _verdict(said["correlation_with_primary"])
            lines.append(
                f"{name:<{width}}{cells}{said['agrees_with_primary']:8.0%}"
                f"{said['correlation_with_primary']:+13.2f}  {verdict}"
            )
        for first in range(len(self.names)):
            for second in range(first):
                r = _uncentred(self.values[:, first], self.values[:, second])
                lines.append(f"{self.names[second]} and {self.names[first]}: correlation {r:+.2f}")
        return "\n".join(lines)


def margin_sources(margin: Mapping[str, str]) -> dict[str, Source]:
    """Read ``--margin`` settings.

    Raises:
        UserError: none is given, or one is malformed.
    """
    if not margin:
        raise UserError(
            "align modpo needs at least one --margin NAME=SOURCE, as in"
            " safety=out/reward_safety/model"
        )
    return {name: Source.parse(text) for name, text in margin.items()}


def read_margins(
    sources: Mapping[str, Source],
    path: Path,
    pairs: Sequence[Pair],
    examples: Examples,
    policy: Policy,
    config: PolicyTrainingConfig,
    *,
    beta: float,
    standardize: bool,
    gain: float,
    training: np.ndarray,
) -> Margins:
    """Return the margins of given pairs; rewards are computed once per model and data set.

    Args:
        sources: of the margins, by objective.
        path: the pairs' file, for columns.
        pairs: the primary objective's.
        examples: the pairs as tokens, with the reference's log-probabilities if the run has them.
        policy: whose base the adapters belong to.
        config: batch size and cache.
        beta: of implicit rewards, where the adapter's run does not say which it was trained with.
        standardize: divide each reward by its standard deviation over the training pairs'
            responses. Of a margin column the rewards are not known; its root mean square over √2
            stands for it, which is the same where a pair's two rewards are independent.
        gain: multiplies every margin after that.
        training: ``[pairs]`` bool, those that are trained on; the scale knows nothing of the
            held-out ones.

    Raises:
        UserError: a source is not what it should be, rewards are not finite, too large for float32,
            or all equal and to be standardized; or nothing is left to train on.
    """
    if not training.any():
        raise UserError(
            f"{len(pairs)} examples leave none to train on; lower --validation-fraction"
        )
    columns, description = [], {}
    for name, source in sources.items():
        rewards = _rewards(name, source, path, pairs, examples, policy, config, beta)
        assert len(rewards) == len(pairs) == len(training), name
        if not np.isfinite(rewards).all():
            raise UserError(
                f"the margin {name} ({source.where}) is not finite on {_count_bad(rewards)} pairs"
            )
        known = rewards[training]
        # What overflows here is refused below.
        with np.errstate(over="ignore", invalid="ignore"):
            if rewards.ndim == 2:
                spread, margins = float(known.std()), rewards[:, 0] - rewards[:, 1]
            else:
                spread, margins = float(np.sqrt(np.mean(known**2) / 2)), rewards
            if standardize and spread == 0:
                raise UserError(
                    f"the margin {name} ({source.where}) gives every response the same reward"
                )
            scale = gain / (spread if standardize else 1.0)
            columns.append((scale * margins).astype(np.float32))
        if not math.isfinite(spread) or not np.isfinite(columns[-1]).all():
            largest = float(np.abs(rewards).max())
            raise UserError(
                f"the margin {name} ({source.where}) is too large to train with: its values reach"
                f" {largest:.3g}, and --margin-gain is {gain:g}"
            )
        description[name] = {
            "source": source.kind,
            "reward_std": spread,
            "scale": scale,
            **describe(columns[-1]),
        }
    return Margins(tuple(sources), np.stack(columns, axis=1), description)


def describe(margins: np.ndarray) -> dict[str, Any]:
    """Return figures of one objective's margins ``[pairs]``, chosen by the primary minus
    rejected.
    """
    values = np.asarray(margins, np.float64)
    return {
        "margin_mean": float(values.mean()),
        "margin_std": float(values.std()),
        "margin_quantiles": [float(q) for q in np.percentile(values, QUANTILES)],
        # A margin of 0 agrees with nothing and opposes nothing.
        "agrees_with_primary": float(((values > 0) + 0.5 * (values == 0)).mean()),
        "correlation_with_primary": _uncentred(values, np.ones_like(values)),
    }


def _uncentred(first: np.ndarray, second: np.ndarray) -> float:
    """Return the correlation of two antisymmetric quantities over pairs taken in both orders."""
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    scale = np.sqrt(np.mean(first**2) * np.mean(second**2))
    return float(np.mean(first * second) / scale) if scale > 0 else 0.0


def _verdict(correlation: float) -> str:
    if correlation >= 0.8:
        return "repeats the primary: little to gain from it"
    if correlation <= -0.2:
        return "conflicts with the primary"
    return "independent of the primary" if correlation < 0.2 else "goes partly with the primary"


def _count_bad(rewards: np.ndarray) -> int:
    return int((~np.isfinite(rewards)).reshape(len(rewards), -1).any(axis=1).sum())


def _rewards(
    name: str,
    source: Source,
    path: Path,
    pairs: Sequence[Pair],
    examples: Examples,
    policy: Policy,
    config: PolicyTrainingConfig,
    beta: float,
) -> np.ndarray:
    """Return rewards ``[pairs, 2]``, chosen then rejected, or where only margins are known
    ``[pairs]``.
    """
    if source.kind == "column":
        columns = [load_column(path, column, pairs) for column in source.where.split(",")]
        return columns[0] if len(columns) == 1 else np.stack(columns, axis=1)
    folder = Path(source.where)
    if source.kind == "reward":
        return rewards_of_pairs(
            folder, list(pairs), batch_size=config.batch_size, cache_dir=config.cache_dir
        )
    beta = _beta_of(folder) or beta
    logger.info("margin %s: implicit reward of %s, beta %g", name, folder, beta)
    other = with_adapter(policy, folder)

    def compute() -> np.ndarray:
        shared: dict[str, Any] = {"batching": config.batching}
        adapted = other.logps(examples, config.batch_size, **shared)
        return adapted - other.logps(examples, config.batch_size, reference=True, **shared)

    depends_on = {
        "model": fingerprint(config.model),
        "adapter": fingerprint(folder),
        "base_dtype": config.base_dtype,
        "examples": examples_digest(examples),
        "rows": config.batch_size,
        "batching": config.batching,
        "mesh": [int(size) for size in policy.mesh.shape.values()],
        "attention": config.attention,
    }
    return beta * cached("implicit-rewards", depends_on, compute, config.cache_dir)


def _beta_of(adapter: Path) -> float | None:
    """Return the β that an adapter was trained with, if the run's manifest lies beside it."""
    manifest = find_manifest(adapter.parent)
    beta = None if manifest is None else manifest.identity.settings.get("beta")
    if beta is None:
        return None
    source = str(adapter.parent / MANIFEST)
    return float(read_as(beta, Positive, source, "identity", "settings", "beta"))
