"""``bench resume``: kill a training run at random moments and see whether it ends where an
undisturbed one does.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from jaxmodpo.errors import UserError
from jaxmodpo.ranges import Count, Seed, Unestimated
from jaxmodpo.records import Candidate, Pair, write_pairs
from jaxmodpo.results.manifest import is_finished
from jaxmodpo.sandbox import grammar
from jaxmodpo.schema import Range

_RATES = ("_per_second", "mfu")  # the only figures that may differ


@dataclass(frozen=True, kw_only=True)
class BenchResumeConfig(Unestimated, help_group="measurement"):
    """Train a tiny model by DPO twice, the second time under SIGKILL, and compare adapters bit for
    bit.
    """

    kills: Count = 100
    """Number of times that the run is killed; each life ends at a moment drawn evenly from a span
    that is long enough to make progress."""
    epochs: Annotated[int, Range(least=2)] | None = None
    """Epochs of the run, at least 2, with 11 updates each; by default 3 for each kill."""
    seed: Seed = 0
    """Seed that the moments of the kills are drawn with."""
    work_dir: Path | None = None
    """Folder that both runs are kept in; by default a temporary one, which is removed."""


def bench_resume(config: BenchResumeConfig) -> None:
    """Run ``bench resume``.

    Raises:
        UserError: the two runs differ, or a life ended with an error.
    """
    config.check()
    if config.work_dir is not None and config.work_dir.exists() and any(config.work_dir.iterdir()):
        raise UserError(f"{config.work_dir} is not empty; choose another --work-dir")
    with tempfile.TemporaryDirectory() as temporary:
        folder = config.work_dir or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        _compare(folder, config.kills, config.epochs or 3 * config.kills, config.seed)


def _compare(folder: Path, kills: int, epochs: int, seed: int) -> None:
    _make_world(folder)
    # Lives are forks of a process that has imported everything, and find their programs compiled.
    os.environ.setdefault(
        "PYTHONWARNINGS", "ignore:resource_tracker"
    )  # the killed leave semaphores behind
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["jaxmodpo.methods.dpo", "jaxmodpo.cli"])
    log = folder / "log.txt"
    durations = []
    for name, length in (("compiling", 1), ("short", 1), ("whole", epochs)):
        began = time.monotonic()
        _live(context, _flags(folder, name, length), log)
        durations.append(time.monotonic() - began)
    # What one epoch takes, and what comes before the first update.
    epoch = (durations[2] - durations[1]) / (epochs - 1)
    start, budget = max(0.0, durations[1] - epoch), epoch * epochs / kills
    generator = np.random.default_rng(seed)
    kills_made, wasted, flags = 0, 0, _flags(folder, "killed", epochs)
    while kills_made < kills:
        delay = float(generator.uniform(0, start + 1.5 * budget))
        if not _live(context, flags, log, delay):
            break
        kills_made += 1
        wasted += not (folder / "killed" / "checkpoints").exists()
        reached = _reached(folder / "killed")
        print(
            f"killed {kills_made} of {kills}, after {delay:.2f} s, at update {reached}",
            file=sys.stderr,
        )
    if not is_finished(folder / "killed"):
        _live(context, flags, log)
    names = ("adapter/adapter_model.safetensors", "adapter/adapter_config.json")
    different = [
        n
        for n in names
        if (folder / "whole" / n).read_bytes() != (folder / "killed" / n).read_bytes()
    ]
    if _metrics(folder / "whole") != _metrics(folder / "killed"):
        different.append("metrics.jsonl")
    if different:
        raise UserError(
            f"after {kills_made} kills these differ from the undisturbed run's: {', '.join(different)}"
        )
    updates = _reached(folder / "killed")
    print(
        f"{updates} updates, {kills_made} kills by SIGKILL ({wasted} before the first checkpoint):"
        " adapter and logged figures equal the undisturbed run's to the bit"
    )
    if kills_made < kills:
        print(
            f"the run ended before the other {kills - kills_made} kills; --epochs {2 * epochs} makes room"
            " for more"
        )


def _make_world(folder: Path) -> None:
    import jax

    from jaxmodpo.models import decoder
    from jaxmodpo.models.decoder_config import DecoderConfig
    from jaxmodpo.models.model_folder import save_model
    from jaxmodpo.models.parameters import initialize
    from jaxmodpo.sandbox.models import save_tokenizer

    generator = np.random.default_rng(0)
    pairs = [
        Pair(
            f"q{number}",
            grammar.post(generator),
            Candidate(f"c{number}", grammar.reply(generator)),
            Candidate(f"r{number}", grammar.reply(generator)),
        )
        for number in range(48)
    ]
    write_pairs(folder / "pairs.json", pairs)
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    texts = [
        text
        for p in pairs
        for text in (p.question_text, p.chosen.response_text, p.rejected.response_text)
    ]
    save_tokenizer(folder / "tokenizer", texts, special)
    settings: dict[str, Any] = {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "vocab_size": 512,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    table = decoder.parameter_table(DecoderConfig.from_mapping(settings, "bench resume"))
    parameters = jax.tree.map(lambda array: 5 * array, initialize(table, jax.random.key(0)))
    save_model(folder / "model", settings, table, parameters, tokenizer_from=folder / "tokenizer")


def _flags(folder: Path, name: str, epochs: int) -> list[str]:
    return (
        f"align dpo --model {folder / 'model'} --pairs {folder / 'pairs.json'} --output-dir"
        f" {folder / name} --base-dtype float32 --lora-rank 4 --learning-rate 1e-3 --batch-size 2"
        f" --gradient-accumulation 2 --epochs {epochs} --save-every 3 --log-every 1 --eval-every 10"
        f" --patience 0 --cache-dir {folder / 'cache'}"
    ).split()


def _live(context: Any, flags: Sequence[str], log: Path, delay: float | None = None) -> bool:
    """Run a command in a process of its own; return whether it was killed after ``delay``
    seconds.
    """
    process = context.Process(target=_life, args=(list(flags), log))
    process.start()
    process.join(delay)
    if process.exitcode is None:
        process.kill()
        process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        raise UserError(
            f"a life ended with exit code {process.exitcode}:\n{log.read_text()[-2000:]}"
        )
    return process.exitcode != 0


def _life(flags: list[str], log: Path) -> None:
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import jax

    from jaxmodpo.cli import main

    jax.config.update("jax_compilation_cache_dir", str(log.parent / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    main(flags)


def _reached(run: Path) -> int:
    try:
        return int(json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"])
    except (OSError, IndexError, ValueError):
        return 0


def _metrics(run: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in row.items() if not name.endswith(_RATES)} for row in rows
    ]
