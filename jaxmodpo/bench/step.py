"""``bench step``: how fast DPO trains, with the reference precomputed or not, packed or padded,
recomputing more or less, and against TRL.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from jaxmodpo.bench.contender import Contender, against_rivals, headings_of_rivals
from jaxmodpo.bench.machine import cores_and_load, this_machine
from jaxmodpo.bench.our_step import Reference, StepTask, Unit, Way, pairs_of, prepared
from jaxmodpo.bench.random_model import random_base
from jaxmodpo.bench.table import text_table
from jaxmodpo.bench.trl_step import TrlRun, import_trl, trl_contenders
from jaxmodpo.bench.turns import Timing, in_turns
from jaxmodpo.config import as_mapping
from jaxmodpo.data.batches import Batching
from jaxmodpo.data.examples import Examples
from jaxmodpo.data.reference_lengths import reference_examples
from jaxmodpo.errors import UserError
from jaxmodpo.files import write_json
from jaxmodpo.flags.help_groups import HelpGroup
from jaxmodpo.models.attention import Backend
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.lora import LoraConfig
from jaxmodpo.models.parameters import Parameters
from jaxmodpo.models.quantized import BaseDtype
from jaxmodpo.models.remat import Remat
from jaxmodpo.models.shapes import settings
from jaxmodpo.policy.mesh import check_heads, make_mesh
from jaxmodpo.ranges import Count, Probability, Unestimated
from jaxmodpo.rankings import PairsPerQuestion, two_by_two
from jaxmodpo.schema import Range
from jaxmodpo.training.hardware import peak_flops

PLANNED_UPDATES = 1_000
"""of a run whose rows may have several lengths: as many as earn a further length's compiling"""


@dataclass(frozen=True, kw_only=True)
class BenchStepConfig(Unestimated, help_group="measurement"):
    """Train random weights of a model's shape by DPO on every pair of replies as long as real ones,
    and print the speed.
    """

    model: Annotated[str, HelpGroup("model")] = "tiny-mistral"
    """Shape of the model: a published model's name, a config.json, or a model folder."""
    base_dtype: Annotated[BaseDtype | None, HelpGroup("model")] = None
    """Type of the frozen base weights; by default float32 on a CPU and bfloat16 elsewhere."""
    lora_rank: Annotated[Count, HelpGroup("model")] = 16
    """Rank of the adapter, which lies on all seven projections."""
    batch_size: Annotated[Count, HelpGroup("batch")] = 8
    """Number of questions in memory at a time, over all devices."""
    replies: Annotated[int, Range(least=2), HelpGroup("batch")] = 2
    """Number of ranked replies to a question."""
    pairs_per_question: Annotated[PairsPerQuestion, HelpGroup("batch")] = "all"
    """Pairs that are made of a question's ranking. best-worst: its two ends; all: every two
    replies; a number: that many pairs, the widest gaps first. Replies of no pair are left out."""
    units: Annotated[tuple[Unit, ...], HelpGroup("computation")] = ("question",)
    """What a batch consists of: question computes each of a question's replies once, pair has two
    sequences for each pair, as other trainers do. An update has the same pairs."""
    gradient_accumulation: Annotated[Count, HelpGroup("batch")] = 1
    """Number of batches whose gradients are added up for one update."""
    length_share: Annotated[Probability | None, HelpGroup("batch")] = None
    """Share of the reference lengths that sequences have; by default a quarter on a CPU and the
    whole elsewhere."""
    references: Annotated[tuple[Reference, ...], HelpGroup("computation")] = (
        "precomputed",
        "in_step",
    )
    """Sources of the reference's log-probabilities that are timed: precomputed takes them from the
    disk, in_step computes them in every update."""
    batchings: Annotated[tuple[Batching, ...], HelpGroup("computation")] = ("packed", "padded")
    """Layouts that are timed: packed puts several sequences into a row, padded one."""
    row_lengths: Annotated[tuple[Count, ...], HelpGroup("computation")] = (1,)
    """Numbers of different lengths that the updates' packed rows may have at most, as a run of
    1,000 updates has them; trainings may have 3. Each number is timed; a padded batch has one."""
    remat: Annotated[tuple[Remat, ...], HelpGroup("computation")] = ("none",)
    """What the backward pass computes again to save memory: nothing (none), everything but matrix
    products (dots) or attention (attention), whole layers (full), or whole layers whose inputs lie
    in the host's memory (offload). Each is timed."""
    attention: Annotated[Backend, HelpGroup("computation")] = "auto"
    """Implementation of attention; auto takes splash on TPUs and cuDNN on GPUs where they can, and
    XLA otherwise."""
    mesh: Annotated[tuple[Count, Count, Count] | None, HelpGroup("devices")] = None
    """Number of devices along the mesh axes data, fsdp and tensor."""
    updates: Count = 16
    """Number of updates that are timed, after those that compile."""
    rounds: Count = 3
    """Number of times that the updates are timed, all configurations in turn; the fastest round
    counts, for TRL likewise."""
    against: Literal["trl"] | None = None
    """Other trainer that is timed as well: trl times TRL's DPOTrainer in float32, at its defaults
    and with precomputed references, and needs torch, trl and peft."""
    json: Annotated[Path | None, HelpGroup("output")] = None
    """File for every round's figures with the machine, the versions and both sides' settings."""

    def check(self) -> None:
        super().check()
        choices = (self.units, self.batchings, self.references, self.remat, self.row_lengths)
        if not all(choices):
            raise UserError(
                "bench step needs one of --units, --batchings, --references, --remat and"
                " --row-lengths at least"
            )


def bench_step(config: BenchStepConfig) -> None:
    """Run ``bench step``."""
    config.check()
    if config.against:
        # Before anything is compiled: whoever lacks torch should not wait to be told so.
        import_trl()
    task = _task(config)
    base = random_base(task.shape, task.base_dtype, task.mesh)
    contenders = _our_contenders(config, task, base)
    with tempfile.TemporaryDirectory() as temporary:
        if config.against:
            run = TrlRun(
                model=config.model,
                batch_size=config.batch_size * len(task.places),
                gradient_accumulation=config.gradient_accumulation,
                updates=config.updates,
                folder=Path(temporary),
            )
            pairs = pairs_of(task.questions, task.places)
            contenders += trl_contenders(run, task.shape, task.lora, pairs)
        runs = {contender.name: contender.run for contender in contenders}
        timings = in_turns(runs, config.rounds)
    print(f"{_heading(config, task)}\n")
    print(_table(contenders, timings, task))
    if config.json is not None:
        rivals = ("torch", "trl", "peft") if config.against else ()
        record = {
            "machine": this_machine(*rivals),
            "settings": as_mapping(config),
            "measured": [contender.as_row(timings[contender.name]) for contender in contenders],
        }
        write_json(config.json, record)


def _task(config: BenchStepConfig) -> StepTask:
    """Return what is trained: questions with the replies of their pairs, on the mesh."""
    shape = DecoderConfig.from_mapping(settings(config.model), config.model)
    mesh = make_mesh(config.mesh)
    check_heads(shape, mesh)
    # A CPU is far slower, and takes a quarter of the lengths unless told otherwise.
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    questions = reference_examples(
        config.batch_size * config.gradient_accumulation * config.updates,
        replies=config.replies,
        share=config.length_share or (0.25 if on_cpu else 1.0),
        vocab_size=shape.vocab_size,
    )
    compared, places = compared_replies(config.replies, config.pairs_per_question)
    return StepTask(
        shape=shape,
        lora=LoraConfig(config.lora_rank, 2.0 * config.lora_rank, 0.0),
        questions=Examples(
            questions.tokens[:, compared],
            questions.prompt_lengths[:, compared],
            questions.lengths[:, compared],
            {},
        ),
        places=places,
        mesh=mesh,
        base_dtype=config.base_dtype or ("float32" if on_cpu else "bfloat16"),
        batch_size=config.batch_size,
        accumulation=config.gradient_accumulation,
        updates=config.updates,
        # Rows of one length are planned for the timed updates alone, unless they are to be compared
        # with rows of several, which only a long run has.
        planned_updates=config.updates if max(config.row_lengths) == 1 else PLANNED_UPDATES,
        attention=config.attention,
    )


def compared_replies(
    replies: int, pairs_per_question: PairsPerQuestion
) -> tuple[np.ndarray, np.ndarray]:
    """Return which of a ranking's replies stand in its pairs, ``[compared]``, and the places of
    each pair's two among those, ``[pairs, 2]``.

    Args:
        replies: ranked, best first, none tied.
        pairs_per_question: as for :func:`jaxmodpo.rankings.pairs_of`.
    """
    pairs = [[pair.better, pair.worse] for pair in two_by_two(range(replies, 0, -1))]
    if pairs_per_question == "best-worst":
        pairs = pairs[:1]
    elif pairs_per_question != "all":
        pairs = pairs[:pairs_per_question]
    compared, places = np.unique(pairs, return_inverse=True)
    return compared, places.reshape(-1, 2)


def _our_contenders(config: BenchStepConfig, task: StepTask, base: Parameters) -> list[Contender]:
    # All contenders share the base, which is by far the largest of what they hold.
    contenders: list[Contender] = []
    for unit, batching, reference, remat, row_lengths in itertools.product(
        config.units, config.batchings, config.references, config.remat, config.row_lengths
    ):
        if batching == "padded" and row_lengths != config.row_lengths[0]:
            continue  # it is as long as the longest sequence, whatever is allowed
        way = Way(
            unit=unit,
            batching=batching,
            reference=reference,
            remat=remat,
            row_lengths=row_lengths if batching == "packed" else 1,
        )
        name = way.name if len(config.remat) == 1 else f"{way.name}, remat {remat}"
        print(f"compiling: {name}", file=sys.stderr)
        contenders.append(prepared(task, base, way, name))
    return contenders


def _heading(config: BenchStepConfig, task: StepTask) -> str:
    """Return what all rows of the table have in common."""
    questions = task.questions
    padded_tokens = questions.tokens.size / questions.lengths.sum()
    per_update = config.batch_size * config.gradient_accumulation
    device_kind = task.mesh.devices.flat[0].device_kind
    return (
        f"{config.model}, {task.base_dtype}, rank {config.lora_rank}, updates of {per_update}"
        f" questions with {questions.tokens.shape[1]} replies and {len(task.places)} pairs each,"
        f" {questions.lengths.mean():.0f} tokens a reply on average and {questions.lengths.max()}"
        f" at most (padding to one length: {padded_tokens:.2f}× the tokens), {task.mesh.size} ×"
        f" {device_kind}, fastest of {config.rounds} rounds in turns, {cores_and_load()}"
    )


def _table(contenders: Sequence[Contender], timings: Mapping[str, Timing], task: StepTask) -> str:
    """Return the table of all contenders; speeds are of real tokens: padding costs time and counts
    for nothing.
    """
    peak = peak_flops(task.mesh.devices.flat[0].device_kind)
    fastest = {name: timing.fastest for name, timing in timings.items()}
    rows: list[list[str]] = []
    for contender in contenders:
        seconds = fastest[contender.name]
        flops_per_device = contender.operations / seconds / task.mesh.size
        cells = [
            contender.name,
            f"{contender.pairs / seconds:.2f}",
            f"{timings[contender.name].spread:.0%}",
            f"{contender.tokens / seconds:,.0f}",
            f"{flops_per_device / 1e12:.3g}",
            f"{flops_per_device / peak:.1%}" if peak else "",
            f"{contender.peak / 2**20:,.0f}" if contender.peak else "",
        ]
        rows.append(cells + against_rivals(contender, contenders, fastest))
    header = ["", "pairs/s", "spread", "tokens/s", "TFLOP/s a device", "MFU", "peak MiB"]
    return text_table(header + headings_of_rivals(contenders), rows)
