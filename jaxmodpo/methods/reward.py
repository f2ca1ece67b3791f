"""The ``reward`` command: a RoBERTa encoder trained on pairs (Bradley–Terry) or rankings
(Plackett–Luce).

One model for one criterion, or with ``--all`` one for each; with ``--refit`` each is trained twice,
first to validate it and then on everything. What it is trained on is
:mod:`jaxmodpo.methods.reward_data`, the model itself :mod:`jaxmodpo.methods.reward_model`, and what
it can be told :mod:`jaxmodpo.methods.reward_settings`.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from jaxmodpo.data.batches import Batches, describe
from jaxmodpo.data.replies import reward_rankings
from jaxmodpo.data.row_lengths import MOST_LENGTHS
from jaxmodpo.data.text import RewardText, load_tokenizer
from jaxmodpo.errors import UserError
from jaxmodpo.methods.reward_data import RewardData, ranked, split, tokenized
from jaxmodpo.methods.reward_model import RewardLoss, score
from jaxmodpo.methods.reward_settings import RewardConfig, plan_as_json
from jaxmodpo.methods.validation import sentence, validate
from jaxmodpo.models import flops
from jaxmodpo.models.model_folder import read_model_config
from jaxmodpo.models.parameters import Parameters
from jaxmodpo.models.remat import Remat
from jaxmodpo.models.roberta import Roberta, parameter_table, save_roberta
from jaxmodpo.models.roberta_config import RobertaConfig
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.policy.distributed import broadcast, leads, on_host, open_together, start
from jaxmodpo.policy.mesh import make_mesh, put, row_shards, shardings
from jaxmodpo.records import Ranking
from jaxmodpo.results.reward import VALIDATION, Validation
from jaxmodpo.results.versioned import plain, read_result, write_result
from jaxmodpo.schema import read_as
from jaxmodpo.training.problem import with_remat
from jaxmodpo.training.session import Session
from jaxmodpo.training.startup import Startup
from jaxmodpo.training.trainer import train

logger = logging.getLogger(__name__)


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
    # Reading comes before loading: files with a fault are told of within seconds.
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
        return RewardLoss(shape, remat, has_dropout, mesh=mesh)

    count_flops = functools.partial(_training_flops, shape)
    problem = with_remat(loss_under, config.remat, parameters, {}, mesh, count_flops)
    trained = train(problem, batches, config, held_out_batches, session.on_evaluation, startup)
    # Gathered by every process, since each takes part in it, although the leader alone writes.
    whole = Roberta(model.config, on_host(trained.parameters))
    if data.held_out:
        carried = _validated(whole, data.held_out, text, config.batch_size)
    if leads():
        _save(config, whole, text, carried)
    if carried is not None:
        # Figures of another model are never passed off as this one's.
        if not data.held_out:
            results.setdefault("held_out_on", carried.measured_in or str(config.validation))
        results["held_out_accuracy"] = carried.accuracy
        results["held_out_accuracy_interval"] = carried.accuracy_interval
        whose = "" if data.held_out else "of the model that was validated: "
        logger.info("%s%s", whose, sentence(carried))
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
    placed: Parameters = {}
    for name, variable in model.parameters.items():
        placed[name] = put(variable[...], shardings_by_name[name])
    return placed


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
    rankings, _ = ranked(config)
    _, held_out = split(rankings, config)
    if not held_out:
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
    # Up, and not to the nearest: a schedule is of whole epochs, and 0 would train nothing.
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
    # Each model is a run of its own, which resumes by itself; this phase only records that all
    # are there.
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
