"""What an experiment will ask for before it runs: judge calls, dollars, chip-hours and disk, phase by phase.

Counts follow from the phases before (how many questions, replies, pairs) or from the files where they are there. Where
the posts are not there yet, they are taken to be as many as the paper's, and the estimate says so. What is not known is
None, never a small number.

Chip-hours are arithmetic, not measurements: training and scoring at half of a chip's arithmetic, sampling at half of
its memory bandwidth, with posts and replies as long as real ones (``data.reference_lengths``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxmodpo.config import named_values
from jaxmodpo.data.pairs import count_rows, holds_rankings
from jaxmodpo.data.reference_lengths import reference_lengths
from jaxmodpo.errors import UserError, nearest
from jaxmodpo.files import read_table
from jaxmodpo.judging.criteria import load_criteria
from jaxmodpo.judging.settings import groups
from jaxmodpo.models import flops
from jaxmodpo.models.decoder import parameter_table as decoder_table
from jaxmodpo.models.lora import adapter_table
from jaxmodpo.models.parameters import count
from jaxmodpo.models.roberta import parameter_table as encoder_table
from jaxmodpo.models.shapes import SHAPES, decoder_shape, encoder_shape, name_of_folder
from jaxmodpo.records import read_personas
from jaxmodpo.training.hardware import Chip, chips

EFFICIENCY = 0.5
REPLY_BYTES = 1_900
"""a row of responses.csv: a reply of some 300 tokens and its question"""
RANKING_BYTES, COMPARISON_BYTES = 680, 550
"""a row of the ledger with its index: ids, shown order, raw and parsed answer, model, tokens"""
PAIR_BYTES = 3_600
"""a pair in JSON: two replies and the question"""
BISECTIONS = 7
"""models that a sweep measures at most to bring two to the same divergence"""
PAPER_POSTS = 2_979
"""posts of the paper: 2,379 training and 600 test questions"""
PERSONA_TOKENS, QUESTION_TOKENS, REPLY_TOKENS = 330, 55, 320
"""of a profile, a post and a reply, for the price of what an endpoint reads and writes"""
STATE_BYTES = 16
"""of a trained float32 parameter, with its gradient and two moments"""
_WEIGHT_BYTES = {"float32": 4.0, "bfloat16": 2.0, "int8": 1.0, "nf4": 0.5}
_GIB = 2**30


@dataclass
class Cost:
    """Of one phase; None where it depends on what is not known.

    Attributes:
        judge_calls: to the judge; of an endpoint judge each is paid for.
        endpoint_replies: replies asked of an endpoint.
        dollars: for both.
        chip_hours: of one chip.
        disk: bytes left behind.
        while_running: bytes besides, until the phase ends (checkpoints).
        unknown: why something is None, in words.
        notes: what else is to be said, in words.
    """

    judge_calls: int | None = 0
    endpoint_replies: int | None = 0
    dollars: float | None = 0.0
    chip_hours: float | None = 0.0
    disk: float | None = 0.0
    while_running: float = 0.0
    unknown: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, other: Cost) -> None:
        """Add another phase's cost; what is unknown of either is unknown of both."""
        for name in ("judge_calls", "endpoint_replies", "dollars", "chip_hours", "disk"):
            one, two = getattr(self, name), getattr(other, name)
            setattr(self, name, None if one is None or two is None else one + two)
        self.while_running = max(self.while_running, other.while_running)
        self.unknown += other.unknown


class Unknown(Exception):
    """What depends on a file or folder that is not there, or on what nobody estimates.

    Attributes:
        path: what is missing.
    """

    def __init__(self, path: Path, why: str = "is not there"):
        super().__init__(f"{path} {why}")
        self.path = path


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

    def phase(self, command: str, config: Any) -> Cost:
        """Return a phase's cost, and remember what it will have written.

        Raises:
            Unknown: all of it depends on a file that is not there and that no earlier phase writes.
            UserError: the data that are there are too few for the settings.
        """
        if command in _FREE:
            return Cost()
        if command not in _COMMANDS:
            raise Unknown(Path(command), "is not estimated")
        return _COMMANDS[command](self, config)

    def model(self, folder: Path) -> str:
        """Return a name of a model's shape: a folder with its ``config.json``, or the model that one is named after.

        Raises:
            Unknown: neither is known.
        """
        name = name_of_folder(folder)
        if name in SHAPES:
            self.assumed[f"{folder} is not there: taken to be as large as {name}, after which it is named"] = None
        elif not folder.exists():
            raise Unknown(folder)
        return name

    def too_large(self, needed: float, what: str, advice: str) -> list[str]:
        """Say that so many bytes, which are a part of what is needed, exceed a chip's memory; else nothing."""
        if needed <= self.chip.hbm_gib * _GIB:
            return []
        return [
            f"does not fit on one {self.chip.name}: {what} alone are {needed / _GIB:.1f} GiB of {self.chip.hbm_gib:g}; "
            f"{advice}, or take several chips"
        ]

    def rows(self, path: Path) -> int:
        """Return how many records a file has or will have."""
        if path in self.counts:
            return self.counts[path]
        if not path.exists():
            raise Unknown(path)
        if path.name.endswith("_personas.json"):
            return len(read_personas(path))
        if path.suffix == ".csv":
            return len(read_table(path, []))
        return count_rows(path)

    def seconds(self, operations: float) -> float:
        return operations / self.chip.flops / EFFICIENCY


def chip_named(name: str) -> Chip:
    """Return a chip by its name, or by how its topologies begin.

    Raises:
        UserError: none is called so.
    """
    known = {chip.name: chip for chip in chips()} | {chip.topology: chip for chip in chips() if chip.topology}
    if name not in known:
        raise UserError(f"no chip '{name}'{nearest(name, known)}")
    return known[name]


# --------------------------------------------------------------------------- phases


def _questions(e: Estimator, config: Any) -> Cost:
    from jaxmodpo.data.questions import check_test_size, filter_posts, read_posts

    absent = [path for path in config.input if not path.is_file()]
    if not absent:
        posts, _ = read_posts(config.input)
        number = len(filter_posts(posts, config)[0])
    elif all(path in e.counts for path in absent):
        number = sum(map(e.rows, config.input))
    else:
        number = PAPER_POSTS
        e.assumed[f"{absent[0]} is not there: taken for the paper's {PAPER_POSTS:,} posts"] = None
    check_test_size(config.test_size, number)
    e.counts[config.output_dir / "questions_train.csv"] = number - config.test_size
    e.counts[config.output_dir / "questions_test.csv"] = config.test_size
    return Cost(disk=300.0 * number)


def _world(e: Estimator, config: Any) -> Cost:
    e.counts[config.output_dir / "posts.csv"] = config.posts
    return Cost(chip_hours=None, disk=None, unknown=["the sandbox's pretraining is not estimated"])


def _personas(e: Estimator, config: Any) -> Cost:
    e.counts[config.output_dir / "train_personas.json"] = config.train
    e.counts[config.output_dir / "test_personas.json"] = config.select - config.train
    return Cost(disk=3_000.0 * config.select)


def _responses(e: Estimator, config: Any) -> Cost:
    questions = e.rows(config.questions)
    replies = questions * config.samples
    out = config.output_dir / "responses.csv"
    e.counts[out], e.per_question[out] = replies, config.samples
    cost = Cost(disk=REPLY_BYTES * replies)
    if config.engine == "endpoint":
        cost.endpoint_replies = replies
        answer = min(REPLY_TOKENS, config.max_new_tokens)
        _pay(cost, "models", config.endpoint_model, replies, QUESTION_TOKENS + 20, answer)
        return cost
    try:
        cost.chip_hours = _sampled(e, config, replies, config.batch_size)
        cost.notes = _sampler_fits(e, config)
    except Unknown as error:
        cost.chip_hours, cost.unknown = None, [str(error)]
    return cost


def _sampler_fits(e: Estimator, config: Any) -> list[str]:
    shape = decoder_shape(e.model(config.model))
    cache = 4.0 * shape.num_hidden_layers * shape.num_key_value_heads * shape.head_dim
    needed = _WEIGHT_BYTES[config.base_dtype] * count(decoder_table(shape))
    needed += cache * config.batch_size * config.max_new_tokens
    what = f"{config.base_dtype} weights and {config.batch_size} rows of cache"
    return e.too_large(needed, what, "set a smaller batch_size or base_dtype: nf4")


def _pay(cost: Cost, table: str, model: str, calls: int, prompt: float, answer: float) -> None:
    """Add the price of so many calls of so many tokens each, or say that it is not known."""
    from jaxmodpo.judging.families import Families
    from jaxmodpo.judging.judge import Usage

    # A variable without a value keeps its name.
    if not model or model.startswith("$"):
        cost.dollars, cost.unknown = None, [*cost.unknown, "no model is named for the endpoint"]
        return
    one = Families.load(table).of(model).cost(Usage(round(prompt), 0, round(answer)))
    if one is None:
        cost.dollars = None
        cost.unknown.append(f"the table '{table}' has no price of {model}")
    else:
        cost.dollars = (cost.dollars or 0.0) + one * calls


def _pay_judge(cost: Cost, config: Any, kind: Literal["rank", "compare"], replies: int, criteria: int) -> None:
    """Add the price of a judge's calls, each of which shows so many replies and asks about so many criteria."""
    from jaxmodpo.judging.families import Families
    from jaxmodpo.judging.forecast import CHARACTERS_PER_TOKEN, answer_tokens, framing
    from jaxmodpo.judging.prompts import Prompts

    if config.judge not in ("endpoint", "batch"):
        return
    assert cost.judge_calls is not None
    chosen = tuple(load_criteria(config.criteria, config.only)[:criteria])
    ties = getattr(config, "allow_ties", False)
    frame = len(framing(Prompts.load(config.prompts), kind, chosen, replies, ties)) / CHARACTERS_PER_TOKEN
    prompt = frame + PERSONA_TOKENS + QUESTION_TOKENS + replies * REPLY_TOKENS
    _pay(cost, config.model_table, config.judge_model, cost.judge_calls, prompt, answer_tokens(kind, criteria, replies))
    if config.judge == "batch" and cost.dollars is not None:
        cost.dollars *= 1 - Families.load(config.model_table).batch_discount


def _kl(e: Estimator, config: Any) -> Cost:
    replies = e.rows(config.questions) * config.samples
    return Cost(chip_hours=_sampled(e, config, replies, config.batch_size) + _scored(e, config, replies))


def _scored(e: Estimator, config: Any, replies: int) -> float:
    """Return the chip-hours of a divergence: the policy and the base once over every reply."""
    shape = decoder_shape(e.model(config.model))
    return 2 * e.seconds(flops.forward(shape, None, _lengths(replies))) / 3600


def _sampled(e: Estimator, config: Any, replies: int, rows: int) -> float:
    """Return the chip-hours of sampling: for every token all weights and the cache come from memory once a batch."""
    shape = decoder_shape(e.model(config.model))
    weights = _WEIGHT_BYTES[getattr(config, "base_dtype", "bfloat16")] * count(decoder_table(shape))
    # Keys and values of every row, on average half filled.
    cache = 4.0 * shape.num_hidden_layers * shape.num_key_value_heads * shape.head_dim
    cache *= rows * (config.max_prompt_length + config.max_new_tokens) / 2
    steps = math.ceil(replies / rows) * config.max_new_tokens
    return steps * (weights + cache) / e.chip.bandwidth / EFFICIENCY / 3600


def _preferences(e: Estimator, config: Any) -> Cost:
    replies = e.rows(config.responses)
    each = e.per_question.get(config.responses)
    if each is None:
        rows = read_table(config.responses, ["question_id"])
        each = round(len(rows) / len({row["question_id"] for row in rows}))
    questions = replies // each
    personas = config.personas_per_question or e.rows(config.personas)
    criteria = load_criteria(config.criteria, config.only)
    names = [criterion.name for criterion in criteria]
    per_ranking = each * (each - 1) // 2 if config.pairs == "all" else 1
    for name in names:
        e.counts[config.output_dir / f"{name}_pairs.json"] = questions * per_ranking
        e.counts[config.output_dir / f"{name}_rankings.json"] = questions
        e.per_question[config.output_dir / f"{name}_rankings.json"] = each
    asked = round(questions * personas * (1 + config.repeat_share))
    calls = groups(criteria, config.criteria_per_call)
    cost = Cost(
        judge_calls=asked * len(calls),
        disk=RANKING_BYTES * asked * len(names) + 2 * PAIR_BYTES * questions * len(names),
    )
    _pay_judge(cost, config, "rank", each, round(len(names) / len(calls)))
    return cost


def _evaluate(e: Estimator, config: Any) -> Cost:
    files = [Path(path) for path in named_values(config.responses, "--responses").values()]
    units = min(e.rows(path) for path in files)
    personas = config.personas_per_question or e.rows(config.personas)
    criteria = load_criteria(config.criteria, config.only)
    asked = units * math.comb(len(files), 2) * personas * (2 if config.both_orders else 1)
    asked = round(asked * (1 + config.repeat_share))
    calls = groups(criteria, config.criteria_per_call)
    cost = Cost(judge_calls=asked * len(calls), disk=COMPARISON_BYTES * asked * len(criteria))
    _pay_judge(cost, config, "compare", 2, round(len(criteria) / len(calls)))
    return cost


def _pairs(e: Estimator, path: Path, per_question: Any) -> int:
    """Return how many pairs a file of pairs or rankings gives."""
    rows = e.rows(path)
    if not (path.name.endswith("_rankings.json") or holds_rankings(path)) or per_question == "best-worst":
        return rows
    each = e.per_question.get(path, 5)
    most = each * (each - 1) // 2
    return rows * (most if per_question == "all" else min(int(per_question), most))


def _reward(e: Estimator, config: Any) -> Cost:
    # Imported here, since it is heavy.
    from jaxmodpo.methods.reward import planned

    parts = list(planned(config)[0].values()) if config.all else [config.rankings or config.pairs]
    shape, total = encoder_shape(e.model(config.model)), Cost()
    for path in parts:
        rows = e.rows(path)
        sequences = rows * (e.per_question.get(path, 5) if config.rankings else 2)
        if not config.rankings:
            sequences = 2 * _pairs(e, path, config.pairs_per_question)
        lengths = np.minimum(_lengths(sequences), config.max_length)
        operations = 3 * flops.encoder_forward(shape, lengths) * config.epochs * (2 if config.refit else 1)
        size = 4.0 * count(encoder_table(shape))
        part = Cost(chip_hours=e.seconds(operations) / 3600, disk=size * (2 if config.refit else 1))
        part.while_running = 3 * 3 * size
        total.add(part)
    state = float(STATE_BYTES) * count(encoder_table(shape))
    total.notes = e.too_large(state, "weights, gradients and moments", "take a smaller encoder")
    return total


def _align(sequences: int) -> Callable[[Estimator, Any], Cost]:
    def cost(e: Estimator, config: Any) -> Cost:
        per_question = getattr(config, "pairs_per_question", "best-worst")
        if isinstance(config.pairs, tuple):
            files = [Path(path) for path in named_values(config.pairs, "--pairs").values()]
            pairs = min(_pairs(e, path, per_question) for path in files)
            each = 2 * len(files)
        else:
            pairs, each = _pairs(e, config.pairs, per_question), sequences
        return _trained(e, config, pairs, each, runs=1)

    return cost


def _trained(e: Estimator, config: Any, pairs: int, sequences: int, runs: int) -> Cost:
    """Return the cost of training ``runs`` adapters on the same examples of so many sequences each."""
    shape, lora = decoder_shape(e.model(config.model)), config.lora
    lengths = np.minimum(_lengths(pairs * sequences), config.max_length)
    operations = flops.training(shape, lora, lengths) * config.epochs * runs
    if sequences > 1:
        operations += flops.forward(shape, lora, lengths)
    adapter = 4.0 * count(adapter_table(decoder_table(shape), lora))
    e.adapters[config.output_dir / "adapter"] = adapter
    needed = _WEIGHT_BYTES[config.base_dtype] * count(decoder_table(shape)) + STATE_BYTES / 4 * adapter
    what = f"{config.base_dtype} weights, the adapter, its gradients and moments"
    notes = e.too_large(needed, what, "set base_dtype: nf4")
    return Cost(chip_hours=e.seconds(operations) / 3600, disk=runs * adapter, while_running=9 * adapter, notes=notes)


def _lengths(sequences: int) -> np.ndarray:
    """Draw the tokens of so many sequences, ``[sequences]``."""
    return reference_lengths(-(-sequences // 2), np.random.default_rng(0))[1].ravel()[:sequences]


def _soup(e: Estimator, config: Any) -> Cost:
    if absent := [folder for folder in config.adapters if folder not in e.adapters and not folder.is_dir()]:
        raise Unknown(absent[0])
    parts = [e.adapters[f] if f in e.adapters else _bytes(f) for f in config.adapters]
    e.adapters[config.output_dir / "adapter"] = sum(parts)
    return Cost(disk=sum(parts) if config.how != "factors" else max(parts))


def _bytes(folder: Path) -> float:
    return float(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))


def _tune(once: Callable[[Estimator, Any], Cost]) -> Callable[[Estimator, Any], Cost]:
    """Return the cost of a search: every trial as long as the settings given would take, none pruned."""

    def cost(e: Estimator, config: Any) -> Cost:
        one = once(e, config)
        return replace(one, chip_hours=_known(one.chip_hours) * config.trials)

    return cost


def _sweep(e: Estimator, config: Any) -> Cost:
    """Return the cost of a sweep: its training, and the measuring of every model at each divergence that is tried.

    Adapters that are given are not trained. Of the bisections to matched divergence the most are counted.
    """
    from jaxmodpo.search.sweep import grid

    points = len(grid(config.weights, config.step, len(named_values(config.margin, "--margin")) + 1))
    cost = _trained(e, config, _pairs(e, config.pairs, config.pairs_per_question), 2, runs=points)
    disk, hours = _known(cost.disk), _known(cost.chip_hours)
    adapter, ends = disk / points, 0.0
    for path in map(Path, named_values(config.soup, "--soup").values()):
        if path in e.adapters or (path / "adapter_config.json").is_file():
            ends += e.adapters.get(path, adapter)
            continue
        end = _trained(e, config, _pairs(e, path, config.pairs_per_question), 2, runs=1)
        hours, disk, ends = hours + _known(end.chip_hours), disk + _known(end.disk), ends + _known(end.disk)
    models = 1 + points * (2 if config.soup else 1)
    if config.soup:
        disk += points * ends
        models += points * BISECTIONS if config.match_kl else 0
    replies = models * e.rows(config.questions) * config.samples
    hours += _sampled(e, config, replies, config.sample_batch_size) + _scored(e, config, replies)
    return replace(cost, chip_hours=hours, disk=disk)


def _known(value: float | None) -> float:
    """Return what a training's cost always states: one that it cannot is raised as :class:`Unknown`."""
    assert value is not None
    return value


_FREE = frozenset({"report", "judges", "pairs", "votes", "sandbox check"})
"""commands that take seconds and leave little behind"""


_COMMANDS: Mapping[str, Callable[[Estimator, Any], Cost]] = {
    "sandbox world": _world,
    "questions": _questions,
    "personas": _personas,
    "responses": _responses,
    "preferences": _preferences,
    "reward": _reward,
    "align sft": _align(1),
    "align dpo": _align(2),
    "align modpo": _align(2),
    "align joint": _align(2),
    "tune reward": _tune(_reward),
    "tune sft": _tune(_align(1)),
    "tune dpo": _tune(_align(2)),
    "tune modpo": _tune(_align(2)),
    "tune joint": _tune(_align(2)),
    "sweep": _sweep,
    "soup": _soup,
    "score kl": _kl,
    "evaluate": _evaluate,
}
