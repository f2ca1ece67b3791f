"""The ``reward`` command: a RoBERTa encoder trained on pairs (Bradley–Terry) or rankings
(Plackett–Luce).

One model for one criterion, or with ``--all`` one for each; with ``--refit`` each is trained twice,
first to validate it and then on everything. What it is trained on is
:mod:`jaxmodpo.methods.reward_data`, the model itself :mod:`jaxmodpo.methods.reward_model`, and what
``--all`` trains :mod:`jaxmodpo.methods.reward_plan`.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jax.sharding import Mesh

from jaxmodpo.costs import REPLIES_PER_RANKING, Cost, Estimates
from jaxmodpo.data.batches import Batches, Batching, describe
from jaxmodpo.data.replies import reward_rankings
from jaxmodpo.data.row_lengths import MOST_LENGTHS
from jaxmodpo.data.text import SHORTEST_REWARD_TEXT, RewardText, load_tokenizer
from jaxmodpo.errors import UserError
from jaxmodpo.flags.help_groups import HelpGroup
from jaxmodpo.methods.reward_data import RewardData, ranked, split, tokenized
from jaxmodpo.methods.reward_model import RewardLoss, score
from jaxmodpo.methods.reward_plan import plan_as_json, planned
from jaxmodpo.methods.validation import sentence, validate
from jaxmodpo.models import flops
from jaxmodpo.models.model_folder import read_model_config
from jaxmodpo.models.parameters import Parameters
from jaxmodpo.models.remat import Remat, RematSetting
from jaxmodpo.models.roberta import Roberta, parameter_table, save_roberta
from jaxmodpo.models.roberta_config import RobertaConfig
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.policy.distributed import broadcast, leads, on_host, open_together, start
from jaxmodpo.policy.mesh import make_mesh, put, row_shards, shardings
from jaxmodpo.ranges import (
    CommandSettings,
    Count,
    FractionBelowOne,
    Incidental,
    NotNegative,
    Positive,
)
from jaxmodpo.rankings import PairsPerQuestion
from jaxmodpo.records import Ranking
from jaxmodpo.results.reward import VALIDATION, Validation
from jaxmodpo.results.versioned import plain, read_result, write_result
from jaxmodpo.schema import Range, read_as
from jaxmodpo.training.problem import with_remat
from jaxmodpo.training.session import Session
from jaxmodpo.training.settings import TrainingConfig
from jaxmodpo.training.startup import Startup
from jaxmodpo.training.trainer import train

logger = logging.getLogger(__name__)


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


def reward(config: RewardConfig, session: Session | None = None) -> Phase:
    """Run ``reward``."""
    config.check()
    session = session or Session()
    if config.all:
        return _every_criterion(config, session)
    if config.refit:
        return _refitted(config, session)
    return _train_model(config, session)


@in_phase("reward", open_together)
def _train_model(
    config: RewardConfig,
    phase: Phase,
    session: Session,
    carried: Validation | None = None,
    **results: Any,
) -> None:
    """Train one reward model; ``carried`` is a validation measured on another model of the same
    settings.
    """
    if config.validation is not None:
        carried = _carried(config.validation)
    startup = Startup()
    with startup.part("data"):
        rankings, all_tied = ranked(config)
        training, held_out = split(rankings, config)
    with startup.part("model"):
        model = session.encoder(config.model, config.seed)
        shape = _trained_shape(config, model.config)
        mesh = make_mesh(config.mesh)
        parameters = _placed(model, shape, mesh)
    with startup.part("data"):
        text = _text(config, shape)
        data = tokenized(config, training, held_out, text, shape.vocab_size)
    results["equal_once_cut_left_out"] = data.equal_once_cut
    text.cut.warn()
    with startup.part("batches"):
        batches, held_out_batches = _batches(config, data, shape, mesh)
    has_dropout = max(shape.dropout, shape.classifier_dropout) > 0

    def loss_under(remat: Remat) -> RewardLoss:
        return RewardLoss(shape, remat, has_dropout)

    count_flops = functools.partial(_training_flops, shape)
    problem = with_remat(loss_under, config.remat, parameters, {}, mesh, count_flops)
    trained = train(problem, batches, config, held_out_batches, session.on_evaluation, startup)
    whole = Roberta(model.config, on_host(trained.parameters))
    if data.held_out:
        carried = _validated(whole, data.held_out, text, config.batch_size)
    if leads():
        _save(config, whole, text, carried)
    if carried is not None:
        if not data.held_out:
            results.setdefault("held_out_on", carried.measured_in or str(config.validation))
        results["held_out_accuracy"] = carried.accuracy
        results["held_out_accuracy_interval"] = carried.accuracy_interval
        logger.info(
            "%s%s", "" if data.held_out else "of the model that was validated: ", sentence(carried)
        )
    phase.finish(
        work=config.work_folders(),
        examples=len(batches.examples),
        comparisons=len(data.comparisons),
        held_out_examples=len(data.held_out),
        all_tied_rankings_left_out=all_tied,
        **data.left_out.as_dict(),
        **describe(batches),
        **trained.report,
        **results,
        **text.cut.as_dict(),
    )


def _placed(model: Roberta, shape: RobertaConfig, mesh: Mesh) -> Parameters:
    """Return a model's parameters, on the mesh."""
    shardings_by_name = shardings(mesh)(parameter_table(shape))
    return {
        name: put(variable[...], shardings_by_name[name])
        for name, variable in model.parameters.items()
    }


def _training_flops(shape: RobertaConfig, lengths: np.ndarray) -> float:
    """Return the operations of an update: a backward pass through weights that learn takes twice
    those of the forward pass.
    """
    return 3 * flops.encoder_forward(shape, lengths)


def _trained_shape(config: RewardConfig, shape: RobertaConfig) -> RobertaConfig:
    """Return the encoder's shape with the dropout that the settings name, if they name one."""
    if config.dropout is None:
        return shape
    return dataclasses.replace(shape, dropout=config.dropout, classifier_dropout=config.dropout)


def _text(config: RewardConfig, shape: RobertaConfig) -> RewardText:
    """Return the tokenization that the settings name, as far as the encoder has positions."""
    if config.max_length > shape.max_length:
        logger.warning(
            "%s has positions for %d tokens: texts are cut there, and not at --max-length %d",
            config.model,
            shape.max_length,
            config.max_length,
        )
    return RewardText(
        load_tokenizer(config.model), min(config.max_length, shape.max_length), shape.vocab_size
    )


def _batches(
    config: RewardConfig, data: RewardData, shape: RobertaConfig, mesh: Mesh
) -> tuple[Batches, Batches | None]:
    """Return the batches to train on, and those of the held-out part if there is one."""
    batches_of = functools.partial(
        Batches,
        batch_size=config.batch_size,
        batching=config.batching,
        row_shards=row_shards(mesh),
        cost=functools.partial(flops.encoder_token_cost, shape),
    )
    batches = batches_of(
        data.comparisons.by_question().examples,
        accumulation=config.gradient_accumulation,
        epochs=config.epochs,
        seed=config.seed,
        most_lengths=MOST_LENGTHS,
    )
    if data.held_out_comparisons is None:
        return batches, None
    return batches, batches_of(data.held_out_comparisons.by_question().examples)


def _validated(
    model: Roberta, held_out: list[Ranking], text: RewardText, batch_size: int
) -> Validation:
    """Return a model's figures on held-out rankings, taken whole."""
    comparisons = reward_rankings(held_out, text)
    questions = comparisons.by_question()
    parameters = {name: variable[...] for name, variable in model.parameters.items()}
    rewards = score(model.config, parameters, questions.examples, batch_size)
    return validate(
        questions.of_comparisons(rewards),
        comparisons.fields["ranks"],
        [ranking.question_id for ranking in held_out],
    )


def _save(
    config: RewardConfig, model: Roberta, text: RewardText, validation: Validation | None
) -> None:
    """Write the model's folder, and ``validation.json`` where there is a validation."""
    settings = read_model_config(config.model) | {"reward_max_length": text.max_length}
    save_roberta(config.output_dir / "model", model, settings, tokenizer_from=config.model)
    if validation is not None:
        write_result(config.output_dir / VALIDATION, validation)


def _carried(path: Path) -> Validation:
    """Read a ``validation.json``, in every process."""
    fields = broadcast(lambda: plain(read_result(path, Validation)))
    validation: Validation = read_as(fields, Validation, str(path))
    return validation


def _refitted(config: RewardConfig, session: Session) -> Phase:
    """Validate first, and then train on everything for as many epochs as were best, rounded up.

    The second schedule ends there, where the first model was taken in the middle of its own: the
    settings are not quite the same, so that both are recorded beside the figures.

    Raises:
        UserError: there are too few questions to hold any out, or no evaluation was finite.
    """
    if not split(ranked(config)[0], config)[1]:
        raise UserError(
            f"--refit: {config.validation_fraction:g} of the questions in"
            f" {config.pairs or config.rankings} is not one question to validate on; raise"
            " --validation-fraction"
        )
    first = _train_model(
        dataclasses.replace(config, refit=False, output_dir=config.output_dir / "validation"),
        session,
    )
    best = first.results.get("best_epoch")
    if best is None:
        raise UserError(
            f"{first.directory}: no evaluation was finite, so that nothing says how long to train"
        )
    epochs = max(1, math.ceil(best))
    final = dataclasses.replace(config, validation_fraction=0.0, epochs=epochs, refit=False)
    carried = _carried(first.directory / VALIDATION)
    return _train_model(
        final,
        session,
        carried,
        held_out_on=(
            f"a model trained on the rest, as it was after {best:g} of {config.epochs} epochs; this"
            f" one was trained for {epochs}"
        ),
        validated_epochs=config.epochs,
        validated_best_epoch=best,
        refitted_epochs=epochs,
    )


def _every_criterion(config: RewardConfig, session: Session) -> Phase:
    """Train a model for each criterion of a file, from one loaded base."""
    folder = config.rankings or config.pairs
    if folder is None or not folder.is_dir():
        raise UserError(
            "reward --all needs --pairs or --rankings, the folder that 'jaxmodpo preferences' wrote"
        )
    start(config)
    # The leader alone plans: what is shared depends on what lies in the folder, which the training
    # of another process may just have changed.
    plan = broadcast(lambda: plan_as_json(config))
    files = {name: Path(path) for name, path in plan["files"].items()}
    for name, path in files.items():
        if not path.is_file():
            raise UserError(
                f"reward --all: no such file: {path} (--only names the criteria to train, {name} is"
                " one)"
            )
    for name, trained_on in plan["shared"].items():
        logger.info(
            "%s: shared, the model in %s was trained on %s",
            name,
            config.output_dir / name,
            trained_on,
        )
    whole = open_together("reward --all", config)
    figures = {name: _accuracies(config, name, path, session) for name, path in files.items()}
    if leads():
        _print_accuracies(figures)
    if not whole.finished:
        whole.finish(criteria=figures, shared=plan["shared"])
    return whole


def _accuracies(
    config: RewardConfig, criterion: str, path: Path, session: Session
) -> dict[str, Any]:
    """Train one criterion's model and return its accuracies."""
    logger.info("reward model of %s", criterion)
    source: dict[str, Any] = {"rankings" if config.rankings else "pairs": path}
    config_of_one = dataclasses.replace(
        config, all=False, output_dir=config.output_dir / criterion, **source
    )
    results = reward(config_of_one, session).results
    return {name: value for name, value in results.items() if "accuracy" in name}


def _print_accuracies(figures: Mapping[str, Mapping[str, Any]]) -> None:
    """Print a line for each criterion whose model was validated."""
    width = max((len(name) for name in figures), default=0)
    for name, results in figures.items():
        if "held_out_accuracy" not in results:
            continue
        # Of a single question there is no interval.
        ends = results["held_out_accuracy_interval"]
        interval = f" [{ends[0]:.1%}, {ends[1]:.1%}]" if ends else ""
        print(f"{name:<{width}}  {results['held_out_accuracy']:6.1%}{interval}")
