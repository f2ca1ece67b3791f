"""Several adapters over one base in one batch."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from engine_policy import make_policy

from jaxmodpo.errors import UserError
from jaxmodpo.models import decoder
from jaxmodpo.models.adapters import save_adapter
from jaxmodpo.models.lora import LoraConfig, adapter_table
from jaxmodpo.models.parameters import initialize
from jaxmodpo.policy.loaded import Policy, ScaledAdapter, with_adapter, with_adapters
from jaxmodpo.sampling.draw import SamplingSettings
from jaxmodpo.sampling.engine import Ask, Engine, Sampled, Shapes, sample

ADAPTERS = {
    "all": LoraConfig(rank=4, alpha=8.0, dropout=0.1),
    "attention": LoraConfig(rank=2, alpha=2.0, dropout=0.0, targets=("q_proj", "v_proj")),
    "rslora": LoraConfig(rank=9, alpha=3.0, dropout=0.0, targets=("down_proj",), rslora=True),
}


@pytest.fixture(scope="module")
def policy() -> Policy:
    return make_policy()


@pytest.fixture(scope="module")
def folders(policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path | None]:
    folders: dict[str, Path | None] = {}
    for number, (name, lora) in enumerate(ADAPTERS.items()):
        table = adapter_table(decoder.parameter_table(policy.config), lora)
        arrays = initialize(table, jax.random.key(number))
        arrays = {
            key: array
            if key.endswith("A")
            else array + 0.3 * jax.random.normal(jax.random.key(number), array.shape)
            for key, array in arrays.items()
        }
        folder = tmp_path_factory.mktemp("adapters") / name
        folders[name] = folder
        save_adapter(folder, arrays, lora, policy.config, "x")
    return folders | {"base": None}


@pytest.mark.slow(seconds=14)
def test_replies_of_several_adapters_in_one_batch_are_those_of_each_alone(policy, folders):
    random = np.random.default_rng(3)
    prompts = [random.integers(3, 48, length).tolist() for length in (5, 70, 11)]
    settings = SamplingSettings(1.0, 0.95, 40, end_tokens=(2,))
    keys = jax.random.split(jax.random.key(1), len(prompts))
    several = with_adapters(policy, [ScaledAdapter(folder) for folder in folders.values()])
    assert several.lora.rank == 4 + 2 + 9 + 1
    asks = [
        Ask((name, n), prompt, keys[n], adapter)
        for adapter, name in enumerate(folders)
        for n, prompt in enumerate(prompts)
    ]
    replies: list[Sampled] = []
    Engine(several, settings, Shapes.of(policy.config, 70, 40, rows=8)).run(asks, replies.extend)
    together = {reply.name: reply.tokens for reply in replies}
    by_adapter = set()
    for name, folder in folders.items():
        alone = (
            dataclasses.replace(
                policy, adapter={k: jnp.zeros_like(v) for k, v in policy.adapter.items()}
            )
            if folder is None
            else with_adapter(policy, folder)
        )
        expected = sample(alone, prompts, keys, settings, rows=4)
        assert [together[name, n] for n in range(len(prompts))] == expected
        by_adapter.add(str(expected))
    # Or nothing would be compared.
    assert len(by_adapter) == len(folders)


def test_log_probabilities_of_several_adapters_at_once_are_refused(policy, folders):
    several = with_adapters(policy, [ScaledAdapter(folder) for folder in folders.values()])
    with pytest.raises(UserError, match="several adapters"):
        several.logps(None, 4)  # type: ignore[arg-type]


def test_a_sampler_holds_adapters_in_the_type_that_it_multiplies_them_in(policy, folders):
    bfloat16 = {name: array.astype(jnp.bfloat16) for name, array in policy.base.items()}
    rounded = dataclasses.replace(policy, base=bfloat16)
    several = [ScaledAdapter(folder) for folder in folders.values()]
    for adapters in (several, several[:1]):
        sampled = with_adapters(rounded, adapters)
        assert {array.dtype for array in sampled.adapter.values()} == {jnp.dtype(jnp.bfloat16)}
        assert {array.dtype for array in with_adapters(policy, adapters).adapter.values()} == {
            jnp.dtype(jnp.float32)
        }
