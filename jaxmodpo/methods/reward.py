"""Reward models: a RoBERTa encoder trained on pairs (Bradley–Terry) or rankings (Plackett–Luce)."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmodpo.data.batches import Batches, scored
from jaxmodpo.data.examples import Examples, check_tokens, leave_out_equal_pairs, reward_pairs, reward_rankings
from jaxmodpo.data.held_out import split_rows
from jaxmodpo.data.pairs import holds_rankings, load_pairs, load_rankings
from jaxmodpo.data.text import SHORTEST_REWARD_TEXT, Cut, RewardText, load_tokenizer
from jaxmodpo.errors import UserError
from jaxmodpo.files import read_json, write_json
from jaxmodpo.fingerprints import fingerprint
from jaxmodpo.judging.criteria import load_criteria
from jaxmodpo.losses import bradley_terry_loss, plackett_luce_loss
from jaxmodpo.methods.validation import sentence, validate
from jaxmodpo.models.files import read_model_config
from jaxmodpo.models.remat import Remat
from jaxmodpo.models.roberta import Roberta, RobertaConfig, load_roberta, parameter_table, save_roberta
from jaxmodpo.phase import Phase, read_manifest
from jaxmodpo.ranges import Count, NotNegative, Positive, ShareBelowOne
from jaxmodpo.rankings import LeftOut, PairsPerQuestion, pairs_of, tied_pairs, without_repeats
from jaxmodpo.records import Candidate, Pair, Ranking
from jaxmodpo.results import Validation
from jaxmodpo.schema import Fields, Range
from jaxmodpo.training.cache import cached, examples_digest
from jaxmodpo.training.distributed import agreed, leads, on_host, open_phase, start
from jaxmodpo.training.mesh import make_mesh, put, shardings, spread
from jaxmodpo.training.session import Session
from jaxmodpo.training.settings import TrainingConfig
from jaxmodpo.training.step import Batch, LossTerms, Parameters
from jaxmodpo.training.trainer import passing, train

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RewardConfig(TrainingConfig):
    """Train a reward model for one criterion, or with --all for each of a criteria file."""

    model: Path
    """a pretrained RoBERTa's Hugging Face folder"""
    pairs: Path | None = None
    """preference pairs, or rankings that pairs are made of: the Bradley–Terry loss"""
    rankings: Path | None = None
    """rankings, taken whole: the Plackett–Luce loss"""
    pairs_per_question: PairsPerQuestion = "best-worst"
    """of rankings given as --pairs: the ends alone, all pairs, or a number of pairs, the widest gaps first"""
    all: bool = False
    """train every criterion; --pairs or --rankings is then the folder that 'preferences' wrote"""
    criteria: str = "therapeutic"
    """with --all: a criteria file, or the name of one of ours (therapeutic, gricean)"""
    only: tuple[str, ...] = ()
    """with --all: the criteria to train; by default all that say what is better and worse, so not 'overall'"""
    refit: bool = False
    """validate first, then train on everything, with a schedule of as many epochs as were best; the figures stay the
    validation's"""
    validation: Path | None = None
    """a search's validation.json, whose figures a model trained on everything carries; --validation-fraction is 0"""
    learning_rate: Positive = 2e-5
    """peak, reached after the warm-up; cosine decay to 0 from there"""
    epochs: Count = 5
    """passes over the data"""
    weight_decay: NotNegative = 0.03
    """decoupled, as in AdamW"""
    max_length: Annotated[int, Range(least=SHORTEST_REWARD_TEXT)] = 512
    """tokens of question and response; a longer response loses its end"""
    dropout: ShareBelowOne | None = None
    """of hidden states and the head; by default the model's own"""
    remat: Remat = "full"
    """what the backward pass computes again: whole layers, all but matrix products (dots are kept), or nothing"""

    def check(self) -> None:
        super().check()
        if (self.pairs is None) == (self.rankings is None):
            raise UserError("reward needs either --pairs or --rankings")
        if self.rankings is not None and self.pairs_per_question != "best-worst":
            raise UserError("--pairs-per-question makes pairs of rankings; with --rankings they are taken whole")
        if self.validation is not None and (self.validation_fraction or self.refit):
            raise UserError("--validation carries figures from elsewhere: it needs --validation-fraction 0, no --refit")
        if self.validation is not None and self.all:
            raise UserError("--validation holds the figures of one model, and --all trains one for every criterion")
        if self.refit and self.validation_fraction == 0:
            raise UserError("--refit needs a --validation-fraction to validate on first")

    @property
    def phase_dir(self) -> Path:
        """Where the command's own manifest lies: with --all beside the models, which several criteria files share."""
        return self.output_dir / f"all_{Path(self.criteria).stem}" if self.all else self.output_dir


@functools.partial(jax.tree_util.register_dataclass, data_fields=["config"], meta_fields=["remat", "drops"])
@dataclass(frozen=True)
class RewardLoss:
    """The loss of a RoBERTa reward model: Bradley–Terry's, or Plackett–Luce's where the batch has ``ranks``."""

    config: RobertaConfig
    remat: Remat = "none"
    drops: bool = True

    def __call__(self, trainable: Parameters, frozen: Parameters, batch: Batch, dropout_key: Array | None) -> LossTerms:
        key = dropout_key if self.drops else None
        rewards = _rewards(self.config, trainable, batch, key, self.remat)
        weights, chosen = batch["row_weights"], rewards[:, 0]
        if "ranks" in batch:
            last = jnp.sum(batch["ranks"] > 0, axis=1) - 1
            rejected = jnp.take_along_axis(rewards, last[:, None], axis=1)[:, 0]
            losses = plackett_luce_loss(rewards, batch["ranks"])
        else:
            rejected = rewards[:, 1]
            losses = bradley_terry_loss(chosen, rejected)
        rows = {
            "rewards/chosen": chosen,
            "rewards/rejected": rejected,
            "rewards/accuracies": (chosen > rejected).astype(jnp.float32),
            "rewards/margins": chosen - rejected,
        }
        total = jnp.sum(weights)
        return LossTerms(
            total=jnp.sum(losses * weights),
            denominator=total,
            metrics={name: jnp.sum(values * weights) for name, values in rows.items()},
            rows=total,
        )


def _rewards(
    config: RobertaConfig, parameters: Parameters, batch: Batch, dropout_key: Array | None, remat: Remat = "none"
) -> Array:
    """Return ``[rows, S]`` rewards of ``[rows, S, T]`` tokens."""
    rows, sequences, time = batch["tokens"].shape
    model = Roberta(config, parameters)
    flat = model.rewards(batch["tokens"].reshape(-1, time), batch["lengths"].reshape(-1), dropout_key, remat)
    return flat.reshape(rows, sequences)


_score = functools.partial(jax.jit, static_argnames=("config",))(
    lambda parameters, batch, *, config: _rewards(config, parameters, batch, None)
)


def score(config: RobertaConfig, parameters: Parameters, examples: Examples, rows: int) -> np.ndarray:
    """Return the reward of every sequence, ``[n, S]`` float32, without dropout."""

    check_tokens(int(examples.tokens.max()), config.vocab_size)

    def compute(batch: dict[str, np.ndarray]) -> np.ndarray:
        arrays = {name: batch[name][0] for name in ("tokens", "lengths")}
        return np.asarray(_score(parameters, arrays, config=config))[None]

    return scored(Batches(examples, batch_size=rows), compute)


def load_reward_model(folder: Path, max_length: int | None = None) -> tuple[Roberta, RewardText]:
    """Load a reward model and the tokenisation it was trained with.

    Raises:
        UserError: the folder is no reward model, or has no tokenizer.
    """
    model = load_roberta(folder)
    if model.config.num_labels != 1:
        raise UserError(f"{folder} is not a reward model: it has {model.config.num_labels} outputs")
    fields = Fields(read_model_config(folder), f"{folder}/config.json")
    trained = fields.integer("reward_max_length", 512, least=SHORTEST_REWARD_TEXT)
    if max_length is not None and max_length > model.config.max_length:
        raise UserError(
            f"--max-length {max_length} is more than the {model.config.max_length} tokens that {folder} has "
            "positions for"
        )
    length = min(trained, model.config.max_length) if max_length is None else max_length
    return model, RewardText(load_tokenizer(folder), length, model.config.vocab_size)


def rewards_of_pairs(
    folder: Path, pairs: list[Pair], *, batch_size: int, max_length: int | None = None, cache_dir: Path | None = None
) -> np.ndarray:
    """Return ``[pairs, 2]`` rewards, chosen then rejected; computed once per model and data set.

    Args:
        folder: a reward model.
        pairs: what to score.
        batch_size: pairs at a time.
        max_length: tokens; by default what the model was trained with, or can take.
        cache_dir: see ``training.cache``.
    """
    model, text = load_reward_model(folder, max_length)
    examples = reward_pairs(pairs, text)
    text.cut.warn()
    check_tokens(int(examples.tokens.max()), model.config.vocab_size)
    parameters = {name: variable[...] for name, variable in model.parameters.items()}
    depends_on = {"model": fingerprint(folder), "examples": examples_digest(examples), "rows": batch_size}
    return cached("rewards", depends_on, lambda: score(model.config, parameters, examples, batch_size), cache_dir)


def ranked(config: RewardConfig) -> tuple[list[Ranking], int]:
    """Read a command's data as rankings, best first; a pair is a ranking of two.

    Returns:
        The rankings, and how many were left out because all their replies are tied.

    Raises:
        UserError: a file that is not what it should be, or nothing but ties.
    """
    path = config.rankings or config.pairs
    assert path is not None
    if config.rankings is None and not holds_rankings(path):
        return [
            Ranking(pair.question_id, pair.question_text, (pair.chosen, pair.rejected))
            for pair in load_pairs(path, config.pairs_per_question)
        ], 0
    found = load_rankings(path)
    kept = [ranking for ranking in found if not ranking.all_tied]
    if not kept:
        raise UserError(f"{path} prefers nothing: all replies to each question are tied")
    if len(kept) < len(found):
        logger.info("%s: %d rankings left out, all of whose replies are tied", path, len(found) - len(kept))
    return kept, len(found) - len(kept)


def split(rankings: Sequence[Ranking], config: RewardConfig) -> tuple[list[Ranking], list[Ranking]]:
    """Return the rankings to train on and those held out, which share no question.

    Raises:
        UserError: nothing is left to train on.
    """
    held = config.held_out([ranking.question_id for ranking in rankings])
    if held.all():
        raise UserError(f"{config.pairs or config.rankings} leaves nothing to train on; lower --validation-fraction")
    return split_rows(rankings, held)


def training_examples(
    config: RewardConfig, rankings: Sequence[Ranking], text: RewardText, left_out: LeftOut | None = None
) -> tuple[Examples, int]:
    """Tokenise rankings as they are trained on: whole, or as the pairs that the settings make of them.

    ``left_out`` counts what ties and equal texts cost.

    Returns:
        The examples, and how many pairs were left out because their replies are equal once they are cut.
    """
    if config.rankings is None:
        pairs = reward_pairs(pairs_of(rankings, config.pairs_per_question, left_out), text)
        examples, equal = leave_out_equal_pairs(pairs)
        return examples, int(equal.sum())
    repeats = LeftOut()
    rankings = without_repeats(rankings, repeats)
    if not rankings:
        raise UserError("the rankings prefer nothing: all replies to each question have the same text or are tied")
    if repeats.identical:
        logger.warning("%d pairs of the same text in the rankings left out; its best place counts", repeats.identical)
    if left_out is not None:
        left_out.add(LeftOut(tied=tied_pairs(rankings), identical=repeats.identical))
    rankings, equal = distinct_once_cut(rankings, text)
    if not rankings:
        raise UserError("all replies to each question are equal once cut to --max-length, or tied; raise it")
    if equal:
        logger.warning("%d pairs left out: their two replies are equal once cut to --max-length", equal)
    return reward_rankings(rankings, text), equal


def distinct_once_cut(rankings: Sequence[Ranking], text: RewardText) -> tuple[list[Ranking], int]:
    """Leave out replies that are equal to a better one of their ranking once they are cut.

    Returns:
        The rankings that still prefer something, and how many pairs of equal replies there were.
    """
    # These texts are tokenised again where they are used, and counted there.
    quiet = dataclasses.replace(text, cut=Cut())

    def tokens(ranking: Ranking, candidate: Candidate) -> tuple[int, ...]:
        return tuple(quiet.example(ranking.question_text, candidate.response_text))

    equal = LeftOut()
    return without_repeats(rankings, equal, tokens), equal.identical


def reward(config: RewardConfig, session: Session | None = None) -> Phase:
    """Run ``reward``."""
    config.check()
    session = session or Session()
    if config.all:
        return _every_criterion(config, session)
    if config.refit:
        return _refitted(config, session)
    return _one(config, session)


def _one(config: RewardConfig, session: Session, carried: dict[str, Any] | None = None, **results: Any) -> Phase:
    """Train one reward model; ``carried`` is a validation measured on another model of the same settings."""
    data = {"pairs": config.pairs, "rankings": config.rankings, "validation": config.validation}
    inputs = {"model": config.model} | {name: path for name, path in data.items() if path is not None}
    phase = open_phase("reward", config, inputs)
    if phase.finished:
        return phase
    if config.validation is not None:
        carried = _carried(config.validation)
    rankings, all_tied = ranked(config)
    kept, out = split(rankings, config)
    left_out = LeftOut()
    model = session.encoder(config.model, config.seed)
    shape = model.config
    if config.dropout is not None:
        shape = dataclasses.replace(shape, dropout=config.dropout, classifier_dropout=config.dropout)
    if config.max_length > shape.max_length:
        logger.warning(
            "%s has positions for %d tokens: texts are cut there, and not at --max-length %d",
            config.model,
            shape.max_length,
            config.max_length,
        )
    text = RewardText(load_tokenizer(config.model), min(config.max_length, shape.max_length), shape.vocab_size)
    mesh = make_mesh(config.mesh)
    places = shardings(mesh)(parameter_table(shape))
    parameters = {name: put(variable[...], places[name]) for name, variable in model.parameters.items()}
    parts = spread(mesh)
    examples, results["equal_once_cut_left_out"] = training_examples(config, kept, text, left_out)
    check_tokens(int(examples.tokens.max()), shape.vocab_size)
    if len(examples) == 1:
        logger.warning("the reward model learns from a single pair: its rewards say nothing about other texts")
    batches = Batches(
        examples,
        batch_size=config.batch_size,
        accumulation=config.gradient_accumulation,
        epochs=config.epochs,
        seed=config.seed,
        spread=parts,
    )
    held_batches = None
    if out:
        out, _ = distinct_once_cut(out, text)
        if not out:
            raise UserError(
                "the replies to every held-out question are equal once cut to --max-length, so that nothing could be "
                "evaluated; raise it, or give --validation-fraction 0"
            )
        held_examples, _ = training_examples(config, out, text)
        held_batches = Batches(held_examples, batch_size=config.batch_size, spread=parts)
    text.cut.warn()
    drops = max(shape.dropout, shape.classifier_dropout) > 0
    loss = RewardLoss(shape, config.remat, drops)
    trained = train(loss, parameters, {}, batches, config, mesh, held_batches, on_evaluation=session.on_evaluation)
    whole = on_host(trained.parameters)
    if out:
        held = reward_rankings(out, text)
        rewards = score(model.config, whole, held, config.batch_size)
        carried = validate(rewards, held.fields["ranks"], [r.question_id for r in out])
    if leads():
        settings = read_model_config(config.model) | {"reward_max_length": text.max_length}
        save_roberta(config.output_dir / "model", Roberta(model.config, whole), settings, tokenizer_from=config.model)
        if carried is not None:
            write_json(config.output_dir / "validation.json", carried)
    if carried is not None:
        if not out:
            results.setdefault("held_out_on", carried.get("measured_in", str(config.validation)))
        results |= {
            "held_out_accuracy": carried["accuracy"],
            "held_out_accuracy_interval": carried["accuracy_interval"],
        }
        logger.info("%s%s", "" if out else "of the model that was validated: ", sentence(carried))
    phase.finish(
        work=passing(config),
        examples=len(batches.examples),
        held_out_examples=len(out),
        all_tied_rankings_left_out=all_tied,
        **left_out.as_dict(),
        **trained.report,
        **results,
        **text.cut.as_dict(),
    )
    return phase


def _carried(path: Path) -> dict[str, Any]:
    """Read a ``validation.json``, in every process."""

    def read() -> dict[str, Any]:
        return dict(read_json(path, Validation))

    return agreed(read)


def _refitted(config: RewardConfig, session: Session) -> Phase:
    """Validate first, and then train on everything for as many epochs as were best, rounded up.

    The second schedule ends there, where the first model was taken in the middle of its own: the settings are
    not quite the same, so that both are recorded beside the figures.

    Raises:
        UserError: there are too few questions to hold any out, or no evaluation was finite.
    """
    if not split(ranked(config)[0], config)[1]:
        raise UserError(
            f"--refit: {config.validation_fraction:g} of the questions in {config.pairs or config.rankings} is not one "
            "question to validate on; raise --validation-fraction"
        )
    first = _one(dataclasses.replace(config, refit=False, output_dir=config.output_dir / "validation"), session)
    best = first.results.get("best_epoch")
    if best is None:
        raise UserError(f"{first.directory}: no evaluation was finite, so that nothing says how long to train")
    epochs = max(1, math.ceil(best))
    final = dataclasses.replace(config, validation_fraction=0.0, epochs=epochs, refit=False)
    carried = _carried(first.directory / "validation.json")
    return _one(
        final,
        session,
        carried,
        held_out_on=f"a model trained on the rest, as it was after {best:g} of {config.epochs} epochs; this one was "
        f"trained for {epochs}",
        validated_epochs=config.epochs,
        validated_best_epoch=best,
        refitted_epochs=epochs,
    )


# --------------------------------------------------------------------------- every criterion


def planned(config: RewardConfig) -> tuple[dict[str, Path], dict[str, str]]:
    """Return what ``--all`` is to train, and what it shares.

    A criterion that does not say what is better and worse (``overall``) is no objective to align to: only ``--only``
    trains it. A criterion whose finished model in ``output_dir`` was trained on another file's preferences is
    shared, not trained again: safety, which every set of criteria has.

    Returns:
        The data by criterion, and what the shared models were trained on.

    Raises:
        UserError: no folder, or a criterion's data is missing.
    """
    folder = config.rankings or config.pairs
    assert folder is not None
    kind = "rankings" if config.rankings else "pairs"
    files, shared = {}, {}
    for criterion in load_criteria(config.criteria, config.only):
        name, path = criterion.name, folder / f"{criterion.name}_{kind}.json"
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
    manifest = folder / "manifest.json"
    found = read_manifest(manifest) if manifest.is_file() else {}
    paths = found.get("input_paths", {})
    return paths.get("rankings", paths.get("pairs")) if found.get("status") == "finished" else None


def _every_criterion(config: RewardConfig, session: Session) -> Phase:
    """Train a model for each criterion of a file, from one loaded base."""
    folder = config.rankings or config.pairs
    if folder is None or not folder.is_dir():
        raise UserError("reward --all needs --pairs or --rankings, the folder that 'jaxmodpo preferences' wrote")
    start(config)
    data, shared = agreed(lambda: [{n: str(p) for n, p in part.items()} for part in planned(config)])
    files = {name: Path(path) for name, path in data.items()}
    for name, path in files.items():
        if not path.is_file():
            raise UserError(f"reward --all: no such file: {path} (--only names the criteria to train, {name} is one)")
    for name, trained_on in shared.items():
        logger.info("%s: shared, the model in %s was trained on %s", name, config.output_dir / name, trained_on)
    own = dataclasses.replace(config, output_dir=config.phase_dir)
    whole = open_phase("reward --all", own, {"model": config.model} | files)
    figures: dict[str, Any] = {}
    kind = "rankings" if config.rankings else "pairs"
    for name, path in files.items():
        logger.info("reward model of %s", name)
        one = dataclasses.replace(config, all=False, output_dir=config.output_dir / name, **{kind: path})
        figures[name] = {key: value for key, value in reward(one, session).results.items() if "accuracy" in key}
    for name, results in figures.items():
        if "held_out_accuracy" in results and leads():
            # Of a single question there is no interval.
            ends = results["held_out_accuracy_interval"]
            width = f" [{ends[0]:.1%}, {ends[1]:.1%}]" if ends else ""
            print(f"{name:<{max(map(len, figures))}}  {results['held_out_accuracy']:6.1%}{width}")
    if not whole.finished:
        whole.finish(criteria=figures, shared=shared)
    return whole
