"""What bounds sampling, by arithmetic and as the compiled loop has it."""

from __future__ import annotations

import jax
import pytest

from jaxmodpo.bench.fit_sampling import fit_sampling
from jaxmodpo.models.decoder import parameter_table
from jaxmodpo.models.lora import LoraConfig, adapter_table
from jaxmodpo.models.parameters import count
from jaxmodpo.models.quantized import BaseDtype
from jaxmodpo.models.shapes import decoder_shape
from jaxmodpo.sampling.roofline import SamplerBytes, prefill_seconds, tokens_per_second


@pytest.mark.slow(seconds=8)
@pytest.mark.parametrize("base_dtype", ["bfloat16", "nf4"])
def test_arithmetic_counts_the_bytes_of_the_loop_that_fit_compiles(base_dtype: BaseDtype):
    answer = fit_sampling(
        "tiny-mistral",
        jax.devices()[:1],
        topology="this machine",
        mesh_shape=(1, 1, 1),
        slots=8,
        length=200,
        lora_rank=8,
        adapters=2,
        base_dtype=base_dtype,
    )
    config = decoder_shape("tiny-mistral")
    adapter = 2 * count(adapter_table(parameter_table(config), LoraConfig(16, 32.0, 0.0)))
    needed = SamplerBytes.of(config, base_dtype, 8, 100, 100, adapter)
    assert (needed.weights_per_token, needed.cache) == (answer.weight_bytes, answer.cache_bytes)
    # Two bytes of each number, of the embeddings' as of all that is not quantized.
    assert needed.weights - needed.weights_per_token == 2 * config.vocab_size * config.hidden_size


def test_a_mistral_on_one_chip_and_on_eight():
    config = decoder_shape("mistral-7b-v0.2")
    one = SamplerBytes.of(config, "bfloat16", 64, 512, 512)
    eight = SamplerBytes.of(config, "bfloat16", 64, 512, 512, mesh=(2, 1, 4))
    assert one.weights == pytest.approx(2 * 7.2417e9, rel=1e-4)
    # 32 layers, 8 heads of 128, keys and values, 2 bytes: 131,072 bytes a token.
    assert one.cache == 64 * 1024 * 131_072
    assert (eight.weights, eight.cache) == (one.weights / 4, one.cache / 8)
    # Eight prompts of 512 places wait while eight more are prefilled; heads are on four devices.
    assert one.prompts == 2 * 8 * 512 * 131_072
    assert eight.prompts == one.prompts / 4
    speed = tokens_per_second(3.35e12, 64, one.weights_per_token, one.cache)
    assert speed == pytest.approx(64 * 3.35e12 / (14.22e9 + 4.29e9), rel=1e-3)


def test_a_prompt_takes_its_arithmetic_or_where_few_go_together_the_weights_reads():
    config = decoder_shape("mistral-7b-v0.2")
    needed = SamplerBytes.of(config, "bfloat16", 64, 512, 512)
    assert needed.prompt_rows == 8

    def seconds(prompts: int, adapter_numbers: float = 0.0) -> float:
        return prefill_seconds(
            config,
            989e12,
            3.35e12,
            chips=1,
            weight_bytes=needed.weights_per_token,
            prompts=prompts,
            tokens=512,
            adapter_numbers=adapter_numbers,
        )

    # 6.98 billion multiplications a token in 32 layers; scores and mixtures of 512 x 513 / 2 pairs.
    operations = 512 * 2 * 6.9793e9 + 4 * 32 * 4096 * 512 * 513 / 2
    assert seconds(64) == pytest.approx(operations / 989e12, rel=1e-3)
    # Sixteen chunks of 32 tokens read the weights; two prompts share each reading.
    assert seconds(2) == pytest.approx(16 * 14.22e9 / 3.35e12 / 2, rel=1e-3)
    more = seconds(64, 168e6) - seconds(64)
    assert more == pytest.approx(512 * 2 * 168e6 / 989e12, rel=1e-6)
