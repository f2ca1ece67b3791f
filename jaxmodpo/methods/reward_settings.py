"""What ``reward`` can be told, and what ``--all`` makes of it: a model for each criterion, less
those that are there already.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from jaxmodpo.costs import REPLIES_PER_RANKING, Cost, Estimates
from jaxmodpo.criteria import load_criteria
from jaxmodpo.data.batches import Batching
from jaxmodpo.data.text import SHORTEST_REWARD_TEXT
from jaxmodpo.errors import UserError
from jaxmodpo.flags.help_groups import HelpGroup
from jaxmodpo.models.remat import RematSetting
from jaxmodpo.ranges import (
    CommandSettings,
    Count,
    FractionBelowOne,
    Incidental,
    NotNegative,
    Positive,
)
from jaxmodpo.rankings import PairsPerQuestion
from jaxmodpo.results.manifest import find_manifest
from jaxmodpo.schema import Range
from jaxmodpo.training.settings import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class RewardConfig(TrainingConfig, CommandSettings, help_group="data"):
    """Train a reward model for one criterion, or with --all for each of a criteria file."""

    model: Path
    """Hugging Face folder of a pretrained RoBERTa."""
    pairs: Path | None = None
    """File of preference pairs, or of rankings that pairs are made of. It is trained on with the
    Bradley–Terry loss."""
    rankings: Path | None = None
    """File of rankings, which are taken whole. It is trained on with the Plackett–Luce loss."""
    pairs_per_question: PairsPerQuestion = "best-worst"
    """Pairs that are made of each ranking in --pairs. best-worst: its two ends; all: every two
    replies; a number: that many pairs, the widest gaps first."""
    all: bool = False
    """Train a model for every criterion. --pairs or --rankings is then the folder that
    'preferences' wrote."""
    criteria: str = "therapeutic"
    """Criteria file for --all, or the name of one of ours (therapeutic, gricean)."""
    only: tuple[str, ...] = ()
    """Criteria that --all trains. By default these are all that say what is better and worse, so
    not 'overall'."""
    refit: Annotated[bool, HelpGroup("validation")] = False
    """Train with a held-out part first, and then on everything for the number of epochs that was
    best. The figures reported are the first training's."""
    validation: Annotated[Path | None, HelpGroup("validation")] = None
    """File validation.json of a search, whose figures a model trained on everything carries. It
    needs --validation-fraction 0."""
    learning_rate: Positive = 2e-5
    """Highest learning rate. It is reached after the warm-up and decays to 0 as a cosine."""
    epochs: Count = 5
    """Passes over the data."""
    weight_decay: NotNegative = 0.03
    """Weight decay, decoupled from the gradient as in AdamW."""
    max_length: Annotated[int, Range(least=SHORTEST_REWARD_TEXT), HelpGroup("text")] = 512
    """Most tokens of question and response together. A longer response loses its end."""
    dropout: Annotated[FractionBelowOne | None, HelpGroup("model")] = None
    """Dropout of hidden states and of the head. By default it is the model's own."""
    remat: Annotated[Incidental[RematSetting], HelpGroup("computation")] = "auto"
    """What the backward pass computes again to save memory. auto: as little as fits the devices;
    none: nothing; dots: all but matrix products; attention: all but attention; full: whole layers;
    offload: whole layers, whose inputs lie in the host's memory."""
    batching: Annotated[Batching, HelpGroup("computation")] = "packed"
    """How texts lie in a batch. packed: end to end in rows, told apart by segment numbers; padded:
    each in a row of its own."""

    def check(self) -> None:
        super().check()
        if (self.pairs is None) == (self.rankings is None):
            raise UserError("reward needs either --pairs or --rankings")
        if self.rankings is not None and self.pairs_per_question != "best-worst":
            raise UserError(
                "--pairs-per-question makes pairs of rankings; with --rankings they are taken whole"
            )
        if self.validation is not None and (self.validation_fraction or self.refit):
            raise UserError(
                "--validation carries figures from elsewhere: it needs --validation-fraction 0, no"
                " --refit"
            )
        if self.validation is not None and self.all:
            raise UserError(
                "--validation holds the figures of one model, and --all trains one for every"
                " criterion"
            )
        if self.refit and self.validation_fraction == 0:
            raise UserError("--refit needs a --validation-fraction to validate on first")

    def input_paths(self) -> dict[str, Path]:
        if not self.all:
            return super().input_paths()
        return {"model": self.model} | planned(self)[0]

    def cost(self, estimator: Estimates) -> Cost:
        files = list(planned(self)[0].values()) if self.all else [self.rankings or self.pairs]
        return estimator.reward_training(
            self, [self._sequences(estimator, path) for path in files if path]
        )

    def _sequences(self, estimator: Estimates, data: Path) -> int:
        """Return how many replies a file of pairs or rankings brings into training."""
        if self.rankings:
            return estimator.rows(data) * estimator.per_question.get(data, REPLIES_PER_RANKING)
        return estimator.replies([data], self.pairs_per_question)

    @property
    def phase_dir(self) -> Path:
        """Where the command's own manifest lies: with --all beside the models, which several
        criteria files share.
        """
        return self.output_dir / f"all_{Path(self.criteria).stem}" if self.all else self.output_dir


def planned(config: RewardConfig) -> tuple[dict[str, Path], dict[str, str]]:
    """Return what ``--all`` is to train, and what it shares.

    A criterion that does not say what is better and worse (``overall``) is no objective to align
    to: only ``--only`` trains it. A criterion whose finished model in ``output_dir`` was trained on
    another file's preferences is shared, not trained again: safety, which every set of criteria
    has.

    Returns:
        The data by criterion, and what the shared models were trained on.

    Raises:
        UserError: no folder, or a criterion's data is missing.
    """
    folder = config.rankings or config.pairs
    assert folder is not None
    kind = "rankings" if config.rankings else "pairs"
    files: dict[str, Path] = {}
    shared: dict[str, str] = {}
    for criterion in load_criteria(config.criteria, config.only):
        name = criterion.name
        path = folder / f"{name}_{kind}.json"
        # Named by --only it is trained: whoever names it wants a model of it, not an objective.
        if not (config.only or criterion.better_when or criterion.worse_when):
            continue
        trained_on = _trained_on(config.output_dir / name)
        if trained_on is not None and Path(trained_on).absolute() != path.absolute():
            shared[name] = trained_on
        else:
            files[name] = path
    return files, shared


def _trained_on(folder: Path) -> str | None:
    """Return the data of a finished reward model's folder."""
    manifest = find_manifest(folder)
    if manifest is None or not manifest.is_finished:
        return None
    paths = manifest.input_paths
    return paths.get("rankings", paths.get("pairs"))


def plan_as_json(config: RewardConfig) -> dict[str, dict[str, str]]:
    """Return what :func:`planned` does, as it can be sent to other processes."""
    files, shared = planned(config)
    return {"files": {name: str(path) for name, path in files.items()}, "shared": shared}
