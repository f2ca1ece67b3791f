"""``jaxmodpo bench real``: what small models learn from two real sets of preferences.

HH-RLHF's harmless test pairs and CounselChat's answers, paired by upvotes. Models are pretrained
here, from nothing, on the training texts: they are far too small to be good, and the numbers say
what such models reach, no more. Held out are whole questions; nothing of them is seen before the
end.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxmodpo.bench.table import table
from jaxmodpo.data.examples import policy_pairs
from jaxmodpo.data.held_out import held_out, split_rows
from jaxmodpo.data.pairs import load_pairs
from jaxmodpo.data.scored import PairsConfig, pairs
from jaxmodpo.data.text import PolicyText, load_tokenizer
from jaxmodpo.errors import UserError
from jaxmodpo.files import read_json, write_json
from jaxmodpo.methods.dpo import DPOConfig, dpo
from jaxmodpo.methods.modpo import MODPOConfig, modpo
from jaxmodpo.methods.reward import RewardConfig, reward
from jaxmodpo.methods.reward_model import rewards_of_pairs
from jaxmodpo.methods.validation import accuracy, interval
from jaxmodpo.policy.loaded import load_policy, with_adapter
from jaxmodpo.ranges import Count, CountOrZero, Seed, Unestimated
from jaxmodpo.records import Pair, write_pairs
from jaxmodpo.sandbox.models import make_mistral, make_roberta, save_subword_tokenizer
from jaxmodpo.training.settings import TrainingConfig

logger = logging.getLogger(__name__)

HARMLESS, COUNSEL = "hh-rlhf/harmless-base-test.jsonl.gz", "counsel-chat/20200325_counsel_chat.csv"
MAX_LENGTH = 256


@dataclass(frozen=True, kw_only=True)
class BenchRealConfig(Unestimated, help_group="data"):
    """Train small reward models and policies on real preferences, and print their held-out
    accuracies.
    """

    data: Path
    """a folder with hh-rlhf/harmless-base-test.jsonl.gz and
    counsel-chat/20200325_counsel_chat.csv"""
    output_dir: Path = Path("out/real")
    """models and results.json are written here; a second run goes on"""
    pretraining_epochs: Count = 3
    """Number of passes of the pretraining over the training texts."""
    reward_epochs: Count = 5
    """Maximum number of passes of the reward models over the training pairs."""
    pairs: CountOrZero = 0
    """Number of pairs used from each set; 0 uses all."""
    seed: Seed = 0
    """Seed of the split and of everything else that is drawn."""


def bench_real(config: BenchRealConfig) -> None:
    """Run ``bench real``."""
    config.check()
    out = config.output_dir
    for name in (HARMLESS, COUNSEL):
        if not (config.data / name).is_file():
            raise UserError(f"no such file: {config.data / name}")
    _keep_settings(config)
    pairs(PairsConfig(input=config.data / COUNSEL, output_dir=out / "counsel"))
    sets = {
        "harmless": load_pairs(config.data / HARMLESS),
        "counsel": load_pairs(out / "counsel" / "upvotes_pairs.json"),
    }
    train, test = {}, {}
    for name, found in sets.items():
        found = found[: config.pairs or None]
        held = held_out([pair.question_id for pair in found], 0.2, config.seed)
        train[name], test[name] = split_rows(found, held)
        if not train[name] or not test[name]:
            raise UserError(
                f"{len(found)} pairs of {name} are too few to train on some and hold out others"
            )
        write_pairs(out / f"{name}_train.json", train[name])
    _pretrain(config, [pair for name in train for pair in train[name]])
    rows = [_length_row(name, test[name]) for name in test]
    for name in train:
        rows += _reward(config, name, test)
    rows += _policies(config, test)
    write_json(out / "results.json", rows)
    print(
        table(
            ["model", "trained on", "judged on", "pairs", "accuracy", "95% interval"],
            [
                [
                    row["model"],
                    row["trained_on"],
                    row["judged_on"],
                    str(row["pairs"]),
                    f"{row['accuracy']:.1%}",
                    (
                        "{:.1%} to {:.1%}".format(*row["interval"])
                        if row["interval"]
                        else "one question: none"
                    ),
                ]
                for row in rows
            ],
        )
    )


def _keep_settings(config: BenchRealConfig) -> None:
    """Write down the settings at the first run, and refuse others later: what is pretrained here
    would be of those.

    Raises:
        UserError: naming what differs.
    """
    path = config.output_dir / "settings.json"
    mine = {
        name: getattr(config, name)
        for name in ("pretraining_epochs", "reward_epochs", "pairs", "seed")
    }
    theirs = read_json(path, dict[str, int]) if path.is_file() else mine
    different = [
        f"--{name.replace('_', '-')} {theirs.get(name)}"
        for name in mine
        if theirs.get(name) != mine[name]
    ]
    if different:
        raise UserError(
            f"{config.output_dir} was begun with {', '.join(different)}; choose another"
            " --output-dir"
        )
    write_json(path, mine)


def _pretrain(config: BenchRealConfig, known: Sequence[Pair]) -> None:
    texts = list(
        dict.fromkeys(
            (p.question_text, c.response_text) for p in known for c in (p.chosen, p.rejected)
        )
    )
    for name, make, extra in (
        ("encoder", make_roberta, {"width": 128, "layers": 4}),
        ("decoder", make_mistral, {"max_length": MAX_LENGTH}),
    ):
        folder = config.output_dir / name
        if folder.exists():
            continue
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
        make(folder, texts, settings, save=save_subword_tokenizer, **extra)  # type: ignore[operator]


def _row(
    model: str, trained_on: str, judged_on: str, differences: np.ndarray, held: Sequence[Pair]
) -> dict[str, Any]:
    return {
        "model": model,
        "trained_on": trained_on,
        "judged_on": judged_on,
        "pairs": len(held),
        "accuracy": accuracy(differences),
        "interval": interval(differences, [pair.question_id for pair in held]),
    }


def _length_row(name: str, held: Sequence[Pair]) -> dict[str, Any]:
    """The longer answer is preferred: what a model has to beat."""
    longer = np.array(
        [len(p.chosen.response_text) - len(p.rejected.response_text) for p in held], np.float64
    )
    return _row("the longer answer", "nothing", name, longer, held)


def _reward(
    config: BenchRealConfig, name: str, test: Mapping[str, Sequence[Pair]]
) -> list[dict[str, Any]]:
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
    rows = []
    for judged, held in test.items():
        rewards = rewards_of_pairs(
            folder / "model", list(held), batch_size=16, cache_dir=config.output_dir / "cache"
        )
        rows.append(_row("reward model", name, judged, rewards[:, 0] - rewards[:, 1], held))
    return rows


def _policies(config: BenchRealConfig, test: Mapping[str, Sequence[Pair]]) -> list[dict[str, Any]]:
    """DPO on CounselChat alone, and MODPO with harmlessness as a margin; judged by their implicit
    rewards.
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
    modpo(
        MODPOConfig(
            output_dir=out / "modpo",
            margin=(f"harmless={out / 'reward_harmless' / 'model'}",),
            weights=(0.5, 0.5),
            margin_scale="std",
            **shared,
        )
    )
    bare = load_policy(out / "decoder", base_dtype="float32")
    text = PolicyText(
        load_tokenizer(out / "decoder"), max_prompt_length=MAX_LENGTH // 2, max_length=MAX_LENGTH
    )
    rows = []
    for name, trained_on in (("dpo_counsel", "counsel"), ("modpo", "counsel, harmless as margin")):
        policy = with_adapter(bare, out / name / "adapter")
        for judged, held in test.items():
            examples = policy_pairs([held], text)
            ratios = policy.logps(examples, 16) - policy.logps(examples, 16, reference=True)
            rows.append(
                _row(
                    name.split("_")[0].upper(),
                    trained_on,
                    judged,
                    ratios[:, 0] - ratios[:, 1],
                    held,
                )
            )
    return rows
