"""Reward margins for MODPO: where they come from, their scale, and what they say before anything is
trained.

A margin is what an objective's reward gives the primary objective's chosen response more than its
rejected one. It comes from a reward model, from an adapter's implicit reward, or from a column that
stands beside the pairs::

    sources = margin_sources({"safety": "out/reward_safety/model", "warmth": "column:warmth"})
    margins = read_margins(sources, config.pairs, data, run, Scaling(), beta=0.1)
    print(margins.rewards_table())
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxmodpo.data.comparisons import Comparisons
from jaxmodpo.data.pairs import load_column
from jaxmodpo.errors import UserError
from jaxmodpo.fingerprints import fingerprint
from jaxmodpo.methods.align import PolicyRun, TrainingData
from jaxmodpo.methods.reward_model import rewards_of_pairs
from jaxmodpo.policy.loaded import with_adapter
from jaxmodpo.ranges import Positive
from jaxmodpo.results.manifest import MANIFEST, find_manifest
from jaxmodpo.schema import read_as
from jaxmodpo.training.cache import cached, examples_digest

logger = logging.getLogger(__name__)

Kind = Literal["reward", "adapter", "column"]
QUANTILES = (5, 25, 50, 75, 95)


@dataclass(frozen=True)
class MarginSource:
    """Where one objective's margins come from.

    Attributes:
        kind: a reward model's folder, an adapter's folder, or one or two columns.
        where: the folder, or the columns' names with a comma between.
    """

    kind: Kind
    where: str

    @classmethod
    def parse(cls, text: str) -> MarginSource:
        """Read ``FOLDER``, ``adapter:FOLDER``, ``column:MARGIN`` or ``column:CHOSEN,REJECTED``."""
        for kind in ("adapter", "column"):
            if text.startswith(f"{kind}:"):
                path_or_columns = text.removeprefix(f"{kind}:")
                if not path_or_columns or (
                    kind == "column" and len(path_or_columns.split(",")) > 2
                ):
                    raise UserError(
                        f"--margin '{text}' must be adapter:FOLDER, column:NAME or"
                        " column:CHOSEN,REJECTED"
                    )
                return cls(kind, path_or_columns)
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

    def rewards_table(self) -> str:
        """Lay out each margin's distribution, and how it goes with the primary preference and the
        other margins.

        The correlation takes every pair in both orders, as +1 and −1 against the margin and its
        negative: mean(m) / √mean(m²). It is 1 where an objective repeats the primary and −1 where
        it opposes it.
        """
        width = max(6, *map(len, self.names))
        quantiles = "".join(f"{quantile}%".rjust(8) for quantile in QUANTILES)
        lines = [
            f"{'margin':<{width}}{'mean':>8}{'std':>8}{quantiles}{'agrees':>8}{'correlation':>13}"
        ]
        for name, figures in self.description.items():
            numbers = [figures["margin_mean"], figures["margin_std"], *figures["margin_quantiles"]]
            cells = "".join(f"{number:8.2f}" for number in numbers)
            correlation = figures["correlation_with_primary"]
            lines.append(
                f"{name:<{width}}{cells}{figures['agrees_with_primary']:8.0%}"
                f"{correlation:+13.2f}  {_verdict(correlation)}"
            )
        for second, second_name in enumerate(self.names):
            for first, first_name in enumerate(self.names[:second]):
                r = _uncentered(self.values[:, first], self.values[:, second])
                lines.append(f"{first_name} and {second_name}: correlation {r:+.2f}")
        return "\n".join(lines)


def margin_sources(margin: Mapping[str, str]) -> dict[str, MarginSource]:
    """Read ``--margin`` settings.

    Raises:
        UserError: none is given, or one is malformed.
    """
    if not margin:
        raise UserError(
            "align modpo needs at least one --margin NAME=SOURCE, as in"
            " safety=out/reward_safety/model"
        )
    return {name: MarginSource.parse(text) for name, text in margin.items()}


@dataclass(frozen=True)
class Scaling:
    """How rewards become margins.

    Attributes:
        standardize: divide each reward by its standard deviation over the training pairs'
            responses. Of a margin column the rewards are not known; its root mean square over √2
            stands for it, which is the same where a pair's two rewards are independent.
        gain: multiplies every margin after that.
    """

    standardize: bool = False
    gain: float = 1.0


def read_margins(
    sources: Mapping[str, MarginSource],
    pairs_file: Path,
    data: TrainingData,
    run: PolicyRun,
    scaling: Scaling,
    *,
    beta: float,
) -> Margins:
    """Return the margins of a run's pairs; rewards are computed once per model and data set.

    Args:
        sources: of the margins, by objective.
        pairs_file: the primary objective's, where columns stand.
        data: the primary objective's pairs, and their tokens.
        run: its policy's base is what adapters belong to; its settings say how many questions'
            replies are scored at a time, where rewards are cached and which pairs are held out.
        scaling: how rewards become margins.
        beta: of implicit rewards, where the adapter's run does not say which it was trained with.

    Raises:
        UserError: a source is not what it should be, rewards are not finite, too large for float32,
            or all equal and to be standardized; or nothing is left to train on.
    """
    # Before any model is run: scales are those of the pairs that are trained on.
    is_trained_on = ~run.config.held_out(data.questions)
    if not is_trained_on.any():
        raise UserError(
            f"{len(data.pairs)} examples leave none to train on; lower --validation-fraction"
        )
    columns: list[np.ndarray] = []
    description: dict[str, dict[str, Any]] = {}
    for name, source in sources.items():
        title = f"the margin {name} ({source.where})"
        rewards = _rewards(name, source, pairs_file, data, run, beta)
        assert len(rewards) == len(data.pairs), name
        if not np.isfinite(rewards).all():
            raise UserError(f"{title} is not finite on {_count_not_finite(rewards)} pairs")
        margins, deviation, scale = _scaled(rewards, is_trained_on, scaling, title)
        columns.append(margins)
        description[name] = {
            "source": source.kind,
            "reward_std": deviation,
            "scale": scale,
            **describe(margins),
        }
    return Margins(tuple(sources), np.stack(columns, axis=1), description)


def _scaled(
    rewards: np.ndarray, is_trained_on: np.ndarray, scaling: Scaling, title: str
) -> tuple[np.ndarray, float, float]:
    """Return the margins of one objective, ``[pairs]`` float32, the rewards' standard deviation and
    what the margins were multiplied by.

    Args:
        rewards: as :func:`_rewards` returns them, all finite.
        is_trained_on: ``[pairs]`` bool. The scale knows nothing of the held-out pairs, so that it
            is the same whatever they hold.
        scaling: how rewards become margins.
        title: of the margin in errors.

    Raises:
        UserError: the margins are too large for float32, or all rewards equal and to be
            standardized.
    """
    training_rewards = rewards[is_trained_on]
    # What overflows here, in squares or in float32, is refused below.
    with np.errstate(over="ignore", invalid="ignore"):
        if rewards.ndim == 2:
            deviation = float(training_rewards.std())
            margins = rewards[:, 0] - rewards[:, 1]
        else:
            # The difference of two independent rewards has twice the variance of one. The mean is
            # not subtracted: which of two replies is called chosen is the primary's decision, and
            # a margin's sign turns with it, while its size does not.
            deviation = float(np.sqrt(np.mean(training_rewards**2) / 2))
            margins = rewards
        if scaling.standardize and deviation == 0:
            raise UserError(f"{title} gives every response the same reward")
        unit = deviation if scaling.standardize else 1.0
        scale = scaling.gain / unit
        scaled_margins = (scale * margins).astype(np.float32)
    if not math.isfinite(deviation) or not np.isfinite(scaled_margins).all():
        largest = float(np.abs(rewards).max())
        raise UserError(
            f"{title} is too large to train with: its values reach"
            f" {largest:.3g}, and --margin-gain is {scaling.gain:g}"
        )
    return scaled_margins, deviation, scale


def describe(margins: np.ndarray) -> dict[str, Any]:
    """Return figures of one objective's margins ``[pairs]``, chosen by the primary minus
    rejected.
    """
    values = np.asarray(margins, np.float64)
    # A margin of 0 agrees with nothing and opposes nothing.
    agreement = np.where(values == 0, 0.5, values > 0)
    return {
        "margin_mean": float(values.mean()),
        "margin_std": float(values.std()),
        "margin_quantiles": np.percentile(values, QUANTILES).tolist(),
        "agrees_with_primary": float(agreement.mean()),
        "correlation_with_primary": _uncentered(values, np.ones_like(values)),
    }


def _uncentered(first: np.ndarray, second: np.ndarray) -> float:
    """Return the correlation of two antisymmetric quantities over pairs taken in both orders."""
    first = np.asarray(first, np.float64)
    second = np.asarray(second, np.float64)
    # Taken in both orders, each quantity has the mean 0: nothing is subtracted.
    scale = np.sqrt(np.mean(first**2) * np.mean(second**2))
    if not scale > 0:
        return 0.0
    return float(np.mean(first * second) / scale)


def _verdict(correlation: float) -> str:
    if correlation >= 0.8:
        return "repeats the primary: little to gain from it"
    if correlation <= -0.2:
        return "conflicts with the primary"
    return "independent of the primary" if correlation < 0.2 else "goes partly with the primary"


def _count_not_finite(rewards: np.ndarray) -> int:
    """Count the pairs of which a reward, or the margin, is not finite."""
    not_finite = ~np.isfinite(rewards)
    return int(not_finite.reshape(len(rewards), -1).any(axis=1).sum())


def _rewards(
    name: str,
    source: MarginSource,
    pairs_file: Path,
    data: TrainingData,
    run: PolicyRun,
    beta: float,
) -> np.ndarray:
    """Return rewards ``[pairs, 2]``, chosen then rejected, or where only margins are known
    ``[pairs]``.
    """
    if source.kind == "column":
        # One column is a margin, two are the rewards of the chosen and the rejected reply.
        names = source.where.split(",")
        columns = [load_column(pairs_file, column, data.pairs) for column in names]
        return columns[0] if len(columns) == 1 else np.stack(columns, axis=1)
    folder = Path(source.where)
    if source.kind == "reward":
        return rewards_of_pairs(
            folder,
            list(data.pairs),
            batch_size=run.config.batch_size,
            cache_dir=run.config.cache_dir,
        )
    # An implicit reward is in the unit of the β that its adapter was trained with, which may be
    # another than this run's.
    beta = _trained_beta(folder) or beta
    logger.info("margin %s: implicit reward of %s, beta %g", name, folder, beta)
    return beta * _log_ratios(folder, data.comparisons, run)


def _log_ratios(adapter: Path, comparisons: Comparisons, run: PolicyRun) -> np.ndarray:
    """Return log π − log π_ref of every pair's completions under an adapter, ``[pairs, 2]``.

    Times β it is the reward for which the adapter is the optimal policy (Rafailov et al., *Direct
    Preference Optimization*, 2023, equation 5), up to a term of the question alone, which a margin
    does not have.
    """
    config = run.config
    policy = with_adapter(run.policy, adapter)
    questions = comparisons.by_question()
    examples = questions.examples

    def compute() -> np.ndarray:
        adapted = policy.logps(examples, config.batch_size, batching=config.batching)
        reference = policy.logps(
            examples, config.batch_size, reference=True, batching=config.batching
        )
        return adapted - reference

    # Without β: it multiplies what is read, and another β needs no scoring.
    depends_on = {
        "model": fingerprint(config.model),
        "adapter": fingerprint(adapter),
        "base_dtype": config.base_dtype,
        "examples": examples_digest(examples),
        "rows": config.batch_size,
        "batching": config.batching,
        "mesh": [int(size) for size in policy.mesh.shape.values()],
        "attention": config.attention,
    }
    log_ratios = cached("implicit-rewards", depends_on, compute, config.cache_dir)
    return questions.of_comparisons(log_ratios)


def _trained_beta(adapter: Path) -> float | None:
    """Return the β that an adapter was trained with, if the run's manifest lies beside it."""
    manifest = find_manifest(adapter.parent)
    beta = None if manifest is None else manifest.identity.settings.get("beta")
    if beta is None:
        return None
    source = str(adapter.parent / MANIFEST)
    return float(read_as(beta, Positive, source, "identity", "settings", "beta"))
