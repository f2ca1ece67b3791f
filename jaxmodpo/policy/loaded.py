"""A policy in memory: a base model and one adapter on it, placed on a mesh, and what it gives for
completions.

The reference is the same base with an adapter of zeros, through the same compiled function and
shapes: a fresh adapter gives the very same bits::

    lora = LoraConfig(rank=64, alpha=128.0, dropout=0.05)
    policy = load_policy(Path("mistral-7b"), base_dtype="bfloat16", fresh=lora)
    logps = policy.logps(examples, rows=4)
    reference_logps = policy.logps(examples, rows=4, reference=True)
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxmodpo.data.batches import SCORED_ARRAYS, Batches, Batching, score_in_batches
from jaxmodpo.data.examples import Examples, check_tokens
from jaxmodpo.errors import UserError
from jaxmodpo.models import flops
from jaxmodpo.models.adapters import load_adapter
from jaxmodpo.models.attention import Attention, Backend
from jaxmodpo.models.completions import sequence_logps
from jaxmodpo.models.decoder import load_decoder, parameter_table
from jaxmodpo.models.decoder_config import DecoderConfig, read_decoder_config
from jaxmodpo.models.lora import LoraConfig, adapter_table, side_by_side
from jaxmodpo.models.parameters import Parameters, initialize
from jaxmodpo.models.quantized import BaseDtype
from jaxmodpo.policy.compiled_programs import keep_compiled_programs
from jaxmodpo.policy.mesh import (
    check_heads,
    make_mesh,
    place_microbatch,
    put,
    row_shards,
    sampling_shape,
    shardings,
)
from jaxmodpo.policy.preemption import stop_if_asked


@dataclass(frozen=True)
class Policy:
    """A loaded base model with one adapter, both placed on a mesh."""

    folder: Path
    config: DecoderConfig
    base: Parameters
    lora: LoraConfig
    adapter: Parameters
    mesh: Mesh
    attention: Attention
    ranks_of: np.ndarray | None = None
    """which ranks of the adapter are whose, ``[adapters, r]``, where it is several side by side
    (:func:`with_adapters`)"""
    adapter_folders: tuple[Path | None, ...] = (None,)
    """where each of its adapters was read; None for one that was not"""

    @property
    def zero_adapter(self) -> Parameters:
        """The adapter that makes the policy its own reference.

        Zeros and no adapter at all are the same function and not the same program: without an
        adapter XLA may fuse and round otherwise, and the first DPO loss would not be quite ln 2.
        """
        return jax.tree.map(jnp.zeros_like, self.adapter)

    def with_parameters(self, adapter: Parameters) -> Policy:
        """Return the same base with other values of the adapter's parameters, such as trained
        ones.
        """
        return dataclasses.replace(self, adapter=adapter)

    def logps(
        self,
        examples: Examples,
        rows: int,
        *,
        reference: bool = False,
        batching: Batching = "packed",
    ) -> np.ndarray:
        """Score every completion, ``[n, S]`` float32, ``rows`` examples at a time.

        Raises:
            UserError: the policy has several adapters, of which none is meant.
        """
        if self.ranks_of is not None:
            raise UserError(
                "log-probabilities are of one adapter; this policy has several adapters"
            )
        check_tokens(int(examples.tokens.max()), self.config.vocab_size)
        adapter = self.zero_adapter if reference else self.adapter
        batches = Batches(
            examples,
            batch_size=rows,
            batching=batching,
            row_shards=row_shards(self.mesh),
            cost=functools.partial(flops.token_cost, self.config),
        )

        def compute(batch: dict[str, np.ndarray]) -> np.ndarray:
            # Margins and the like would be other arguments, and so another compilation.
            scored = {name: array for name, array in batch.items() if name in SCORED_ARRAYS}
            microbatch = place_microbatch(self.mesh, scored, batches.by_rows)
            logps = sequence_logps(
                self.base,
                adapter,
                microbatch,
                config=self.config,
                lora=self.lora,
                attention=self.attention,
            )
            # Every device holds all of them; this process reads its first device's copy.
            values = np.asarray(logps.addressable_data(0))[None]
            stop_if_asked("while log-probabilities were computed")
            return values

        return score_in_batches(batches, compute)


def check_attention(attention: Attention, shape: DecoderConfig, base_dtype: BaseDtype) -> None:
    """Refuse attention that these devices or this model cannot have; see
    :meth:`Attention.check`.
    """
    attention.check(shape.head_dim, jnp.float32 if base_dtype == "float32" else jnp.bfloat16)


def load_policy(
    model: Path,
    *,
    base_dtype: BaseDtype,
    mesh: tuple[int, int, int] | None = None,
    adapter: Path | None = None,
    fresh: LoraConfig | None = None,
    seed: int = 0,
    attention: Backend = "auto",
    for_sampling: bool = False,
) -> Policy:
    """Load a base model with an adapter from a folder, a fresh one, or (neither given) one of rank
    1 that is 0.

    Args:
        model: the base's folder.
        base_dtype: number format of the base's weights.
        mesh: devices along ``data``, ``fsdp`` and ``tensor``; by default as it suits the work.
        adapter: a PEFT folder.
        fresh: settings of a fresh adapter.
        seed: of the fresh adapter's numbers.
        attention: which implementation.
        for_sampling: whether replies will be sampled: on this process's devices alone, by default
            along ``tensor`` (:func:`jaxmodpo.policy.mesh.sampling_shape`).

    Raises:
        UserError: the model or adapter folder is not one, or they do not fit each other or the
            mesh.
    """
    keep_compiled_programs()
    shape = read_decoder_config(model)
    if for_sampling:
        local_devices = jax.local_devices()
        devices = make_mesh(mesh or sampling_shape(local_devices, shape), local_devices)
    else:
        devices = make_mesh(mesh)
    sharding_of = shardings(devices)
    # Heads are divided over ``tensor``: told now, and not by a compiler's error after loading.
    check_heads(shape, devices)
    # Read first: whether it fits is known before the base is loaded.
    trained_adapter = None if adapter is None else load_adapter(adapter, shape, model)
    check_attention(Attention(attention, devices), shape, base_dtype)
    loaded = load_decoder(model, base_dtype, sharding_of)
    base = {name: variable[...] for name, variable in loaded.base.items()}
    lora = fresh or LoraConfig(rank=1, alpha=1.0, dropout=0.0)
    without_adapter = Policy(
        model, loaded.config, base, lora, {}, devices, Attention(attention, devices)
    )
    if trained_adapter is None:
        return fresh_adapter(without_adapter, lora, seed)
    return _place_adapter(without_adapter, *trained_adapter, folder=adapter)


def fresh_adapter(policy: Policy, lora: LoraConfig, seed: int) -> Policy:
    """Return the same base with a fresh adapter."""
    table = adapter_table(parameter_table(policy.config), lora)
    return _place_adapter(policy, lora, initialize(table, jax.random.key(seed)))


class ScaledAdapter(NamedTuple):
    """An adapter of a policy that may have several.

    Attributes:
        folder: a PEFT folder; None for the base alone.
        scale: factor that its change of the base is multiplied by.
    """

    folder: Path | None
    scale: float = 1.0


def with_adapter(policy: Policy, folder: Path, scale: float = 1.0) -> Policy:
    """Return the same base with the adapter of a PEFT folder, its change of the base multiplied by
    a factor.
    """
    lora, parameters = _load_scaled(policy, folder, scale)
    return _place_adapter(policy, lora, parameters, folder)


def with_adapters(policy: Policy, adapters: Sequence[ScaledAdapter]) -> Policy:
    """Return the same base with adapters for a sampler, whose rows each have one of them.

    They are held in the type of the base's embeddings, in which they are multiplied in any case
    (:func:`jaxmodpo.models.lora.apply`): on a bfloat16 base half as many bytes are read for every
    token.

    Args:
        policy: the base, with an adapter that changes nothing; None alone leaves it as it is.
        adapters: at least one.

    Raises:
        UserError: a folder that is none, or an adapter that does not fit the base.
    """
    if len(adapters) == 1:
        folder, scale = adapters[0]
        if folder is None:
            return policy
        return _place_rounded(policy, *_load_scaled(policy, folder, scale), folder=folder)
    no_adapter = LoraConfig(rank=1, alpha=1.0, dropout=0.0)
    table = adapter_table(parameter_table(policy.config), no_adapter)
    loaded: list[tuple[LoraConfig, dict[str, np.ndarray]]] = []
    for folder, scale in adapters:
        # The base alone is one of the models that are sampled: zeros stand for it, so that every
        # row of a batch has an adapter.
        if folder is None:
            zeros = {name: np.zeros(spec.shape, np.float32) for name, spec in table.items()}
            loaded.append((no_adapter, zeros))
        else:
            lora, parameters = _load_scaled(policy, folder, scale)
            loaded.append((lora, jax.tree.map(np.asarray, parameters)))
    lora, all_parameters, ranks_of = side_by_side(loaded)
    return dataclasses.replace(
        _place_rounded(policy, lora, all_parameters),
        ranks_of=ranks_of,
        adapter_folders=tuple(adapter.folder for adapter in adapters),
    )


def _place_rounded(
    policy: Policy,
    lora: LoraConfig,
    parameters: Mapping[str, np.ndarray | jax.Array],
    folder: Path | None = None,
) -> Policy:
    """Return a policy with an adapter in the type of the base's embeddings."""
    dtype = policy.base["embed"].dtype
    rounded = {name: array.astype(dtype) for name, array in parameters.items()}
    return _place_adapter(policy, lora, rounded, folder)


def _load_scaled(policy: Policy, folder: Path, scale: float) -> tuple[LoraConfig, Parameters]:
    """Return an adapter that fits the base, scaled. Scaling its alpha touches no weight, and what
    was compiled for one alpha serves all.
    """
    lora, parameters = load_adapter(folder, policy.config, policy.folder)
    return dataclasses.replace(lora, alpha=lora.alpha * scale), parameters


def _place_adapter(
    policy: Policy,
    lora: LoraConfig,
    parameters: Mapping[str, np.ndarray | jax.Array],
    folder: Path | None = None,
) -> Policy:
    """Return a policy with an adapter, whose shards go to the devices of the mesh."""
    table = adapter_table(parameter_table(policy.config), lora)
    adapter_shardings = shardings(policy.mesh)(table)
    adapter = {name: put(array, adapter_shardings[name]) for name, array in parameters.items()}
    return dataclasses.replace(
        policy, lora=lora, adapter=adapter, ranks_of=None, adapter_folders=(folder,)
    )
