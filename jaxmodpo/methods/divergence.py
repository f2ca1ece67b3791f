"""How far policies moved from their base, measured on replies that they sample themselves.

Several adapters are sampled in one run over one base, their slots side by side, so that the slots
of one need not stand empty while the last replies of another end. Log-probabilities are computed
for one adapter after the other::

    sampling = OwnSampling(prompts, eos=2, max_new_tokens=512, rows=64, seed=0)
    replies = sampling.replies(base, [ScaledAdapter(first), ScaledAdapter(second, 0.5)], journal)
    ratios = divergence(with_adapter(base, first), prompts, replies[0], rows=64)
    kl = ratios.mean()
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import jax
import numpy as np

from jaxmodpo.data.batches import Batching
from jaxmodpo.data.examples import completions as completions_as_examples
from jaxmodpo.files import Row
from jaxmodpo.fingerprints import fingerprint
from jaxmodpo.journals import Journal
from jaxmodpo.policy.loaded import Policy, ScaledAdapter, with_adapters
from jaxmodpo.policy.mesh import row_shards
from jaxmodpo.progress import Progress
from jaxmodpo.sampling.draw import SamplingSettings
from jaxmodpo.sampling.engine import Ask, Engine, Sampled, Shapes
from jaxmodpo.schema import Tally, read_as


@dataclass(frozen=True)
class _Row:
    """A row of the journal: a model's reply to the prompt of this number."""

    model: str
    number: Tally
    tokens: list[Tally]


class _Name(NamedTuple):
    """What tells a reply from all others of a run."""

    model: int
    number: int


@dataclass(frozen=True)
class OwnSampling:
    """How policies are sampled to see how far they moved: at temperature 1 from the whole
    vocabulary.

    Attributes:
        prompts: as tokens; each model replies to each of them once.
        eos: the token at which a reply ends.
        max_new_tokens: most tokens of a reply.
        rows: replies under way at a time.
        seed: of the draws, which are the same for every model.
    """

    prompts: Sequence[Sequence[int]]
    eos: int
    max_new_tokens: int
    rows: int
    seed: int

    def replies(
        self,
        base: Policy,
        adapters: Sequence[ScaledAdapter],
        journal: Journal,
        repliers: Sequence[int] | None = None,
    ) -> list[list[list[int]]]:
        """Return each model's reply to each prompt, as tokens, all sampled in one run.

        Args:
            base: a policy whose adapter changes nothing.
            adapters: the models, the base alone among them if its folder is None.
            journal: gains a row for each reply as it ends. Replies that an earlier process left
                there are not sampled again.
            repliers: numbers of the models that reply, by default all. The others have their part
                in the shapes that the run is compiled for.
        """
        names = [_journal_name(adapter) for adapter in adapters]
        repliers = range(len(adapters)) if repliers is None else repliers
        replies: dict[_Name, list[int]] = {}
        missing: list[_Name] = []
        sampled_before = _read(journal)
        for model in repliers:
            for number in range(len(self.prompts)):
                name = _Name(model, number)
                reply = sampled_before.get((names[model], number))
                if reply is None:
                    missing.append(name)
                else:
                    replies[name] = reply
        sampled_already = len(replies)
        total = sampled_already + len(missing)
        with Progress("sampling", total, "replies", sampled_already, leave=False) as bar:

            def keep(finished: Sequence[Sampled]) -> None:
                """Write replies to disk before the next tokens are drawn."""
                rows: list[Row] = []
                for reply in finished:
                    name = cast(_Name, reply.name)
                    replies[name] = reply.tokens
                    row = _Row(names[name.model], name.number, reply.tokens)
                    rows.append(dataclasses.asdict(row))
                journal.append(*rows)
                bar.update(len(rows))

            # What an earlier process finished needs no devices, and no adapter loaded again.
            if missing:
                self._run(with_adapters(base, adapters), missing, keep)
        replies_of_models: list[list[list[int]]] = []
        for model in repliers:
            own_names = [_Name(model, number) for number in range(len(self.prompts))]
            replies_of_models.append([replies[name] for name in own_names])
        return replies_of_models

    def _run(
        self,
        policy: Policy,
        missing: Sequence[_Name],
        keep: Callable[[list[Sampled]], None],
    ) -> None:
        """Sample the replies that are missing."""
        settings = SamplingSettings(1.0, 1.0, self.max_new_tokens, (self.eos,))
        # Of all prompts, also where some have their replies: a resumed run has the shapes of the
        # undisturbed one, and so its numbers.
        longest = max(map(len, self.prompts))
        shapes = Shapes.of(
            policy.config, longest, self.max_new_tokens, self.rows, row_shards(policy.mesh)
        )
        # The same keys for every model: two models that agree give equal replies, so that what
        # differs between them is not the luck of the draw.
        run_key = jax.random.key(self.seed)
        keys = list(jax.random.split(run_key, len(self.prompts)))
        asks: list[Ask] = []
        for name in missing:
            prompt = self.prompts[name.number]
            asks.append(Ask(name, prompt, keys[name.number], name.model))
        Engine(policy, settings, shapes).run(asks, keep)


def _journal_name(adapter: ScaledAdapter) -> str:
    """Return what a reply depends on besides the settings of its run. Not a name of the user's: a
    folder may get another adapter between two starts.
    """
    weights = "base" if adapter.folder is None else fingerprint(adapter.folder)
    return f"{weights} times {adapter.scale!r}"


def _read(journal: Journal) -> dict[tuple[str, int], list[int]]:
    """Return the replies of a journal."""
    replies: dict[tuple[str, int], list[int]] = {}
    for line, entry in enumerate(journal.rows, 1):
        row = read_as(entry, _Row, f"{journal.path}, line {line}")
        replies[row.model, row.number] = row.tokens
    return replies


def divergence(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    replies: Sequence[Sequence[int]],
    rows: int,
    length: int | None = None,
) -> np.ndarray:
    """Return log π − log π_ref of each reply in nats; over a policy's own replies the mean
    estimates KL(π ‖ π_ref).

    Args:
        policy: base and adapter.
        prompts: as tokens.
        replies: as tokens.
        rows: at a time.
        length: pad all sequences to this many tokens, so that other replies need no other
            compilation.
    """
    examples = completions_as_examples(prompts, replies, length)
    # Packed rows take the length that these replies need; padded ones keep the length they get.
    batching: Batching = "packed" if length is None else "padded"
    logps = policy.logps(examples, rows, batching=batching)
    reference_logps = policy.logps(examples, rows, reference=True, batching=batching)
    return (logps - reference_logps)[:, 0]
