"""Slots: a fixed number of rows that never wait for the longest among them.

A run has ``rows`` slots. A device-side loop draws a token a slot, and comes back to the host after
some steps, or as soon as enough slots have ended. Ended replies are handed out, and their slots get
the next prompts. A prompt is prefilled once, whatever the number of its replies, and its cache is
copied into all of their slots::

    slot 0   [prompt a | reply 1 ........ end][prompt a | reply 4 ...
    slot 1   [prompt a | reply 2 .. end][prompt b | reply 1 .........
    slot 2   [prompt a | reply 3 ............. length][prompt b | ...
                                       ^ harvest and refill

What a reply becomes depends on its key and on the run's shapes alone. Rows do not see each other,
the attention's sums do not depend on the cache's length (:mod:`jaxmodpo.models.cached_attention`),
and the key of a token is its reply's key and its number. So neighbors, order and restarts change
nothing, to the bit.

A run compiles two programs: a prefill and a round. The cache has the places of the longest prompt
and reply, and is read only as far as the longest reply under way, so that early tokens do not pay
for the places of late ones::

    shapes = Shapes.of(policy.config, longest_prompt=90, new_tokens=512, rows=64)
    asks = [Ask(name, prompt, key) for name, prompt, key in ...]
    Engine(policy, settings, shapes).run(asks, hand_out=replies.extend)
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmodpo.data.examples import check_tokens
from jaxmodpo.data.text import pad_rows
from jaxmodpo.errors import UserError
from jaxmodpo.models.cached_attention import BLOCK, Cache, cache_shape
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.policy.loaded import Policy
from jaxmodpo.policy.mesh import row_shards
from jaxmodpo.progress import Progress
from jaxmodpo.records import FinishReason
from jaxmodpo.sampling.draw import SamplingSettings
from jaxmodpo.sampling.programs import programs_compiled
from jaxmodpo.sampling.slots import (
    NO_TOKEN,
    PROMPT_CHUNK,
    Prompts,
    Refill,
    Slots,
    Work,
    advance,
    empty_slots,
    prefill,
)

logger = logging.getLogger(__name__)

STEPS_A_ROUND = 32
"""tokens a slot after which the device comes back to the host at the latest"""
ENDED_SHARE = 0.125
"""share of the slots that have ended at which it comes back earlier"""


@dataclass(frozen=True)
class Ask:
    """A reply to sample.

    Attributes:
        name: what the caller knows it by.
        prompt: tokens.
        key: its random key.
        adapter: which of the policy's adapters replies, where it has several.
    """

    name: object
    prompt: Sequence[int]
    key: Array
    adapter: int = 0


@dataclass(frozen=True)
class Sampled:
    """A finished reply.

    Attributes:
        name: of the :class:`Ask`.
        tokens: all of them, the end token included where there is one.
        reason: ``end``: an end token; ``stop``: a stop string; ``length``: the most tokens.
    """

    name: object
    tokens: list[int]
    reason: FinishReason


@dataclass(frozen=True)
class Shapes:
    """The sizes that a run is compiled for; replies depend on them in their last bits.

    Attributes:
        rows: slots.
        prompt_rows: prompts prefilled at a time.
        prompt_tokens: most of a prompt, a multiple of :data:`PROMPT_CHUNK`.
        prompt_length: places that a prompt takes in the cache; fewer where a window is shorter.
        cache_length: places of a slot, for its prompt and its reply.
    """

    rows: int
    prompt_rows: int
    prompt_tokens: int
    prompt_length: int
    cache_length: int

    @classmethod
    def of(
        cls, config: DecoderConfig, longest_prompt: int, new_tokens: int, rows: int, shards: int = 1
    ) -> Shapes:
        """Return the shapes of a run.

        Args:
            config: the model's; a sliding window bounds what the cache holds.
            longest_prompt: tokens.
            new_tokens: most of a reply.
            rows: slots.
            shards: among how many devices rows are shared out.

        Raises:
            UserError: devices that do not divide the slots.
        """
        if rows % shards:
            raise UserError(
                f"{rows} rows cannot be shared out among {shards} devices; give a --batch-size"
                f" that {shards} divides, or another --mesh"
            )
        unit = max(BLOCK, PROMPT_CHUNK)
        cache_length = _rounded_up(longest_prompt + new_tokens, unit)
        if config.sliding_window is not None:
            # With a window, old places are used again: what a token sees and the tokens under way.
            window_length = _rounded_up(config.sliding_window + PROMPT_CHUNK, unit)
            cache_length = min(cache_length, window_length)
        prompt_tokens = _rounded_up(longest_prompt, unit)
        # An eighth of the slots is what ends between two refills; at least eight prompts are taken
        # at a time where there are as many slots.
        refilled = round(rows * ENDED_SHARE)
        prompt_rows = max(min(8, rows), refilled)
        return cls(
            rows=rows,
            prompt_rows=_rounded_up(prompt_rows, shards),
            prompt_tokens=prompt_tokens,
            prompt_length=min(prompt_tokens, cache_length),
            cache_length=cache_length,
        )


_PromptOf = tuple[tuple[int, ...], int]
"""a prompt's tokens, and which adapter replies to it"""


def _prompt_length(prompt_of: _PromptOf) -> int:
    tokens, _ = prompt_of
    return len(tokens)


def _rounded_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


class Engine:
    """Samples replies from one policy.

    Args:
        policy: base and adapter.
        settings: how to draw.
        shapes: what is compiled.
        tokens_to_stop: how many of a reply's tokens there are when its first stop string is
            complete, None while there is none; left out where there are no stop strings.
        steps_a_round: tokens a slot after which the device comes back to the host at the latest.
        observe: is told what was done, each time that the devices come back.
    """

    def __init__(
        self,
        policy: Policy,
        settings: SamplingSettings,
        shapes: Shapes,
        tokens_to_stop: Callable[[Sequence[int]], int | None] | None = None,
        steps_a_round: int = STEPS_A_ROUND,
        observe: Callable[[Work], None] | None = None,
    ):
        self._policy = policy
        self._settings = settings
        self._shapes = shapes
        self._tokens_to_stop = tokens_to_stop
        self._steps_a_round = steps_a_round
        self._observe = observe
        self._asks: list[Ask | None] = [None] * shapes.rows
        self._model: dict[str, Any] = {
            "config": policy.config,
            "lora": policy.lora,
            "attention": policy.attention,
        }
        self._slots = self._empty_slots()
        self._compiled_before = programs_compiled()

    def run(self, asks: Sequence[Ask], hand_out: Callable[[list[Sampled]], None]) -> None:
        """Sample a reply to every ask.

        Args:
            asks: in any order; those with one prompt share its prefill.
            hand_out: gets replies as they end, in any order.
        """
        if not asks:
            return
        largest_token = max(max(ask.prompt) for ask in asks)
        check_tokens(largest_token, self._policy.config.vocab_size)
        # What one adapter makes of a prompt is of no use to another.
        by_prompt: dict[_PromptOf, list[Ask]] = {}
        for ask in asks:
            prompt_of = (tuple(ask.prompt), ask.adapter)
            by_prompt.setdefault(prompt_of, []).append(ask)
        # Prompts of one length together: a prefill has as many chunks as its longest one.
        by_length = sorted(by_prompt, key=_prompt_length)
        coming = deque(by_length)
        # Asks whose prompt is prefilled, each with its prompt's number among the prefilled ones.
        waiting: deque[tuple[int, Ask]] = deque()
        prompts: Prompts | None = None
        ended_by_host = np.zeros(self._shapes.rows, bool)
        while coming or waiting or any(self._asks):
            if coming and not waiting and not all(self._asks):
                count = min(len(coming), self._shapes.prompt_rows)
                group = [coming.popleft() for _ in range(count)]
                prompts = self._prefilled(group)
                for number, prompt_of in enumerate(group):
                    for ask in by_prompt[prompt_of]:
                        waiting.append((number, ask))
            assert prompts is not None
            refill = self._refill(waiting, ended_by_host)
            if coming and not all(self._asks):
                # Slots are still free: the next prompts come first.
                self._advance(prompts, refill, steps=0, enough=1)
                ended_by_host = np.zeros(self._shapes.rows, bool)
                continue
            # While asks are left, come back to refill once a share of the slots has ended; the
            # last replies run until all of them have.
            enough = self._shapes.rows
            if coming or waiting:
                enough = max(1, round(ENDED_SHARE * self._shapes.rows))
            self._advance(prompts, refill, self._steps_a_round, enough)
            ended_by_host = self._harvest(hand_out)

    @property
    def programs(self) -> dict[str, int]:
        """How many programs of each kind JAX has compiled since this engine was made; none of what
        an engine of the same shapes has compiled before.
        """
        return dict(programs_compiled() - self._compiled_before)

    def _empty_slots(self) -> Slots:
        rows = self._shapes.rows
        config = self._policy.config
        dtype = self._policy.base["embed"].dtype
        vocabulary = config.vocab_size if self._settings.repetition_penalty != 1 else 0

        def make() -> Slots:
            shape = cache_shape(config, rows, self._shapes.cache_length)
            empty = jnp.zeros(shape, dtype)
            return Slots(
                cache=Cache(empty, empty),
                hidden_RD=jnp.zeros((rows, config.hidden_size), dtype),
                positions_R=jnp.zeros(rows, jnp.int32),
                counts_R=jnp.zeros(rows, jnp.int32),
                running_R=jnp.zeros(rows, bool),
                replies_RN=jnp.zeros((rows, self._settings.max_new_tokens), jnp.int32),
                keys_R2=jnp.zeros((rows, 2), jnp.uint32),
                seen_RV=jnp.zeros((rows, vocabulary), bool),
            )

        return empty_slots(make, self._policy.mesh)

    def _prefilled(self, group: Sequence[_PromptOf]) -> Prompts:
        """Prefill at most ``prompt_rows`` prompts."""
        prompts = [prompt for prompt, _ in group]
        adapters = [adapter for _, adapter in group]
        # The program takes so many prompts and no fewer. The rest are one token long, so that they
        # add no chunk, and nobody reads them.
        missing = self._shapes.prompt_rows - len(group)
        first_token = prompts[0][:1]
        prompts += [first_token] * missing
        adapters += [adapters[0]] * missing
        tokens_QT = pad_rows(prompts, self._shapes.prompt_tokens)
        lengths = [len(prompt) for prompt in prompts]
        return prefill(
            self._policy.base,
            self._policy.adapter,
            jnp.asarray(tokens_QT),
            jnp.asarray(lengths, jnp.int32),
            self._own_ranks(adapters),
            length=self._shapes.prompt_length,
            penalized=self._settings.repetition_penalty != 1,
            **self._model,
        )

    def _own_ranks(self, adapters: Sequence[int]) -> np.ndarray | None:
        """Return which ranks of several adapters belong to each of these, ``[n, r]``."""
        ranks_of = self._policy.ranks_of
        return None if ranks_of is None else ranks_of[np.asarray(adapters)]

    def _refill(self, waiting: deque[tuple[int, Ask]], ended_by_host: np.ndarray) -> Refill:
        """Give waiting asks to free slots."""
        rows = self._shapes.rows
        refill = Refill(
            ended_R=ended_by_host,
            taken_R=np.zeros(rows, bool),
            prompts_R=np.zeros(rows, np.int32),
            keys_R2=np.zeros((rows, 2), np.uint32),
        )
        for slot, ask in enumerate(self._asks):
            if ask is not None or not waiting:
                continue
            prompt_number, next_ask = waiting.popleft()
            self._asks[slot] = next_ask
            refill.taken_R[slot] = True
            refill.prompts_R[slot] = prompt_number
            refill.keys_R2[slot] = np.asarray(jax.random.key_data(next_ask.key))
        return refill

    def _advance(self, prompts: Prompts, refill: Refill, steps: int, enough: int) -> None:
        # A free slot's adapter is any: nothing is read of what it makes.
        adapters = [ask.adapter if ask else 0 for ask in self._asks]
        self._slots, work = advance(
            self._policy.base,
            self._policy.adapter,
            self._slots,
            prompts,
            refill,
            jnp.int32(steps),
            jnp.int32(enough),
            self._own_ranks(adapters),
            settings=self._settings,
            **self._model,
        )
        if self._observe is not None:
            steps_run, tokens, places_read = jax.device_get(work)
            self._observe(Work(int(steps_run), int(tokens), int(places_read)))

    def _harvest(self, hand_out: Callable[[list[Sampled]], None]) -> np.ndarray:
        """Hand out what has ended; return the slots that the host has ended.

        Raises:
            UserError: a model whose logits are not finite numbers.
        """
        slots = self._slots
        # One transfer for all three, since each would wait for the devices anew.
        on_devices = (slots.running_R, slots.counts_R, slots.replies_RN)
        running_R, counts_R, replies_RN = jax.device_get(on_devices)
        ended_by_host = np.zeros(self._shapes.rows, bool)
        finished: list[Sampled] = []
        undrawn: list[Ask] = []
        for slot, ask in enumerate(self._asks):
            if ask is None:
                continue
            tokens = replies_RN[slot, : counts_R[slot]].tolist()
            if NO_TOKEN in tokens[-1:]:
                undrawn.append(ask)
                continue
            stop = self._tokens_to_stop(tokens) if self._tokens_to_stop else None
            if stop is None and running_R[slot]:
                continue
            if stop is not None:
                finished.append(Sampled(ask.name, tokens[:stop], "stop"))
                ended_by_host[slot] = running_R[slot]
            elif tokens[-1] in self._settings.end_tokens:
                finished.append(Sampled(ask.name, tokens, "end"))
            else:
                finished.append(Sampled(ask.name, tokens, "length"))
            self._asks[slot] = None
        if finished:
            hand_out(finished)
        if undrawn:
            raise self._not_finite(undrawn[0])
        return ended_by_host

    def _not_finite(self, ask: Ask) -> UserError:
        folder = self._policy.adapter_folders[ask.adapter]
        with_adapter = f" with the adapter {folder}" if folder else ""
        return UserError(
            f"{self._policy.folder}{with_adapter}: the logits of a reply's next token are not finite"
            " numbers, so that none can be drawn; the weights are broken, or too large for"
            f" {self._policy.base['embed'].dtype}"
        )


def sample(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    keys: Array,
    settings: SamplingSettings,
    *,
    rows: int,
    progress: Progress | None = None,
) -> list[list[int]]:
    """Sample one reply to each prompt.

    Args:
        policy: base and adapter.
        prompts: token lists, as many as wanted.
        keys: ``[prompts]``, a random key each.
        settings: how to draw.
        rows: replies under way at a time.
        progress: counts replies.

    Returns:
        Each reply's tokens; the end-of-sequence token is the last one where the reply ended itself.
    """
    longest = max(map(len, prompts))
    shapes = Shapes.of(
        policy.config, longest, settings.max_new_tokens, rows, row_shards(policy.mesh)
    )
    replies: list[list[int]] = [[] for _ in prompts]

    def keep(finished: Iterable[Sampled]) -> None:
        for reply in finished:
            replies[cast(int, reply.name)] = reply.tokens
            if progress is not None:
                progress.update()

    asks: list[Ask] = []
    for number, (prompt, key) in enumerate(zip(prompts, keys, strict=True)):
        asks.append(Ask(number, prompt, key))
    Engine(policy, settings, shapes).run(asks, keep)
    return replies
