"""A decoder's ``config.json``: what shapes the forward pass is read, and what is not supported is
refused by name.

A field that is overlooked would give a model that runs and means something else. So every field is
one of three: read here, known to change nothing, or refused::

    config = read_decoder_config(Path("Mistral-7B-Instruct-v0.2"))
    config.num_key_value_heads          # 8
    config.rope.theta                   # 1000000.0
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open

from jaxmodpo.errors import UserError
from jaxmodpo.models.checkpoint import tensor_files
from jaxmodpo.models.model_folder import read_model_config
from jaxmodpo.models.rope import Rope
from jaxmodpo.schema import Fields

logger = logging.getLogger(__name__)

ARCHITECTURES = {"mistral": "MistralForCausalLM", "llama": "LlamaForCausalLM"}

MOST_LAYERS = 10_000
"""no model has as many; a number beyond it would be taken for a model before its weights say
otherwise"""

# Groups of what `config.json` may say besides without changing the forward pass in evaluation.
_NAMES_AND_TOKENS = (
    "architectures",
    "model_type",
    "tokenizer_class",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "id2label",
    "label2id",
    "problem_type",
    "model_max_length",
    "max_sequence_length",
)
_OF_OTHER_PROGRAMS = (
    "transformers_version",
    "unsloth_fixed",
    "unsloth_version",
    "is_llama_config",
    "transformers.js_config",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "use_cache",
    "chunk_size_feed_forward",
    "is_encoder_decoder",
    "pretraining_tp",
)
_OF_TRAINING = (
    "dtype",
    "torch_dtype",
    "initializer_range",
    "attention_dropout",
    "neftune_noise_alpha",
)
# Early files keep these here; commands here take them as flags.
_OF_SAMPLING = (
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
    "num_beams",
    "num_beam_groups",
    "early_stopping",
    "max_length",
    "min_length",
    "length_penalty",
    "repetition_penalty",
    "diversity_penalty",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "num_return_sequences",
    "remove_invalid_values",
)
_HARMLESS = frozenset(_NAMES_AND_TOKENS + _OF_OTHER_PROGRAMS + _OF_TRAINING + _OF_SAMPLING)


@dataclass(frozen=True)
class DecoderConfig:
    """The fields of ``config.json`` that shape the forward pass."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float = 1e-6
    rope: Rope = field(default_factory=Rope)
    sliding_window: int | None = None
    max_position_embeddings: int = 32_768
    tie_word_embeddings: bool = False

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any], source: str) -> DecoderConfig:
        """Read a Hugging Face configuration; what would change the mathematics unseen is refused by
        name.

        Absent fields have the defaults of the architecture's class in transformers.
        """
        # Fields that begin with an underscore are notes that transformers makes for itself.
        public = {name: value for name, value in settings.items() if not name.startswith("_")}
        fields = Fields(public, source)
        kind = _model_type(fields, source)
        heads = fields.integer("num_attention_heads")
        width = fields.integer("hidden_size", least=1)
        if width < heads:
            raise UserError(
                f"{source}: hidden_size {width} is less than the {heads} attention heads"
            )
        layers = fields.integer("num_hidden_layers", most=MOST_LAYERS)
        window = _sliding_window(kind, fields, settings)
        is_mistral = kind == "mistral"
        if (
            is_mistral
            and fields.has("num_key_value_heads")
            and settings["num_key_value_heads"] is None
        ):
            # Absent means 8, Mistral's default; transformers does not load a Mistral where it is
            # null.
            raise UserError(
                f"{source}: num_key_value_heads is null; give the number of key-value heads"
            )
        layer_type = "full_attention" if window is None else "sliding_attention"
        fields.only("hidden_act", "silu")
        fields.only("attention_bias", False)
        fields.only("mlp_bias", False)
        fields.only("rope_interleaved", False)
        fields.only("layer_types", [layer_type] * layers)
        rope_names = ("rope_parameters", "rope_scaling", "rope_theta")
        rope = Rope.from_mapping({name: fields.take(name) for name in rope_names}, source)
        config = cls(
            vocab_size=fields.integer("vocab_size"),
            hidden_size=width,
            intermediate_size=fields.integer("intermediate_size"),
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=fields.integer("num_key_value_heads", 8 if is_mistral else heads),
            head_dim=fields.integer("head_dim", width // heads),
            rms_norm_eps=fields.number("rms_norm_eps", 1e-6, above=0),
            rope=rope,
            sliding_window=window,
            max_position_embeddings=fields.integer(
                "max_position_embeddings", 131_072 if is_mistral else 2048
            ),
            tie_word_embeddings=fields.boolean("tie_word_embeddings", False),
        )
        fields.refuse_rest(_HARMLESS)
        if heads % config.num_key_value_heads:
            raise UserError(
                f"{source}: {config.num_key_value_heads} key-value heads do not divide {heads}"
                " attention heads"
            )
        if config.head_dim % 2:
            raise UserError(
                f"{source}: head_dim is {config.head_dim}, and rotary positions need an even one"
            )
        return config


def _sliding_window(kind: str, fields: Fields, settings: Mapping[str, Any]) -> int | None:
    """Return how many positions a Mistral's token sees, or None for all those before it."""
    if kind != "mistral":
        return None
    # A field that is present and null switches the window off; an absent one means Mistral's
    # default.
    if fields.has("sliding_window") and settings["sliding_window"] is None:
        return None
    # A window of 0 would hide every token from itself, which no model means.
    return fields.integer("sliding_window", 4096)


def _model_type(fields: Fields, source: str) -> str:
    """Return the model's type, of which its architecture must be the causal language model."""
    kind = fields.take("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        raise UserError(
            f"{source}: model_type '{kind}' is not supported; a policy must be one of"
            f" {', '.join(ARCHITECTURES)}"
        )
    architectures = fields.take("architectures") or [ARCHITECTURES[kind]]
    if architectures != [ARCHITECTURES[kind]]:
        listed = architectures if isinstance(architectures, list) else [architectures]
        raise UserError(
            f"{source}: the architecture {', '.join(map(str, listed))} is not supported as a policy"
        )
    return kind


def read_decoder_config(folder: Path) -> DecoderConfig:
    """Read a Mistral's or Llama's ``config.json``, and see whether the folder has a head of its
    own.

    transformers keeps a head that is saved beside tied embeddings where the two differ, whatever
    ``config.json`` says.
    """
    config = DecoderConfig.from_mapping(read_model_config(folder), f"{folder}/config.json")
    if config.tie_word_embeddings and _has_own_head(folder):
        logger.warning(
            "%s/config.json says tie_word_embeddings, but lm_head.weight differs from the"
            " embeddings: it is used, as transformers does",
            folder,
        )
        return dataclasses.replace(config, tie_word_embeddings=False)
    return config


def _has_own_head(folder: Path) -> bool:
    """Return whether a folder's head differs from its embeddings."""
    try:
        files = tensor_files(folder)
    except UserError:
        # A folder without weights, as for a compilation ahead of time; loading says what is
        # missing.
        return False
    names = ("lm_head.weight", "model.embed_tokens.weight")
    if any(name not in files for name in names):
        return False
    arrays = []
    for name in names:
        with safe_open(files[name], framework="numpy") as file:
            arrays.append(file.get_tensor(name))
    head, embeddings = arrays
    return (
        head.shape != embeddings.shape
        or head.dtype != embeddings.dtype
        or head.tobytes() != embeddings.tobytes()
    )
