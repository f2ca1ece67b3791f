"""Replies sampled on this machine: a base model, adapters on it, and a journal of what is done.

Each reply is on disk as soon as it ends, in whatever order they end. A run that was killed samples
what is missing, in the shapes of the whole, so that every reply is that of an undisturbed run.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import jax
from jax import Array

from jaxmodpo.data.text import PolicyText
from jaxmodpo.errors import UserError
from jaxmodpo.journals import Journal
from jaxmodpo.models.model_folder import read_sampling_defaults
from jaxmodpo.models.quantized import BaseDtype
from jaxmodpo.policy.loaded import Policy, ScaledAdapter, load_policy, with_adapters
from jaxmodpo.policy.mesh import row_shards
from jaxmodpo.progress import Progress
from jaxmodpo.sampling.draw import SamplingSettings
from jaxmodpo.sampling.engine import Ask, Engine, Sampled, Shapes
from jaxmodpo.sampling.journal import PlannedReply, row
from jaxmodpo.sampling.slots import Work

logger = logging.getLogger(__name__)


class LocalSettings(Protocol):
    """What a command's settings say of the models that this machine samples from."""

    @property
    def model(self) -> Path | None: ...
    @property
    def base_dtype(self) -> BaseDtype: ...
    @property
    def mesh(self) -> tuple[int, int, int] | None: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def seed(self) -> int: ...
    def models(self) -> dict[str, Path | None]: ...


@dataclass(frozen=True)
class LocalSampler:
    """What samples, and how.

    Attributes:
        model: folder of the base model.
        adapters: each model's name, as in :class:`PlannedReply`, with its PEFT folder; None for the
            base alone.
        base_dtype: number format of the base.
        mesh: devices along the mesh's axes, or None for the sampler's default.
        settings: how to draw.
        stop: texts before which a reply ends.
        rows: replies under way at a time.
        seed: of the draws.
    """

    model: Path
    adapters: Mapping[str, Path | None]
    base_dtype: BaseDtype
    mesh: tuple[int, int, int] | None
    settings: SamplingSettings
    stop: tuple[str, ...]
    rows: int
    seed: int

    @functools.cached_property
    def policy(self) -> Policy:
        """The base with its adapters, loaded when it is first asked for.

        Raises:
            UserError: folders that are no model or adapter, or do not fit each other or the mesh.
        """
        base = load_policy(
            self.model, base_dtype=self.base_dtype, mesh=self.mesh, for_sampling=True
        )
        return with_adapters(base, [ScaledAdapter(folder) for folder in self.adapters.values()])

    def shapes(self, prompts: Mapping[str, Sequence[int]]) -> Shapes:
        """Return the sizes that a run is compiled for.

        Args:
            prompts: all of the run's, as tokens, by question id.

        Raises:
            UserError: as :attr:`policy`; replies that would go beyond the model's positions, end
                tokens that it does not have, or devices that do not divide the rows.
        """
        policy = self.policy
        longest = max(map(len, prompts.values()))
        check_positions(policy, longest, self.settings.max_new_tokens)
        check_end_tokens(policy, self.settings.end_tokens)
        return Shapes.of(
            policy.config,
            longest,
            self.settings.max_new_tokens,
            self.rows,
            row_shards(policy.mesh),
        )

    def sample(
        self,
        missing: Sequence[PlannedReply],
        prompts: Mapping[str, Sequence[int]],
        text: PolicyText,
        journal: Journal,
        settings_key: str,
        done: int,
    ) -> None:
        """Sample replies, and keep each as it ends.

        Args:
            missing: what to sample.
            prompts: as tokens, by question id; those of replies that are not missing too, since a
                resumed run must have the shapes of the whole.
            text: turns tokens into a text.
            journal: gains a row for each reply.
            settings_key: of these rows.
            done: how many replies there are already.
        """
        policy = self.policy
        shapes = self.shapes(prompts)
        number_of = {name: number for number, name in enumerate(self.adapters)}
        asks: list[Ask] = []
        for planned_reply in missing:
            question_id = planned_reply.question.question_id
            key = reply_key(self.seed, question_id, planned_reply.number)
            adapter_number = number_of[planned_reply.model]
            asks.append(Ask(planned_reply, prompts[question_id], key, adapter_number))
        with Progress("sampling", done + len(missing), "replies", done, leave=False) as bar:

            def keep(finished: Sequence[Sampled]) -> None:
                """Write replies to disk before the next tokens are drawn."""
                rows: list[dict[str, Any]] = []
                for reply in finished:
                    planned_reply = cast(PlannedReply, reply.name)
                    answer = {
                        "response_text": before_stop(text.decode(reply.tokens), self.stop),
                        "finish_reason": reply.reason,
                        "tokens": len(reply.tokens),
                        "prompt_tokens": len(prompts[planned_reply.question.question_id]),
                    }
                    rows.append(row(planned_reply, settings_key) | answer)
                journal.append(*rows)
                bar.update(len(rows))

            engine = Engine(
                policy,
                self.settings,
                shapes,
                stop_finder(text.decode, self.stop),
                observe=Speedometer(bar.note),
            )
            engine.run(asks, keep)
        programs = [f"{count} {name}" for name, count in sorted(engine.programs.items())]
        logger.info(
            "%d replies sampled, %d at a time; programs compiled: %s",
            len(missing),
            self.rows,
            ", ".join(programs) or "none, those of an earlier run served",
        )


def reply_key(seed: int, question_id: str, number: int) -> Array:
    """Return the random key of one reply: it depends on nothing but the seed, the question and the
    number.
    """
    name = f"{question_id}\x1f{number}"
    hashed_name = hashlib.sha256(name.encode()).digest()
    # As many bytes as a key can be folded with.
    folded = int.from_bytes(hashed_name[:4], "little")
    return jax.random.fold_in(jax.random.key(seed), folded)


def check_positions(policy: Policy, longest_prompt: int, new_tokens: int) -> None:
    """Refuse replies that go on behind the last position that the model knows.

    Raises:
        UserError: with both numbers.
    """
    positions = policy.config.max_position_embeddings
    if longest_prompt + new_tokens > positions:
        raise UserError(
            f"a prompt of {longest_prompt} tokens and --max-new-tokens {new_tokens} go beyond the"
            f" {positions} positions of {policy.folder}; lower --max-new-tokens or --max-prompt-length"
        )


def check_end_tokens(policy: Policy, end_tokens: Sequence[int]) -> None:
    """Refuse end tokens that the model does not have: no reply would end at them.

    Raises:
        UserError: naming the first.
    """
    unknown = [token for token in end_tokens if token >= policy.config.vocab_size]
    if unknown:
        raise UserError(
            f"{policy.folder}: the end token {unknown[0]} of its tokenizer or its"
            f" generation_config.json is beyond the model's {policy.config.vocab_size} tokens;"
            " correct it there"
        )


def stop_finder(
    decode: Callable[[Sequence[int]], str], stop: Sequence[str]
) -> Callable[[Sequence[int]], int | None] | None:
    """Return a function that finds how many of a reply's tokens complete its first stop string.

    Args:
        decode: turns tokens into text.
        stop: the strings; where there are none, neither is there a function.
    """
    if not stop:
        return None

    def tokens_to_stop(tokens: Sequence[int]) -> int | None:
        def holds_one(count: int) -> bool:
            text = decode(tokens[:count])
            return any(word in text for word in stop)

        if not holds_one(len(tokens)):
            return None
        # Halving: of the first ``low`` tokens none completes it, of the first ``high`` one does.
        low = 0
        high = len(tokens)
        while low + 1 < high:
            middle = (low + high) // 2
            if holds_one(middle):
                high = middle
            else:
                low = middle
        return high

    return tokens_to_stop


def before_stop(text: str, stop: Sequence[str]) -> str:
    """Return a text up to its first stop string."""
    starts = [text.index(word) for word in stop if word in text]
    if not starts:
        return text
    first_start = min(starts)
    return text[:first_start].rstrip()


@dataclass
class Speedometer:
    """Says how many tokens a second there are, since the first round was compiled.

    Attributes:
        note: gets the words.
    """

    note: Callable[[str], None]
    _tokens: int = 0
    _started: float | None = field(default=None)

    def __call__(self, work: Work) -> None:
        now = time.monotonic()
        if self._started is None:
            self._started = now
            return
        self._tokens += int(work.tokens)
        self.note(f"{self._tokens / max(now - self._started, 1e-9):,.0f} tokens/s")


def local_sampler(
    config: LocalSettings, settings: SamplingSettings, stop: tuple[str, ...] = ()
) -> LocalSampler:
    """Return the sampler that a command's settings ask for, and say in the log where the model
    itself asks for other draws.

    Args:
        config: the command's settings, which name a model.
        settings: how to draw.
        stop: texts before which a reply ends.
    """
    assert config.model is not None
    say_other_defaults(config.model, settings)
    return LocalSampler(
        model=config.model,
        adapters=config.models(),
        base_dtype=config.base_dtype,
        mesh=config.mesh,
        settings=settings,
        stop=stop,
        rows=config.batch_size,
        seed=config.seed,
    )


def say_other_defaults(model: Path, settings: SamplingSettings) -> None:
    """Say in the log where the model's ``generation_config.json`` asks for other draws than these:
    the command's settings count, and nobody should have to guess it.
    """
    ours = {
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "top_k": settings.top_k,
        "min_p": settings.min_p,
        "repetition_penalty": settings.repetition_penalty,
    }
    theirs = read_sampling_defaults(model)
    others = {name: value for name, value in theirs.items() if ours.get(name) != value}
    if others:
        listed = ", ".join(f"{name} {value}" for name, value in others.items())
        logger.info(
            "%s asks for %s in its generation_config.json; this command's own settings are used",
            model,
            listed,
        )
