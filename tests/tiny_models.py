"""Decoders of a few thousand random parameters, and adapters on them, in the real format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

from jaxmodpo.models import decoder
from jaxmodpo.models.adapters import save_adapter
from jaxmodpo.models.decoder_config import DecoderConfig, read_decoder_config
from jaxmodpo.models.lora import LoraConfig, adapter_table
from jaxmodpo.models.model_folder import save_model
from jaxmodpo.models.parameters import initialize
from jaxmodpo.sandbox.models import save_tokenizer

WORDS = ["a", "b", "c", "d", "e", "f", "g", "h"]
SPECIAL_TOKENS = {
    "unk_token": "<unk>",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "pad_token": "</s>",
}


TINY_POLICY: dict[str, Any] = {
    "base_dtype": "float32",
    "lora_rank": 4,
    "lora_alpha": 8.0,
    "gradient_accumulation": 1,
    "remat": "none",
}
"""settings that trainings of tiny policies share, whatever they are trained on"""


def tiny_mistral(folder: Path, *texts: str, gain: float = 5.0, **sizes: int) -> Path:
    """Write a Mistral with random weights, and a tokenizer that knows the words of the texts.

    Args:
        folder: where the model is written; the tokenizer's files lie beside it too, in
            ``tokenizer``.
        texts: the tokenizer's words, by default :data:`WORDS`.
        gain: factor on the initial weights; with 1, all logits would be close to each other.
        sizes: what differs from the sizes below, as ``config.json`` names it.
    """
    settings = {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "vocab_size": 24,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "rope_theta": 10000.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **sizes,
    }
    tokenizer = folder.with_name("tokenizer")
    save_tokenizer(tokenizer, list(texts) or [" ".join(WORDS)], SPECIAL_TOKENS)
    table = decoder.parameter_table(DecoderConfig.from_mapping(settings, "test"))
    weights = initialize(table, jax.random.key(0))
    weights = jax.tree.map(lambda array: gain * array, weights)
    save_model(folder, settings, table, weights, tokenizer_from=tokenizer)
    return folder


def tiny_adapter(folder: Path, model: Path, seed: int, base: str | None = None) -> Path:
    """Write an adapter of random numbers, of rank 1 + ``seed``, for a model that lies in a folder.

    Args:
        folder: where the adapter is written.
        model: the base model's folder.
        seed: of the numbers.
        base: what the adapter names as its base; by default the model's folder.
    """
    config = read_decoder_config(model)
    lora = LoraConfig(rank=1 + seed, alpha=4.0, dropout=0.0)
    table = adapter_table(decoder.parameter_table(config), lora)
    arrays = {
        name: array + 0.1 * jax.random.normal(jax.random.key(seed), array.shape)
        for name, array in initialize(table, jax.random.key(seed)).items()
    }
    save_adapter(folder, arrays, lora, config, base or str(model))
    return folder


def tiny_base_with_adapters(folder: Path) -> Path:
    """Write a tiny model into ``model``, and two different adapters of it into ``first`` and
    ``second``; return the model's folder.
    """
    model = folder / "model"
    tiny_mistral(model, gain=8.0, vocab_size=16, num_key_value_heads=1)
    tiny_adapter(folder / "first", model, seed=1)
    tiny_adapter(folder / "second", model, seed=3)
    return model
