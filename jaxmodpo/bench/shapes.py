"""The shapes of published models, as their ``config.json`` states them, for benchmarks without weights."""

from __future__ import annotations

from typing import Any

from jaxmodpo.errors import UserError, nearest
from jaxmodpo.models.decoder import DecoderConfig

_MISTRAL_7B = {
    "model_type": "mistral",
    "architectures": ["MistralForCausalLM"],
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 32_768,
    "tie_word_embeddings": False,
}
_LLAMA_8B = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 131_072,
    "tie_word_embeddings": False,
    "rope_theta": 500_000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}
_LLAMA_1B = {
    **_LLAMA_8B,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "head_dim": 64,
    "tie_word_embeddings": True,
    "rope_scaling": {**_LLAMA_8B["rope_scaling"], "factor": 32.0},
}

SHAPES: dict[str, dict[str, Any]] = {
    "mistral-7b-v0.1": {**_MISTRAL_7B, "sliding_window": 4096, "rope_theta": 10_000.0},
    "mistral-7b-v0.2": {**_MISTRAL_7B, "sliding_window": None, "rope_theta": 1_000_000.0},
    "mistral-7b-v0.3": {**_MISTRAL_7B, "vocab_size": 32_768, "sliding_window": None, "rope_theta": 1_000_000.0},
    "llama-3.1-8b": _LLAMA_8B,
    "llama-3.2-1b": _LLAMA_1B,
}


def shape(name: str) -> DecoderConfig:
    """Return the configuration of a published model.

    Raises:
        UserError: no such name.
    """
    if name not in SHAPES:
        raise UserError(f"no model shape '{name}'{nearest(name, SHAPES)}")
    return DecoderConfig.from_mapping(SHAPES[name], name)
