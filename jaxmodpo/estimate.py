"""What an experiment will ask for before it runs: counts and arithmetic for each command's cost.
Prices of calls are :mod:`jaxmodpo.endpoints.prices`'s and :mod:`jaxmodpo.judging.prices`'s.

Counts follow from the phases before (how many questions, replies, pairs) or from the files where
they are there. Where the posts are not there yet, they are taken to be as many as the paper's, and
the estimate says so. What is not known is None, never a small number.

Chip-hours are arithmetic, not measurements: training and scoring at half of a chip's arithmetic,
sampling at half of its memory bandwidth (:mod:`jaxmodpo.sampling.roofline`, as ``fit`` counts too),
with posts and replies as long as real ones (``data.reference_lengths``).

Phases are priced in order, since each says what it will leave for those after it::

    estimator = Estimator(chip_named("H100 SXM"))
    estimator.phase(questions_config)       # almost nothing; says how many questions there will be
    estimator.phase(responses_config)       # as many replies, in chip-hours
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jaxmodpo.costs import (
    REPLIES_PER_RANKING,
    REPLY_TOKENS,
    AdapterTrainingSettings,
    BatchedSamplerSettings,
    Cost,
    RewardTrainingSettings,
    SamplerSettings,
    Unknown,
)
from jaxmodpo.data.pairs import count_rows, holds_rankings
from jaxmodpo.data.reference_lengths import reference_lengths
from jaxmodpo.endpoints.prices import INSTRUCTION_TOKENS, QUESTION_TOKENS
from jaxmodpo.errors import UserError, nearest
from jaxmodpo.files import read_table
from jaxmodpo.models import flops
from jaxmodpo.models.decoder import parameter_table as decoder_table
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.lora import adapter_table
from jaxmodpo.models.parameters import count
from jaxmodpo.models.roberta import parameter_table as encoder_table
from jaxmodpo.models.shapes import SHAPES, decoder_shape, encoder_shape, name_of_folder
from jaxmodpo.ranges import CommandSettings
from jaxmodpo.rankings import two_by_two
from jaxmodpo.records import read_personas
from jaxmodpo.sampling.roofline import SamplerBytes, prefill_seconds, tokens_per_second
from jaxmodpo.training.hardware import Chip, chips

EFFICIENCY = 0.5
"""the share of a chip's arithmetic and memory bandwidth that is counted with"""
PAPER_POSTS = 2_979
"""posts of the paper: 2,379 training and 600 test questions"""
STATE_BYTES = 16
"""of a trained float32 parameter, with its gradient and two moments"""
_WEIGHT_BYTES = {"float32": 4.0, "bfloat16": 2.0, "int8": 1.0, "nf4": 0.5}
_GIB = 2**30


@dataclass
class Estimator:
    """Goes through an experiment's phases in order.

    Attributes:
        chip: what trains and samples.
        counts: what the phases so far will have written: rows by file.
        per_question: of these, replies to a question, or of a ranking.
        adapters: bytes by folder.
        assumed: what counts rest on instead of data, in words, each once.
    """

    chip: Chip
    counts: dict[Path, int] = field(default_factory=dict)
    per_question: dict[Path, int] = field(default_factory=dict)
    adapters: dict[Path, float] = field(default_factory=dict)
    assumed: dict[str, None] = field(default_factory=dict)

    def phase(self, settings: CommandSettings) -> Cost:
        """Return a phase's cost, and remember what it will have written.

        Where the data that it depends on are not there, nor written by an earlier phase, all is
        unknown that such a phase may cost.

        Raises:
            UserError: the data that are there are too few for the settings.
        """
        try:
            return settings.cost(self)
        except Unknown as missing:
            cost = Cost(unknown=[str(missing)], disk=None)
            for name in settings.spends:
                setattr(cost, name, None)
            return cost

    # ----------------------------------------------------------------------- counts

    def model(self, folder: Path) -> str:
        """Return a name of a model's shape: a folder with its ``config.json``, or the model that
        one is named after.

        Raises:
            Unknown: neither is known.
        """
        name = name_of_folder(folder)
        if name in SHAPES:
            self._assume(
                f"{folder} is not there: taken to be as large as {name}, after which it is named"
            )
        elif not folder.exists():
            raise Unknown(folder)
        return name

    def rows(self, path: Path) -> int:
        """Return how many records a file has or will have.

        Raises:
            Unknown: it is not there, and no earlier phase writes it.
        """
        if path in self.counts:
            return self.counts[path]
        if not path.exists():
            raise Unknown(path)
        if path.name.endswith("_personas.json"):
            return len(read_personas(path))
        if path.suffix == ".csv":
            return len(read_table(path, []))
        return count_rows(path)

    def posts_to_come(self, files: Sequence[Path], absent: Sequence[Path]) -> int:
        """Return how many posts files will have, of which some are not there: the paper's, where
        nothing tells.
        """
        if all(path in self.counts for path in absent):
            return sum(map(self.rows, files))
        self._assume(f"{absent[0]} is not there: taken for the paper's {PAPER_POSTS:,} posts")
        return PAPER_POSTS

    def _assume(self, sentence: str) -> None:
        """Note what counts rest on instead of data; the same sentence counts once."""
        self.assumed[sentence] = None

    def replies_per_question(self, responses: Path) -> int:
        """Return how many replies a file of responses has or will have for each question."""
        expected = self.per_question.get(responses)
        if expected is not None:
            return expected
        rows = read_table(responses, ["question_id"])
        questions = {row["question_id"] for row in rows}
        return round(len(rows) / len(questions))

    def pairs(self, path: Path, per_question: Any = "best-worst") -> int:
        """Return how many pairs a file of pairs or rankings gives; see
        ``data.pairs.PairsPerQuestion``.
        """
        rows = self.rows(path)
        if not _is_rankings(path) or per_question == "best-worst":
            return rows
        # As if no two replies were tied: how many will be, only the judge knows.
        replies = self.per_question.get(path, REPLIES_PER_RANKING)
        all_pairs = math.comb(replies, 2)
        if per_question == "all":
            return rows * all_pairs
        return rows * min(int(per_question), all_pairs)

    def replies(self, paths: Sequence[Path], per_question: Any = "best-worst") -> int:
        """Return how many replies a training on the pairs of each objective's file computes: each
        of a question's once. Pairs that lie in files are counted as if they shared none.
        """
        questions = min(map(self.rows, paths))
        if not all(map(_is_rankings, paths)):
            return 2 * questions * len(paths)
        of_ranking = min(self.per_question.get(path, REPLIES_PER_RANKING) for path in paths)
        comparisons = two_by_two(range(of_ranking, 0, -1))
        if per_question == "best-worst":
            comparisons = comparisons[:1]
        elif per_question != "all":
            comparisons = comparisons[: int(per_question)]
        compared: set[int] = set()
        for pair in comparisons:
            compared |= {pair.better, pair.worse}
        # Objectives may choose other pairs of the same replies.
        return questions * min(of_ranking, len(compared) * len(paths))

    def adapter_bytes(self, folder: Path) -> float:
        """Return the size of an adapter that is there, or that an earlier phase will have written.

        Raises:
            Unknown: neither.
        """
        if folder in self.adapters:
            return self.adapters[folder]
        if not folder.is_dir():
            raise Unknown(folder)
        sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
        return float(sum(sizes))

    # ----------------------------------------------------------------------- chips

    def hours(self, operations: float) -> float:
        """Return the chip-hours of so many floating-point operations."""
        return operations / self.chip.flops / EFFICIENCY / 3600

    def too_large(self, needed: float, memory_use: str, advice: str) -> list[str]:
        """Say that so many bytes, which are a part of what is needed, exceed a chip's memory; else
        nothing.
        """
        if needed <= self.chip.hbm_gib * _GIB:
            return []
        return [
            f"does not fit on one {self.chip.name}: {memory_use} alone are {needed / _GIB:.1f} GiB of"
            f" {self.chip.hbm_gib:g}; {advice}, or take several chips"
        ]

    def sampling(
        self, config: SamplerSettings, replies: int, rows: int, adapters: float = 0.0
    ) -> float:
        """Return the chip-hours of sampling replies of usual length to usual posts, as
        ``fit --step sample`` counts its tokens a second and its prompts.

        Args:
            config: a sampler's settings.
            replies: how many are sampled.
            rows: of them, at a time.
            adapters: bytes of those that are sampled side by side.
        """
        rows_in_use = min(rows, max(replies, 1))
        needed = self._sampler_bytes(config, rows_in_use, adapters)
        speed = self._sampling_speed(needed, rows_in_use)
        tokens = replies * min(REPLY_TOKENS, config.max_new_tokens)
        # A prompt goes through the model once for all of its samples.
        prompts = replies / config.samples
        seconds = tokens / speed + prompts * self._prefill_seconds(config, needed, adapters)
        return seconds / EFFICIENCY / 3600 * math.prod(config.mesh or (1, 1, 1))

    def _sampling_speed(self, needed: SamplerBytes, rows: int) -> float:
        """Return the tokens a second of all chips at the memory's bandwidth."""
        return tokens_per_second(self.chip.bandwidth, rows, needed.weights_per_token, needed.cache)

    def _prefill_seconds(
        self, config: SamplerSettings, needed: SamplerBytes, adapters: float
    ) -> float:
        """Return the least seconds that all chips need for a usual post."""
        assert config.model is not None
        bytes_of_number = 4.0 if config.base_dtype == "float32" else 2.0
        return prefill_seconds(
            decoder_shape(self.model(config.model)),
            self.chip.flops,
            self.chip.bandwidth,
            chips=math.prod(config.mesh or (1, 1, 1)),
            weight_bytes=needed.weights_per_token,
            prompts=needed.prompt_rows,
            tokens=min(QUESTION_TOKENS + INSTRUCTION_TOKENS, config.max_prompt_length),
            adapter_numbers=adapters / bytes_of_number,
        )

    def _sampler_bytes(self, config: SamplerSettings, rows: int, adapters: float) -> SamplerBytes:
        assert config.model is not None
        return SamplerBytes.of(
            decoder_shape(self.model(config.model)),
            config.base_dtype,
            rows,
            config.max_prompt_length,
            config.max_new_tokens,
            adapters,
            config.mesh or (1, 1, 1),
        )

    def sampler_notes(self, config: BatchedSamplerSettings, adapters: float = 0.0) -> list[str]:
        """Say how fast a sampler can be and what it takes of a chip's memory, or that weights and
        cache are too large for it.
        """
        rows = config.batch_size
        needed = self._sampler_bytes(config, rows, adapters)
        total = needed.weights + needed.cache + needed.prompts
        memory_use = f"{config.base_dtype} weights, {rows} rows of cache and their prompts'"
        complaint = self.too_large(total, memory_use, "set a smaller batch_size or base_dtype: nf4")
        if complaint:
            return complaint
        speed = self._sampling_speed(needed, rows)
        chips = math.prod(config.mesh or (1, 1, 1))
        chips_in_words = f"one {self.chip.name}" if chips == 1 else f"{chips} × {self.chip.name}"
        return [
            f"{speed:,.0f} tokens/s at the memory's bandwidth of {chips_in_words}, half of which is"
            f" counted with; {memory_use} are {total / _GIB:.1f} GiB of a chip's"
            f" {self.chip.hbm_gib:g}"
        ]

    def sampled_adapters(self, folders: Iterable[Path | None], base_dtype: str) -> float:
        """Return the bytes of the adapters of one sampling run, None for the base alone; those
        that are not known count as nothing.
        """
        total = 0.0
        for folder in folders:
            # No estimate fails for an adapter: it is small beside its base.
            with contextlib.suppress(Unknown):
                total += self.adapter_bytes(folder) if folder is not None else 0.0
        # Files are float32. The sampler rounds adapters to what it multiplies them in.
        return total if base_dtype == "float32" else total / 2

    def scoring(self, model: Path, sequences: int, models: int = 1) -> float:
        """Return the chip-hours of log-probabilities: each of so many models once over every
        sequence.
        """
        shape = decoder_shape(self.model(model))
        return self.hours(models * flops.forward(shape, None, lengths(sequences)))

    def rewarding(self, model: Path, sequences: int, longest: int) -> float:
        """Return the chip-hours of a reward model's forward pass over so many sequences."""
        shape = encoder_shape(self.model(model))
        tokens = np.minimum(lengths(sequences), longest)
        return self.hours(flops.encoder_forward(shape, tokens))

    def model_bytes(self, model: Path) -> float:
        """Return the size of a decoder's weights in bfloat16."""
        return 2.0 * count(decoder_table(decoder_shape(self.model(model))))

    def training(
        self,
        config: AdapterTrainingSettings,
        replies: int,
        runs: int = 1,
        *,
        has_reference: bool = True,
    ) -> Cost:
        """Return the cost of training adapters, and remember the last one's size.

        Args:
            config: a policy's training settings.
            replies: how many sequences an epoch computes.
            runs: how many adapters are trained on them.
            has_reference: whether the reference's log-probabilities are computed too.
        """
        shape = decoder_shape(self.model(config.model))
        tokens = np.minimum(lengths(replies), config.max_length)
        operations = flops.training(shape, config.lora, tokens) * config.epochs * runs
        # The reference's log-probabilities, computed once before the first update.
        if has_reference:
            operations += flops.forward(shape, config.lora, tokens)
        adapter = 4.0 * count(adapter_table(decoder_table(shape), config.lora))
        self.adapters[config.output_dir / "adapter"] = adapter
        # Four bytes of each parameter are counted in the adapter's size; gradient and moments come
        # to it. The base is frozen and has neither.
        needed = _weight_bytes(shape, config.base_dtype) + STATE_BYTES / 4 * adapter
        memory_use = f"{config.base_dtype} weights, the adapter, its gradients and moments"
        return Cost(
            chip_hours=self.hours(operations),
            disk=runs * adapter,
            while_running=9 * adapter,
            notes=self.too_large(needed, memory_use, "set base_dtype: nf4"),
        )

    def reward_training(self, config: RewardTrainingSettings, sequences: Sequence[int]) -> Cost:
        """Return the cost of training reward models.

        Args:
            config: a reward model's training settings.
            sequences: of each model, how many it is trained on.
        """
        shape = encoder_shape(self.model(config.model))
        parameters = float(count(encoder_table(shape)))
        trainings = 2 if config.refit else 1
        total = Cost()
        for number in sequences:
            tokens = np.minimum(lengths(number), config.max_length)
            # Forward once, and backward twice as much.
            operations = 3 * flops.encoder_forward(shape, tokens) * config.epochs * trainings
            weights = 4 * parameters
            cost = Cost(chip_hours=self.hours(operations), disk=weights * trainings)
            # Three checkpoints at most, each of the weights and their two moments.
            cost.while_running = 3 * 3 * weights
            total.add(cost)
        state = STATE_BYTES * parameters
        total.notes = self.too_large(
            state, "weights, gradients and moments", "take a smaller encoder"
        )
        return total


def lengths(sequences: int) -> np.ndarray:
    """Draw the tokens of so many sequences as long as real ones, ``[sequences]``."""
    # Lengths are drawn for pairs: one more where the number is odd.
    pairs = -(-sequences // 2)
    _, tokens = reference_lengths(pairs, np.random.default_rng(0))
    return tokens.ravel()[:sequences]


def _is_rankings(path: Path) -> bool:
    """Return whether a file, which may not be there yet, holds rankings and not pairs."""
    return path.name.endswith("_rankings.json") or holds_rankings(path)


def _weight_bytes(shape: DecoderConfig, base_dtype: str) -> float:
    """Return the size of a decoder's weights, as if all of them were of one type."""
    return _WEIGHT_BYTES[base_dtype] * count(decoder_table(shape))


def chip_named(name: str) -> Chip:
    """Return a chip by its name, or by how its topologies begin.

    Raises:
        UserError: none is called so.
    """
    chips_by_name: dict[str, Chip] = {}
    for chip in chips():
        chips_by_name[chip.name] = chip
        if chip.topology:
            chips_by_name[chip.topology] = chip
    if name not in chips_by_name:
        raise UserError(f"no chip '{name}'{nearest(name, chips_by_name)}")
    return chips_by_name[name]
