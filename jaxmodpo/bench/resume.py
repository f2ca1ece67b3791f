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
from typing import Annotated, Any, NamedTuple

import numpy as np

from jaxmodpo.errors import UserError
from jaxmodpo.ranges import Count, Seed, Unestimated
from jaxmodpo.records import Candidate, Pair, write_pairs
from jaxmodpo.results.manifest import is_finished
from jaxmodpo.sandbox import grammar
from jaxmodpo.schema import Range

_RATES = ("_per_second", "mfu")
"""endings of the only figures that may differ"""


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
    # The killed leave semaphores behind, and the tracker warns of each.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
    # Lives are forks of a process that has imported everything, and find their programs compiled:
    # otherwise most kills would hit imports and compilation, where nothing can go wrong.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["jaxmodpo.methods.dpo", "jaxmodpo.cli"])
    start, epoch = _undisturbed(context, folder, epochs)
    # A kill's share of the run is its length over the number of kills. Delays of up to one and a
    # half shares get less than one share done on average, so that there is room for every kill.
    longest_delay = start + 1.5 * epoch * epochs / kills
    toll = _kill_often(context, folder, epochs, kills, longest_delay, seed)
    if not is_finished(folder / "killed"):
        _live(context, _flags(folder, "killed", epochs), folder / "log.txt")
    different = _differing_files(folder)
    if different:
        raise UserError(
            f"after {toll.kills} kills these differ from the undisturbed run's:"
            f" {', '.join(different)}"
        )
    updates = _latest_update(folder / "killed")
    print(
        f"{updates} updates, {toll.kills} kills by SIGKILL ({toll.before_checkpoint} before the first"
        " checkpoint): adapter and logged figures equal the undisturbed run's to the bit"
    )
    if toll.kills < kills:
        print(
            f"the run ended before the other {kills - toll.kills} kills; --epochs {2 * epochs} makes"
            " room for more"
        )


def _undisturbed(context: Any, folder: Path, epochs: int) -> tuple[float, float]:
    """Run without kills; return the seconds before the first update, and those of an epoch."""
    durations: dict[str, float] = {}
    # The first run compiles for all others, and is not timed.
    for name, length in (("compiling", 1), ("short", 1), ("whole", epochs)):
        began = time.monotonic()
        _live(context, _flags(folder, name, length), folder / "log.txt")
        durations[name] = time.monotonic() - began
    epoch = (durations["whole"] - durations["short"]) / (epochs - 1)
    return max(0.0, durations["short"] - epoch), epoch


class Toll(NamedTuple):
    """How often a run was killed, and how often before it had a checkpoint to go on from."""

    kills: int
    before_checkpoint: int


def _kill_often(
    context: Any, folder: Path, epochs: int, kills: int, longest_delay: float, seed: int
) -> Toll:
    """Start the run again and again and kill it each time; stop when it ends by itself."""
    generator = np.random.default_rng(seed)
    flags = _flags(folder, "killed", epochs)
    toll = Toll(0, 0)
    while toll.kills < kills:
        # Evenly, from the very start: imports, the opening of the folder, the reading of a
        # checkpoint and its writing are all hit at times.
        delay = float(generator.uniform(0, longest_delay))
        if not _live(context, flags, folder / "log.txt", delay):
            break
        has_checkpoints = (folder / "killed" / "checkpoints").exists()
        toll = Toll(toll.kills + 1, toll.before_checkpoint + (not has_checkpoints))
        update = _latest_update(folder / "killed")
        print(
            f"killed {toll.kills} of {kills}, after {delay:.2f} s, at update {update}",
            file=sys.stderr,
        )
    return toll


def _differing_files(folder: Path) -> list[str]:
    """Return the results in which the killed run differs from the whole one."""
    whole = folder / "whole"
    killed = folder / "killed"
    different: list[str] = []
    for name in ("adapter/adapter_model.safetensors", "adapter/adapter_config.json"):
        if (whole / name).read_bytes() != (killed / name).read_bytes():
            different.append(name)
    if _metrics(whole) != _metrics(killed):
        different.append("metrics.jsonl")
    return different


def _make_world(folder: Path) -> None:
    import jax

    from jaxmodpo.models import decoder
    from jaxmodpo.models.decoder_config import DecoderConfig
    from jaxmodpo.models.model_folder import save_model
    from jaxmodpo.models.parameters import initialize
    from jaxmodpo.sandbox.models import save_tokenizer

    generator = np.random.default_rng(0)
    pairs: list[Pair] = []
    for number in range(48):
        post = grammar.post(generator)
        chosen = Candidate(f"c{number}", grammar.reply(generator))
        rejected = Candidate(f"r{number}", grammar.reply(generator))
        pairs.append(Pair(f"q{number}", post, chosen, rejected))
    write_pairs(folder / "pairs.json", pairs)
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    texts: list[str] = []
    for pair in pairs:
        texts += [pair.question_text, pair.chosen.response_text, pair.rejected.response_text]
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
        # SIGKILL, which no process can catch or prepare for.
        process.kill()
        process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        raise UserError(
            f"a life ended with exit code {process.exitcode}:\n{log.read_text()[-2000:]}"
        )
    return process.exitcode != 0


def _life(flags: list[str], log: Path) -> None:
    """Be a life: run the command in this process."""
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import jax

    from jaxmodpo.cli import main

    jax.config.update("jax_compilation_cache_dir", str(log.parent / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    main(flags)


def _latest_update(run: Path) -> int:
    """Return the last update that a run has logged; 0 where it has logged none."""
    try:
        lines = (run / "metrics.jsonl").read_text().splitlines()
        return int(json.loads(lines[-1])["step"])
    except (OSError, IndexError, ValueError):
        return 0


def _metrics(run: Path) -> list[dict[str, float]]:
    """Return what a run has logged, without what depends on the machine's speed."""
    rows: list[dict[str, float]] = []
    for line in (run / "metrics.jsonl").read_text().splitlines():
        figures = json.loads(line)
        rows.append({name: figures[name] for name in figures if not name.endswith(_RATES)})
    return rows
