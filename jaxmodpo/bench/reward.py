"""``bench reward``: how fast a reward model trains on pairs, also against TRL's RewardTrainer."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxmodpo import __version__
from jaxmodpo.bench.contender import Contender, against_rivals, headings_of_rivals
from jaxmodpo.bench.machine import cores, cores_and_load, this_machine
from jaxmodpo.bench.our_step import peak_bytes
from jaxmodpo.bench.table import text_table
from jaxmodpo.bench.trl_reward import TrlRewardRun, trl_reward_contenders, trl_rewards
from jaxmodpo.bench.trl_step import import_trl
from jaxmodpo.bench.turns import Timing, in_turns
from jaxmodpo.config import as_mapping
from jaxmodpo.data.batches import Batches, Batching
from jaxmodpo.data.examples import LENGTH_MULTIPLE, Examples
from jaxmodpo.data.reference_lengths import reference_examples
from jaxmodpo.errors import UserError
from jaxmodpo.files import write_json
from jaxmodpo.flags.help_groups import HelpGroup
from jaxmodpo.methods.reward_model import RewardLoss, score
from jaxmodpo.models import flops
from jaxmodpo.models.parameters import Parameters, initialize
from jaxmodpo.models.remat import Remat
from jaxmodpo.models.roberta import Roberta, parameter_table, save_roberta
from jaxmodpo.models.roberta_config import RobertaConfig
from jaxmodpo.models.shapes import settings as model_settings
from jaxmodpo.policy.mesh import make_mesh, place_batch, row_shards, shardings
from jaxmodpo.ranges import Count, FractionBelowOne, Probability, Seed, Unestimated
from jaxmodpo.schema import Range
from jaxmodpo.training.step import OptimizerSettings, initial_state, places_of, train_step

_COMPARED = 4
"""pairs whose rewards are compared with those of transformers before anything is timed"""


@dataclass(frozen=True, kw_only=True)
class BenchRewardConfig(Unestimated, help_group="measurement"):
    """Train all of an encoder's random weights, in float32, on pairs as long as real ones by the
    Bradley–Terry loss, and print the speed.
    """

    model: Annotated[str, HelpGroup("model")] = "roberta-base"
    """Shape of the encoder: a published model's name, a config.json, or a model folder."""
    dropout: Annotated[FractionBelowOne, HelpGroup("model")] = 0.0
    """Dropout of hidden states and of the head, on both sides. TRL's default is none."""
    batch_size: Annotated[Count, HelpGroup("batch")] = 4
    """Number of pairs in memory at a time, over all devices."""
    gradient_accumulation: Annotated[Count, HelpGroup("batch")] = 1
    """Number of batches whose gradients are added up for one update."""
    length_share: Annotated[Probability | None, HelpGroup("batch")] = None
    """Share of the reference lengths that sequences have; by default a quarter on a CPU and the
    whole elsewhere."""
    max_length: Annotated[int, Range(least=2), HelpGroup("batch")] = 512
    """Most tokens of a sequence; longer ones are cut."""
    batchings: Annotated[tuple[Batching, ...], HelpGroup("computation")] = ("packed", "padded")
    """Layouts that are timed: packed puts several sequences into a row, padded one."""
    remat: Annotated[tuple[Remat, ...], HelpGroup("computation")] = ("none",)
    """What the backward pass computes again to save memory: nothing (none), everything but matrix
    products (dots) or attention (attention), whole layers (full), or whole layers whose inputs lie
    in the host's memory (offload). Each is timed."""
    updates: Count = 4
    """Number of updates that are timed, after those that compile."""
    rounds: Count = 3
    """Number of times that the updates are timed, all configurations in turn; the table has
    medians."""
    against: Literal["trl"] | None = None
    """Other trainer that is timed as well: trl times TRL's RewardTrainer on the same tokens and
    weights in float32, at its defaults and recomputing nothing, and needs torch, trl and peft."""
    seed: Annotated[Seed, HelpGroup("measurement")] = 0
    """Seed of the lengths, the tokens and the weights."""
    json: Annotated[Path | None, HelpGroup("output")] = None
    """File for every round's figures with the machine, the versions and both sides' settings."""

    def check(self) -> None:
        super().check()
        if not (self.batchings and self.remat):
            raise UserError("bench reward needs one of --batchings and --remat at least")


def bench_reward(config: BenchRewardConfig) -> None:
    """Run ``bench reward``."""
    config.check()
    if config.against:
        # Before anything is compiled: whoever lacks torch should not wait to be told so.
        import_trl()
    mappings = dict(model_settings(config.model))
    shape = RobertaConfig.from_mapping(mappings, config.model, num_labels=1)
    shape = dataclasses.replace(shape, dropout=config.dropout, classifier_dropout=config.dropout)
    mesh = make_mesh()
    pairs = _pairs(config, shape, mesh)
    table = parameter_table(shape)
    make = jax.jit(lambda key: initialize(table, key), out_shardings=shardings(mesh)(table))
    parameters = make(jax.random.key(config.seed))
    contenders: list[Contender] = []
    for batching, remat in itertools.product(config.batchings, config.remat):
        print(f"compiling: {batching}, remat {remat}", file=sys.stderr)
        contenders.append(_contender(config, shape, pairs, parameters, mesh, batching, remat))
    with tempfile.TemporaryDirectory() as temporary:
        if config.against:
            contenders += _rivals(config, shape, pairs, parameters, Path(temporary), mappings)
        runs = {contender.name: contender.run for contender in contenders}
        timings = in_turns(runs, config.rounds)
    print(f"{_heading(config, pairs, mesh)}\n")
    print(_table(contenders, timings))
    if config.json is not None:
        libraries = ("torch", "trl") if config.against else ()
        record = {
            "machine": this_machine(*libraries),
            "settings": as_mapping(config),
            "measured": [contender.as_row(timings[contender.name]) for contender in contenders],
        }
        write_json(config.json, record)


def _pairs(config: BenchRewardConfig, shape: RobertaConfig, mesh: Mesh) -> Examples:
    """Return pairs as long as real ones, as far as the settings and the encoder's positions go."""
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    examples = reference_examples(
        config.batch_size * config.gradient_accumulation * config.updates,
        share=config.length_share or (0.25 if on_cpu else 1.0),
        vocab_size=shape.vocab_size,
        seed=config.seed,
    )
    lengths = np.minimum(examples.lengths, min(config.max_length, shape.max_length))
    longest = -(-int(lengths.max()) // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
    # A reward model learns no token, so that nothing is prompt.
    prompt_lengths = np.zeros_like(lengths)
    return Examples(examples.tokens[..., :longest], prompt_lengths, lengths, {})


def _contender(
    config: BenchRewardConfig,
    shape: RobertaConfig,
    pairs: Examples,
    parameters: Parameters,
    mesh: Mesh,
    batching: Batching,
    remat: Remat,
) -> Contender:
    """Return our training, compiled and warmed up."""
    batches = Batches(
        pairs,
        batch_size=config.batch_size,
        accumulation=config.gradient_accumulation,
        batching=batching,
        row_shards=row_shards(mesh),
        cost=functools.partial(flops.encoder_token_cost, shape),
    )
    loss = RewardLoss(shape, remat, has_dropout=config.dropout > 0, mesh=mesh)
    optimizer = OptimizerSettings(0.01, 1.0)
    everywhere = NamedSharding(mesh, PartitionSpec())
    key = jax.jit(lambda: jax.random.key(0), out_shardings=everywhere)()
    # A copy, since the step writes the new parameters where the old ones were.
    state = initial_state(optimizer, jax.tree.map(jnp.copy, parameters))
    constants = {"loss": loss, "optimizer": optimizer}

    def arguments(step: int) -> tuple[Any, ...]:
        batch = place_batch(mesh, batches.at(step), batches.by_rows)
        return {}, batch, key, np.int32(step), np.float32(1e-5)

    lowered = train_step.lower(state, *arguments(0), **constants, places=places_of(state))
    compiled = lowered.compile()
    peak = peak_bytes(compiled.memory_analysis(), mesh)
    # The first update is slower than the others and is not timed.
    state, _ = jax.block_until_ready(compiled(state, *arguments(0), **constants))

    def run() -> float:
        nonlocal state
        started = time.perf_counter()
        for step in range(config.updates):
            state, _ = compiled(state, *arguments(step), **constants)
        jax.block_until_ready(state)
        return time.perf_counter() - started

    return Contender(
        name=f"{batching}, remat {remat}",
        pairs=len(pairs),
        tokens=int(pairs.lengths.sum()),
        operations=3 * flops.encoder_forward(shape, pairs.lengths),
        peak=peak,
        run=run,
        settings={
            "jaxmodpo": __version__,
            "jax": jax.__version__,
            "batching": batching,
            "remat": remat,
            "dtype": "float32",
            "dropout": config.dropout,
            "pairs in memory": config.batch_size,
            "accumulation": config.gradient_accumulation,
            "rows and tokens of a batch": [batches.shape.rows, batches.shape.length],
            "threads": cores(),
            "device": mesh.devices.flat[0].device_kind,
        },
    )


def _rivals(
    config: BenchRewardConfig,
    shape: RobertaConfig,
    pairs: Examples,
    parameters: Parameters,
    folder: Path,
    mappings: Mapping[str, Any],
) -> list[Contender]:
    """Return TRL's trainers, which begin with the very weights of ours.

    Raises:
        UserError: their model gives other rewards than ours.
    """
    dropouts = {
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": 0.0,
        "classifier_dropout": config.dropout,
    }
    save_roberta(folder / "model", Roberta(shape, parameters), {**mappings, **dropouts})
    few = pairs.subset(np.arange(min(_COMPARED, len(pairs))))
    ours = score(shape, parameters, few, len(few))
    refuse_other_rewards(ours, trl_rewards(folder / "model", few, shape.pad_token_id))
    run = TrlRewardRun(
        model=folder / "model",
        batch_size=config.batch_size,
        gradient_accumulation=config.gradient_accumulation,
        updates=config.updates,
        dropout=config.dropout > 0,
        folder=folder,
    )
    return trl_reward_contenders(run, shape, pairs)


def refuse_other_rewards(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Refuse to compare the speed of two computations with different results."""
    difference = float(np.abs(ours - theirs).max())
    largest = float(np.abs(theirs).max())
    if difference > 1e-3 * largest:
        raise UserError(
            f"the rewards differ from those of TRL's model by {difference:.2g}, where the largest"
            f" is {largest:.2g}"
        )


def _heading(config: BenchRewardConfig, pairs: Examples, mesh: Mesh) -> str:
    """Return what all rows of the table have in common."""
    per_update = config.batch_size * config.gradient_accumulation
    return (
        f"{config.model}, float32, all weights trained, dropout {config.dropout:g}, updates of"
        f" {per_update} pairs, {pairs.lengths.mean():.0f} tokens a reply on average and"
        f" {pairs.lengths.max()} at most, {mesh.size} × {mesh.devices.flat[0].device_kind}, medians"
        f" of {config.rounds} rounds in turns, {cores_and_load()}"
    )


def _table(contenders: Sequence[Contender], timings: Mapping[str, Timing]) -> str:
    """Return the table of all contenders; speeds are of real tokens."""
    medians = {name: timing.median for name, timing in timings.items()}
    rows: list[list[str]] = []
    for contender in contenders:
        seconds = medians[contender.name]
        cells = [
            contender.name,
            f"{contender.pairs / seconds:.2f}",
            f"{timings[contender.name].spread:.0%}",
            f"{contender.tokens / seconds:,.0f}",
            f"{contender.operations / seconds / 1e12:.3g}",
            f"{contender.peak / 2**20:,.0f}" if contender.peak else "",
        ]
        rows.append(cells + against_rivals(contender, contenders, medians))
    header = ["", "pairs/s", "spread", "tokens/s", "TFLOP/s", "peak MiB"]
    return text_table(header + headings_of_rivals(contenders), rows)
