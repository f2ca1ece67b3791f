"""``jaxmodpo bench real``: what small models learn from two real sets of preferences.

The sets are HH-RLHF's harmless test pairs and CounselChat's answers, paired by upvotes. Models are
pretrained here, from nothing, on the training texts: they are far too small to be good, and the
numbers say what such models reach, no more. Whole questions are held out, and nothing of them is
seen before the end.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from jaxmodpo.bench.table import text_table
from jaxmodpo.data.held_out import held_out, split_rows
from jaxmodpo.data.pairs import load_pairs
from jaxmodpo.data.replies import policy_pairs
from jaxmodpo.data.scored import PairsConfig, pairs
from jaxmodpo.data.text import PolicyText, load_tokenizer
from jaxmodpo.errors import UserError
from jaxmodpo.files import read_json, write_json
from jaxmodpo.methods.dpo import DPOConfig, dpo
from jaxmodpo.methods.modpo import MODPOConfig, modpo
from jaxmodpo.methods.reward import reward
from jaxmodpo.methods.reward_model import rewards_of_pairs
from jaxmodpo.methods.reward_settings import RewardConfig
from jaxmodpo.methods.validation import accuracy, interval
from jaxmodpo.policy.loaded import load_policy, with_adapter
from jaxmodpo.ranges import Count, CountOrZero, Seed, Unestimated
from jaxmodpo.records import Pair, write_pairs
from jaxmodpo.sandbox.models import make_mistral, make_roberta, save_subword_tokenizer
from jaxmodpo.training.settings import TrainingConfig

logger = logging.getLogger(__name__)

HARMLESS = "hh-rlhf/harmless-base-test.jsonl.gz"
COUNSEL = "counsel-chat/20200325_counsel_chat.csv"
MAX_LENGTH = 256


@dataclass(frozen=True, kw_only=True)
class BenchRealConfig(Unestimated, help_group="data"):
    """Train small reward models and policies on real preferences, and print their held-out
    accuracies.
    """

    data: Path
    """Folder of the two sets, hh-rlhf/harmless-base-test.jsonl.gz and
    counsel-chat/20200325_counsel_chat.csv."""
    output_dir: Path = Path("out/real")
    """Folder of the models and of results.json; a second run on it goes on."""
    pretraining_epochs: Count = 3
    """Number of passes of the pretraining over the training texts."""
    reward_epochs: Count = 5
    """Maximum number of passes of the reward models over the training pairs."""
    pairs: CountOrZero = 0
    """Number of pairs used from each set; 0 uses all."""
    seed: Seed = 0
    """Seed of the split and of everything else that is drawn."""


class Row(TypedDict):
    """How often one model prefers as the held-out pairs of one set do."""

    model: str
    trained_on: str
    judged_on: str
    pairs: int
    accuracy: float
    interval: list[float] | tuple[float, float] | None


def bench_real(config: BenchRealConfig) -> None:
    """Run ``bench real``."""
    config.check()
    for name in (HARMLESS, COUNSEL):
        if not (config.data / name).is_file():
            raise UserError(f"no such file: {config.data / name}")
    _keep_settings(config)
    train_pairs, test_pairs = _split_sets(config)
    _pretrain(config, list(itertools.chain.from_iterable(train_pairs.values())))
    rows = [_length_row(name, pairs_of_set) for name, pairs_of_set in test_pairs.items()]
    for name in train_pairs:
        rows += _reward_rows(config, name, test_pairs)
    rows += _policy_rows(config, test_pairs)
    write_json(config.output_dir / "results.json", rows)
    print(_table(rows))


def _split_sets(
    config: BenchRealConfig,
) -> tuple[dict[str, list[Pair]], dict[str, list[Pair]]]:
    """Split both sets by question; return training pairs and test pairs by the set's name.

    The training pairs are written to files as well, which the commands below read.

    Raises:
        UserError: a set is too small for either.
    """
    out = config.output_dir
    pairs(PairsConfig(input=config.data / COUNSEL, output_dir=out / "counsel"))
    sets = {
        "harmless": load_pairs(config.data / HARMLESS),
        "counsel": load_pairs(out / "counsel" / "upvotes_pairs.json"),
    }
    train_pairs: dict[str, list[Pair]] = {}
    test_pairs: dict[str, list[Pair]] = {}
    for name, every_pair in sets.items():
        used = every_pair[: config.pairs or None]
        # By question: a reply to a question of the training set would be half known.
        is_held_out = held_out([pair.question_id for pair in used], 0.2, config.seed)
        train_pairs[name], test_pairs[name] = split_rows(used, is_held_out)
        if not train_pairs[name] or not test_pairs[name]:
            raise UserError(
                f"{len(used)} pairs of {name} are too few to train on some and hold out others"
            )
        write_pairs(out / f"{name}_train.json", train_pairs[name])
    return train_pairs, test_pairs


def _table(rows: Sequence[Row]) -> str:
    heads = ["model", "trained on", "judged on", "pairs", "accuracy", "95% interval"]
    cells: list[list[str]] = []
    for row in rows:
        interval_text = "one question: none"
        if row["interval"]:
            low, high = row["interval"]
            interval_text = f"{low:.1%} to {high:.1%}"
        names = [row["model"], row["trained_on"], row["judged_on"]]
        cells.append([*names, str(row["pairs"]), f"{row['accuracy']:.1%}", interval_text])
    return text_table(heads, cells)


def _keep_settings(config: BenchRealConfig) -> None:
    """Write down the settings at the first run, and refuse others later: what is pretrained here
    would be of those.

    Raises:
        UserError: naming what differs.
    """
    path = config.output_dir / "settings.json"
    # Where the data lie and where the results go may change from one run to the next.
    names = ("pretraining_epochs", "reward_epochs", "pairs", "seed")
    settings = {name: getattr(config, name) for name in names}
    first_settings = read_json(path, dict[str, int]) if path.is_file() else settings
    differing = [name for name in names if first_settings.get(name) != settings[name]]
    if differing:
        flags = [f"--{name.replace('_', '-')} {first_settings.get(name)}" for name in differing]
        raise UserError(
            f"{config.output_dir} was begun with {', '.join(flags)}; choose another --output-dir"
        )
    write_json(path, settings)


def _pretrain(config: BenchRealConfig, train_pairs: Sequence[Pair]) -> None:
    """Pretrain an encoder and a decoder on the distinct texts of the training pairs."""
    texts = _distinct_texts(train_pairs)
    _pretrain_one(config, "encoder", texts, make_roberta, width=128, layers=4)
    _pretrain_one(config, "decoder", texts, make_mistral, max_length=MAX_LENGTH)


def _distinct_texts(pairs_of_sets: Sequence[Pair]) -> list[tuple[str, str]]:
    """Return each question with each of its replies, once, in the pairs' order."""
    texts: dict[tuple[str, str], None] = {}
    for pair in pairs_of_sets:
        for reply in (pair.chosen, pair.rejected):
            texts[pair.question_text, reply.response_text] = None
    return list(texts)


def _pretrain_one(
    config: BenchRealConfig,
    name: str,
    texts: Sequence[tuple[str, str]],
    make: Callable[..., None],
    **shape: int,
) -> None:
    """Pretrain one model into the folder of its name; nothing is done where that is there."""
    folder = config.output_dir / name
    # A folder is there only if it is whole.
    if folder.exists():
        return
    logger.info("pretraining a small %s on %d texts", name, len(texts))
    settings = TrainingConfig(
        output_dir=config.output_dir / f"pretraining_{name}",
        seed=config.seed,
        learning_rate=1e-3,
        batch_size=16,
        gradient_accumulation=1,
        epochs=config.pretraining_epochs,
        save_every=200,
    )
    make(folder, texts, settings, save=save_subword_tokenizer, **shape)


def _row(
    model: str, trained_on: str, judged_on: str, margins: np.ndarray, test: Sequence[Pair]
) -> Row:
    """Return a row of the table.

    Args:
        model: what kind of model it is.
        trained_on: the set it learned from.
        judged_on: the set whose held-out pairs these are.
        margins: ``[pairs]``, by how much it prefers the chosen reply of each.
        test: the held-out pairs.
    """
    return {
        "model": model,
        "trained_on": trained_on,
        "judged_on": judged_on,
        "pairs": len(test),
        "accuracy": accuracy(margins),
        "interval": interval(margins, [pair.question_id for pair in test]),
    }


def _length_row(name: str, test: Sequence[Pair]) -> Row:
    """Return the row of preferring the longer answer, which is what a model has to beat."""
    # People vote for long answers, and a reward model may learn no more than that.
    chosen_lengths = [len(pair.chosen.response_text) for pair in test]
    rejected_lengths = [len(pair.rejected.response_text) for pair in test]
    margins = np.array(chosen_lengths, np.float64) - rejected_lengths
    return _row("the longer answer", "nothing", name, margins, test)


def _reward_rows(
    config: BenchRealConfig, name: str, test_pairs: Mapping[str, Sequence[Pair]]
) -> list[Row]:
    """Train a reward model on one set, and judge it on both."""
    folder = config.output_dir / f"reward_{name}"
    reward(
        RewardConfig(
            pairs=config.output_dir / f"{name}_train.json",
            model=config.output_dir / "encoder",
            output_dir=folder,
            learning_rate=3e-4,
            batch_size=16,
            gradient_accumulation=1,
            epochs=config.reward_epochs,
            max_length=MAX_LENGTH,
            remat="none",
            evaluations_per_epoch=2,
            patience=4,
            seed=config.seed,
        )
    )
    rows: list[Row] = []
    for judged_on, test in test_pairs.items():
        rewards = rewards_of_pairs(
            folder / "model", list(test), batch_size=16, cache_dir=config.output_dir / "cache"
        )
        margins = rewards[:, 0] - rewards[:, 1]
        rows.append(_row("reward model", name, judged_on, margins, test))
    return rows


def _policy_rows(config: BenchRealConfig, test_pairs: Mapping[str, Sequence[Pair]]) -> list[Row]:
    """Train DPO on CounselChat alone, and MODPO with harmlessness as a margin; judge both by their
    implicit rewards.
    """
    out = config.output_dir
    shared: dict[str, Any] = {
        "pairs": out / "counsel_train.json",
        "model": out / "decoder",
        "base_dtype": "float32",
        "lora_rank": 16,
        "lora_alpha": 32.0,
        "learning_rate": 1e-3,
        "batch_size": 8,
        "gradient_accumulation": 1,
        "epochs": 3,
        "max_prompt_length": MAX_LENGTH // 2,
        "max_length": MAX_LENGTH,
        "remat": "none",
        "validation_fraction": 0.0,
        "cache_dir": out / "cache",
        "seed": config.seed,
    }
    dpo(DPOConfig(output_dir=out / "dpo_counsel", **shared))
    # Two sets of preferences that no person gave together: upvotes say which answer is better, and
    # the other set's reward model says which one is harmless.
    modpo(
        MODPOConfig(
            output_dir=out / "modpo",
            margin=(f"harmless={out / 'reward_harmless' / 'model'}",),
            weights=(0.5, 0.5),
            margin_scale="std",
            **shared,
        )
    )
    base = load_policy(out / "decoder", base_dtype="float32")
    text = PolicyText(
        load_tokenizer(out / "decoder"), max_prompt_length=MAX_LENGTH // 2, max_length=MAX_LENGTH
    )
    policies = [
        ("DPO", "counsel", out / "dpo_counsel"),
        ("MODPO", "counsel, harmless as margin", out / "modpo"),
    ]
    rows: list[Row] = []
    for model, trained_on, folder in policies:
        policy = with_adapter(base, folder / "adapter")
        for judged_on, test in test_pairs.items():
            questions = policy_pairs([test], text).by_question()
            reference_logps = policy.logps(questions.examples, 16, reference=True)
            # What DPO trains, but for the factor beta, which changes no preference.
            log_ratios = policy.logps(questions.examples, 16) - reference_logps
            implicit_rewards = questions.of_comparisons(log_ratios)
            margins = implicit_rewards[:, 0] - implicit_rewards[:, 1]
            rows.append(_row(model, trained_on, judged_on, margins, test))
    return rows
