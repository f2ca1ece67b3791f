"""The shapes of published models, as their ``config.json`` states them, for what needs no
weights.
"""

from __future__ import annotations

from pathlib import Path

from jaxmodpo.errors import UserError, nearest
from jaxmodpo.files import read_json
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.model_folder import read_model_config
from jaxmodpo.models.roberta_config import RobertaConfig
from jaxmodpo.parsing import JsonObject

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

_ROBERTA = {
    "model_type": "roberta",
    "vocab_size": 50_265,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
}

_TINY = {
    **_MISTRAL_7B,
    "vocab_size": 4096,
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}

SHAPES: dict[str, JsonObject] = {
    "tiny-mistral": {**_TINY, "sliding_window": None},
    "mistral-7b-v0.1": {**_MISTRAL_7B, "sliding_window": 4096, "rope_theta": 10_000.0},
    "mistral-7b-v0.2": {**_MISTRAL_7B, "sliding_window": None, "rope_theta": 1_000_000.0},
    "mistral-7b-v0.3": {
        **_MISTRAL_7B,
        "vocab_size": 32_768,
        "sliding_window": None,
        "rope_theta": 1_000_000.0,
    },
    "llama-3.1-8b": _LLAMA_8B,
    "llama-3.2-1b": _LLAMA_1B,
    "roberta-base": {
        **_ROBERTA,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    },
    "roberta-large": {
        **_ROBERTA,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
    },
}


def settings(name: str) -> JsonObject:
    """Return what a published model's ``config.json`` says, or a ``config.json`` or model folder of
    your own.

    Raises:
        UserError: neither a name we know nor a file.
    """
    if name in SHAPES:
        return dict(SHAPES[name])
    path = Path(name)
    if path.is_dir():
        return read_model_config(path)
    if path.is_file():
        content = read_json(path)
        if not isinstance(content, dict):
            raise UserError(f"{path} must hold a mapping, as a model's config.json does")
        return content
    raise UserError(f"no model shape, file or folder '{name}'{nearest(name, SHAPES)}")


def name_of_folder(folder: Path) -> str:
    """Return what :func:`settings` takes for a model folder: the folder, or if it is not here the
    published model that it is named after (``Mistral-7B-Instruct-v0.2``).

    Raises:
        UserError: no such folder, and no published model of that name.
    """
    plain = folder.name.lower().replace("-instruct", "").replace("meta-", "")
    return plain if not folder.exists() and plain in SHAPES else str(folder)


def decoder_shape(name: str) -> DecoderConfig:
    """Return the decoder that :func:`settings` finds."""
    return DecoderConfig.from_mapping(settings(name), name)


def encoder_shape(name: str) -> RobertaConfig:
    """Return the encoder that :func:`settings` finds, with one output."""
    return RobertaConfig.from_mapping(settings(name), name, num_labels=1)
