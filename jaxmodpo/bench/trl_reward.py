"""TRL's RewardTrainer on the same tokens and weights, for ``bench reward --against trl``.

It needs torch, trl and peft, which jaxmodpo does without: they are imported where they are used.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxmodpo.bench.contender import Contender
from jaxmodpo.bench.trl_step import (
    Specials,
    TrlUpdates,
    import_trl,
    prepare_torch,
    settings_of,
    timed_updates,
    words_tokenizer,
)
from jaxmodpo.data.examples import Examples
from jaxmodpo.models import flops
from jaxmodpo.models.roberta_config import RobertaConfig


@dataclass(frozen=True, kw_only=True)
class TrlRewardRun(TrlUpdates):
    """How TRL trains a reward model.

    Attributes:
        model: a Hugging Face folder with the weights that both begin with.
        dropout: whether the model's dropout is on.
    """

    model: Path
    dropout: bool


def trl_reward_contenders(
    run: TrlRewardRun, shape: RobertaConfig, pairs: Examples
) -> list[Contender]:
    """Return TRL at its defaults, which recompute layers (gradient checkpointing), and keeping
    everything.
    """
    prepare_torch()
    # RoBERTa takes positions from where the padding token is: it must be the model's own.
    specials = Specials(bos=0, eos=2, pad=shape.pad_token_id)
    tokenizer = words_tokenizer(shape.vocab_size, run.folder, specials)
    contenders: list[Contender] = []
    for recomputes in (True, False):
        name = "TRL, defaults" if recomputes else "TRL, nothing recomputed"
        print(name, file=sys.stderr)
        trainer = _trainer(run, pairs, tokenizer, recomputes)
        contenders.append(
            Contender(
                name=name,
                pairs=len(pairs),
                tokens=int(pairs.lengths.sum()),
                operations=3 * flops.encoder_forward(shape, pairs.lengths),
                peak=None,
                run=functools.partial(timed_updates, trainer, run.updates),
                settings=settings_of(trainer),
            )
        )
    return contenders


def _trainer(run: TrlRewardRun, pairs: Examples, tokenizer: Any, recomputes: bool) -> Any:
    import datasets

    torch, transformers, trl, _ = import_trl()
    torch.manual_seed(0)
    arguments = trl.RewardConfig(
        **run.arguments(f"trl-{recomputes}"),
        max_length=None,
        disable_dropout=not run.dropout,
        gradient_checkpointing=recomputes,
    )
    trainer = trl.RewardTrainer(
        _model(run.model),
        args=arguments,
        train_dataset=datasets.Dataset.from_list(_rows(pairs)),
        processing_class=tokenizer,
    )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def _rows(pairs: Examples) -> list[dict[str, list[int]]]:
    """Return pairs as TRL has them once they are tokenized."""
    rows: list[dict[str, list[int]]] = []
    for tokens, (chosen, rejected) in zip(pairs.tokens, pairs.lengths, strict=True):
        rows.append(
            {
                "chosen_ids": tokens[0, :chosen].tolist(),
                "rejected_ids": tokens[1, :rejected].tolist(),
            }
        )
    return rows


def _model(folder: Path) -> Any:
    torch, transformers, _, _ = import_trl()
    return transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32
    )


def trl_rewards(folder: Path, pairs: Examples, pad: int) -> np.ndarray:
    """Return the rewards ``[pairs, 2]`` that transformers' model of a folder gives."""
    torch, _, _, _ = import_trl()
    lengths = torch.tensor(pairs.lengths.reshape(-1))
    tokens = torch.tensor(pairs.tokens.reshape(len(lengths), -1), dtype=torch.long)
    is_real = torch.arange(tokens.shape[1]) < lengths[:, None]
    with torch.inference_mode():
        output = _model(folder).eval()(
            input_ids=tokens.masked_fill(~is_real, pad), attention_mask=is_real.long()
        )
    rewards: np.ndarray = output.logits.numpy()
    return rewards.reshape(len(pairs), 2)
