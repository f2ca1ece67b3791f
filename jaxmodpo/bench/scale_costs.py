"""What ``bench scale`` measures at one size: CPU seconds, which other programs on the machine do
not lengthen as they do the wall clock's, and bytes::

    step_costs(StepSize(shape=shape, length=64))    # {"compile": 1.9, "update": 0.2, "peak": …}

As a program it measures a step on the devices of its own process, which are emulated where
``XLA_FLAGS`` says so::

    XLA_FLAGS=--xla_force_host_platform_device_count=4 python -m jaxmodpo.bench.scale_costs JSON
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np

from jaxmodpo.bench.our_step import StepTask, TimedStep, Way
from jaxmodpo.bench.random_model import random_base
from jaxmodpo.bench.trl_step import Specials, words_tokenizer
from jaxmodpo.data.batches import Batches
from jaxmodpo.data.reference_lengths import every_pair, full_examples, reference_lengths
from jaxmodpo.data.replies import listed_pairs, policy_replies
from jaxmodpo.data.text import PolicyText
from jaxmodpo.errors import UserError
from jaxmodpo.models import flops
from jaxmodpo.models.attention import Attention
from jaxmodpo.models.decoder import parameter_table
from jaxmodpo.models.lora import LoraConfig, adapter_table, side_by_side
from jaxmodpo.models.parameters import initialize
from jaxmodpo.models.shapes import decoder_shape
from jaxmodpo.policy.loaded import Policy
from jaxmodpo.policy.mesh import make_mesh, put, shardings
from jaxmodpo.records import Candidate, Pair
from jaxmodpo.sampling.draw import SamplingSettings
from jaxmodpo.sampling.engine import Ask, Engine, Sampled, Shapes

Costs = dict[str, float]
"""by name: CPU seconds; bytes where the name is :data:`PEAK`"""

PEAK = "peak of a device"

_VOCABULARY = 4096
_TIMES = 3
"""how often what is quick is run; the run with the fewest CPU seconds counts"""

_Result = TypeVar("_Result")


def cpu_seconds_of(work: Callable[[], _Result]) -> tuple[float, _Result]:
    """Return what some work took of all this process's threads, and its result."""
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


# --------------------------------------------------------------------------- pairs


def data_costs(pairs: int, model: str, length_share: float, seed: int) -> Costs:
    """Measure the way of so many pairs, each of a question of its own, from texts to packed
    batches.
    """
    examples = _pairs_of_words(pairs, length_share, seed)
    with tempfile.TemporaryDirectory() as temporary:
        tokenizer = words_tokenizer(_VOCABULARY, Path(temporary), Specials(bos=1, eos=2, pad=2))
    text = PolicyText(tokenizer)
    listed = listed_pairs([examples])
    tokenize, replies = cpu_seconds_of(lambda: policy_replies(listed.texts, text))
    group, questions = cpu_seconds_of(lambda: listed.compared(replies).by_question())
    cost = functools.partial(flops.token_cost, decoder_shape(model))
    pack, _ = cpu_seconds_of(
        lambda: Batches(
            questions.examples, batch_size=4, accumulation=4, batching="packed", cost=cost
        )
    )
    return {"tokens": tokenize, "questions": group, "packed batches": pack}


def _pairs_of_words(pairs: int, length_share: float, seed: int) -> list[Pair]:
    """Return pairs as long as real ones, of words without a meaning."""
    generator = np.random.default_rng(seed)
    prompts, lengths = reference_lengths(pairs, generator, length_share)
    words = np.array([f"w{number}" for number in range(3, _VOCABULARY)])

    def text(count: int) -> str:
        return " ".join(generator.choice(words, count))

    made: list[Pair] = []
    for number, (prompt, (chosen, rejected)) in enumerate(
        zip(prompts[:, 0].tolist(), lengths.tolist(), strict=True)
    ):
        made.append(
            Pair(
                f"q{number}",
                text(prompt),
                Candidate("chosen", text(chosen - prompt)),
                Candidate("rejected", text(rejected - prompt)),
            )
        )
    return made


# --------------------------------------------------------------------------- steps


@dataclass(frozen=True, kw_only=True)
class StepSize:
    """A training step on pairs whose replies all have as many tokens, padded.

    Attributes:
        model: the model's shape.
        layers: of it; None for its own number.
        length: tokens of a reply with its prompt.
        pairs: of an update.
        rank: of the adapter.
    """

    model: str
    layers: int | None = None
    length: int
    pairs: int = 1
    rank: int


def step_costs(size: StepSize) -> Costs:
    """Compile a step for all of this process's devices, and time one update."""
    # Along another axis the same step may have been compiled, which would then take no time.
    jax.clear_caches()
    shape = decoder_shape(size.model)
    if size.layers is not None:
        shape = dataclasses.replace(shape, num_hidden_layers=size.layers)
    mesh = make_mesh()
    task = StepTask(
        shape=shape,
        lora=LoraConfig(size.rank, 2.0 * size.rank, 0.0),
        questions=full_examples(size.pairs, size.length),
        places=every_pair(2),
        mesh=mesh,
        batch_size=size.pairs,
    )
    step = TimedStep(task, random_base(shape, "float32", mesh), Way(batching="padded"))
    seconds = min(cpu_seconds_of(step.run)[0] for _ in range(_TIMES))
    return {"compiling": step.seconds_to_compile, "an update": seconds, PEAK: step.peak}


def emulated_step_costs(size: StepSize, devices: int) -> Costs:
    """Measure :func:`step_costs` in a process whose CPU poses as so many devices.

    Raises:
        UserError: the process failed.
    """
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu"}
    arguments = json.dumps(dataclasses.asdict(size))
    command = [sys.executable, "-m", "jaxmodpo.bench.scale_costs", arguments]
    process = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if process.returncode:
        lines = process.stderr.strip().splitlines() or ["it was killed"]
        raise UserError(f"bench scale: a step on {devices} devices failed: {lines[-1]}")
    costs: Costs = json.loads(process.stdout.splitlines()[-1])
    return costs


# --------------------------------------------------------------------------- adapters


@dataclass(frozen=True, kw_only=True)
class SamplingSize:
    """Replies of one length to prompts of one, shared out evenly among adapters.

    Attributes:
        model: the model's shape.
        adapters: side by side.
        rank: of each.
        replies: all under way at once.
        tokens: of a reply.
    """

    model: str
    adapters: int
    rank: int
    replies: int = 32
    tokens: int = 32


def sampling_costs(size: SamplingSize) -> Costs:
    """Sample all replies, after once for compiling."""
    policy = _policy_with_adapters(size)
    settings = SamplingSettings(1.0, 1.0, size.tokens, ())
    prompt = list(range(3, 11))
    shapes = Shapes.of(policy.config, len(prompt), size.tokens, size.replies, 1)
    keys = jax.random.split(jax.random.key(0), size.replies)
    asks: list[Ask] = []
    for number, key in enumerate(keys):
        # Adapters by turns, so that each has as many replies.
        asks.append(Ask(number, prompt, key, number % size.adapters))

    def sample() -> None:
        replies: list[Sampled] = []
        Engine(policy, settings, shapes).run(asks, replies.extend)
        assert all(len(reply.tokens) == size.tokens for reply in replies)

    sample()
    return {"replies": min(cpu_seconds_of(sample)[0] for _ in range(_TIMES))}


def _policy_with_adapters(size: SamplingSize) -> Policy:
    """Return a policy of random weights with fresh adapters side by side."""
    shape = decoder_shape(size.model)
    mesh = make_mesh(devices=jax.devices()[:1])
    base = random_base(shape, "float32", mesh)
    lora = LoraConfig(size.rank, 2.0 * size.rank, 0.0)
    table = adapter_table(parameter_table(shape), lora)
    adapter = jax.tree.map(np.asarray, initialize(table, jax.random.key(1)))
    together, parameters, ranks_of = side_by_side([(lora, adapter)] * size.adapters)
    places = shardings(mesh)(adapter_table(parameter_table(shape), together))
    placed = {name: put(array, places[name]) for name, array in parameters.items()}
    attention = Attention("auto", mesh)
    # One adapter alone is sampled without a word about whose ranks are whose.
    ranks = ranks_of if size.adapters > 1 else None
    return Policy(Path(size.model), shape, base, together, placed, mesh, attention, ranks)


def main() -> None:
    """Measure the step that the command line describes, and print its costs, as JSON."""
    print(json.dumps(step_costs(StepSize(**json.loads(sys.argv[1])))))


if __name__ == "__main__":
    main()
