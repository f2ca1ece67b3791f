"""TRL's DPOTrainer on the same pairs, for ``bench step --against trl``.

It needs torch, trl and peft, which jaxmodpo does without: they are imported where they are used.
"""

from __future__ import annotations

import functools
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jaxmodpo.bench.contender import Contender
from jaxmodpo.bench.machine import cores
from jaxmodpo.data.examples import Examples
from jaxmodpo.errors import UserError
from jaxmodpo.models import flops
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.lora import LoraConfig
from jaxmodpo.models.shapes import settings


@dataclass(frozen=True, kw_only=True)
class TrlUpdates:
    """The updates that a trainer of TRL makes: as ours does.

    Attributes:
        batch_size: pairs in memory at a time.
        gradient_accumulation: batches of an update.
        updates: that are timed.
        folder: a temporary one.
    """

    batch_size: int
    gradient_accumulation: int
    updates: int
    folder: Path

    def arguments(self, folder_name: str) -> dict[str, Any]:
        """Return what every trainer of TRL is told, by the names of its arguments.

        Args:
            folder_name: of the trainer's output, within the temporary folder.
        """
        torch, _, _, _ = import_trl()
        return {
            "output_dir": str(self.folder / folder_name),
            "per_device_train_batch_size": self.batch_size,
            "gradient_accumulation_steps": self.gradient_accumulation,
            "max_steps": self.updates,
            "bf16": False,
            # Whatever is no training is switched off: it would be timed too.
            "report_to": [],
            "save_strategy": "no",
            "disable_tqdm": True,
            "use_cpu": not torch.cuda.is_available(),
        }


@dataclass(frozen=True, kw_only=True)
class TrlRun(TrlUpdates):
    """How TRL trains a policy.

    Attributes:
        model: the model's shape.
    """

    model: str


def import_trl() -> tuple[Any, Any, Any, Any]:
    """Return torch, transformers, trl and peft.

    Raises:
        UserError: one of them is not installed.
    """
    try:
        import peft
        import torch
        import transformers
        import trl
    except ImportError as error:
        raise UserError(f"--against trl needs torch, trl and peft: {error}") from error
    return torch, transformers, trl, peft


def prepare_torch() -> None:
    """Give torch as many threads as JAX takes, and make its libraries quiet."""
    import datasets

    torch, transformers, _, _ = import_trl()
    # Torch counts the machine's cores, which are not all ours.
    torch.set_num_threads(cores())
    transformers.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    warnings.simplefilter("ignore", FutureWarning)


def settings_of(trainer: Any) -> dict[str, Any]:
    """Return what a trainer of TRL was given, as JSON values."""
    torch, transformers, trl, peft = import_trl()
    arguments = trainer.args
    names = (
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "gradient_checkpointing",
        "precompute_ref_log_probs",
        "disable_dropout",
        "bf16",
    )
    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "trl": trl.__version__,
        "peft": peft.__version__,
        **{name: getattr(arguments, name) for name in names if hasattr(arguments, name)},
        "optimizer": str(arguments.optim.value),
        "dtype": str(trainer.model.dtype).removeprefix("torch."),
        "attention": trainer.model.config._attn_implementation,
        "threads": torch.get_num_threads(),
        "device": str(arguments.device),
    }


def trl_contenders(
    run: TrlRun, shape: DecoderConfig, lora: LoraConfig, examples: Examples
) -> list[Contender]:
    """Return TRL at its defaults, and with references that are computed beforehand."""
    prepare_torch()
    tokenizer = words_tokenizer(shape.vocab_size, run.folder, Specials(bos=1, eos=2, pad=2))
    rows = [_texts(examples, number) for number in range(len(examples))]
    contenders: list[Contender] = []
    for precomputed in (False, True):
        print(f"TRL, {'precomputed references' if precomputed else 'defaults'}", file=sys.stderr)
        trainer = _trainer(run, lora, rows, tokenizer, precomputed)
        contenders.append(
            Contender(
                name="TRL, references precomputed" if precomputed else "TRL, defaults",
                pairs=len(examples),
                tokens=int(examples.lengths.sum()),
                operations=flops.training(shape, lora, examples.lengths, not precomputed),
                peak=None,
                run=functools.partial(timed_updates, trainer, run.updates),
                settings=settings_of(trainer),
            )
        )
    return contenders


class Specials(NamedTuple):
    """Tokens' numbers with a meaning of their own."""

    bos: int
    eos: int
    pad: int


def words_tokenizer(vocab_size: int, folder: Path, specials: Specials) -> Any:
    """Return a tokenizer whose words are its tokens' numbers."""
    import tokenizers
    import transformers

    # TRL takes texts. Of numbers written as words it makes the very tokens that ours trains on.
    words = {f"w{number}": number for number in range(vocab_size)}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token="w0",
        bos_token=f"w{specials.bos}",
        eos_token=f"w{specials.eos}",
        pad_token=f"w{specials.pad}",
    )
    tokenizer.save_pretrained(folder / "tokenizer")
    return tokenizer


def _texts(examples: Examples, number: int) -> dict[str, str]:
    """Return a pair as TRL takes it; TRL adds the end of a completion."""

    def words(sequence: int, start: int, end: int) -> str:
        return " ".join(f"w{token}" for token in examples.tokens[number, sequence, start:end])

    prompt = int(examples.prompt_lengths[number, 0])
    ends = [int(length) - 1 for length in examples.lengths[number]]
    return {
        "prompt": words(0, 0, prompt),
        "chosen": " " + words(0, prompt, ends[0]),
        "rejected": " " + words(1, prompt, ends[1]),
    }


def _trainer(
    run: TrlRun, lora: LoraConfig, rows: list[dict[str, str]], tokenizer: Any, precomputed: bool
) -> Any:
    import datasets

    torch, transformers, trl, peft = import_trl()
    torch.manual_seed(0)
    arguments = trl.DPOConfig(
        **run.arguments(f"trl-{precomputed}"), precompute_ref_log_probs=precomputed
    )
    trainer = trl.DPOTrainer(
        _random_model(run.model),
        args=arguments,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=peft.LoraConfig(
            r=lora.rank,
            lora_alpha=int(lora.alpha),
            target_modules=list(lora.targets),
            task_type="CAUSAL_LM",
        ),
    )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def _random_model(model: str) -> Any:
    """Return a model of a shape with random weights, in float32."""
    torch, transformers, _, _ = import_trl()
    shape_settings = dict(settings(model))
    kind = transformers.CONFIG_MAPPING[shape_settings.pop("model_type")]
    # The name of a class of transformers, which the automatic class finds by itself.
    shape_settings.pop("architectures", None)
    return transformers.AutoModelForCausalLM.from_config(
        kind(**shape_settings), dtype=torch.float32
    )


def timed_updates(trainer: Any, updates: int) -> float:
    """Return the seconds of TRL's updates, the first one scaled from the others: it warms up."""
    import transformers

    times: list[float] = []

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

        def on_train_end(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

    clock = Clock()
    trainer.add_callback(clock)
    trainer.train()
    trainer.remove_callback(clock)
    if updates == 1:
        return times[-1] - times[0]
    seconds_per_update = (times[-1] - times[1]) / (updates - 1)
    return seconds_per_update * updates
