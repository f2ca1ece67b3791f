"""A decoder's ``config.json``: what shapes the forward pass is read, and what is not supported is
refused by name::

config = DecoderConfig.from_mapping({"model_type": "mistral", "vocab_size": 32000, ...},
"config.json") config.rope.frequencies(config.head_dim)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxmodpo.errors import UserError
from jaxmodpo.ranges import Positive
from jaxmodpo.schema import Fields, read_as, shown

ARCHITECTURES = {"mistral": "MistralForCausalLM", "llama": "LlamaForCausalLM"}

MOST_LAYERS = 10_000
"""no model has as many; a number beyond it would be taken for a model before its weights say
otherwise"""

_ROPE_FIELDS = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
"""the rotary parameters that each ``rope_type`` has"""

# What `config.json` may say besides without changing the forward pass in evaluation.
_HARMLESS = frozenset(
    (
        *(
            "architectures",
            "model_type",
            "transformers_version",
            "unsloth_fixed",
            "unsloth_version",
        ),
        *("bos_token_id", "eos_token_id", "pad_token_id", "id2label", "label2id", "problem_type"),
        *("dtype", "torch_dtype", "initializer_range", "attention_dropout", "pretraining_tp"),
        *("output_attentions", "output_hidden_states", "return_dict", "use_cache"),
        *(
            "chunk_size_feed_forward",
            "is_encoder_decoder",
            "tokenizer_class",
            "max_sequence_length",
        ),
        # Of other programs, of how the model was trained, and of its tokenizer.
        *("is_llama_config", "transformers.js_config", "neftune_noise_alpha", "model_max_length"),
        # Settings of sampling, which early files keep here and which commands here take as flags.
        *(
            "do_sample",
            "temperature",
            "top_k",
            "top_p",
            "typical_p",
            "num_beams",
            "num_beam_groups",
            "early_stopping",
        ),
        *("max_length", "min_length", "length_penalty", "repetition_penalty", "diversity_penalty"),
        *(
            "no_repeat_ngram_size",
            "encoder_no_repeat_ngram_size",
            "num_return_sequences",
            "remove_invalid_values",
        ),
    )
)


@dataclass(frozen=True)
class Rope:
    """Rotary position embeddings: the base θ, and how Llama 3.1 stretches the slow frequencies.

    Attributes:
        theta: frequency i of a head of width C is θ^(−2i/C).
        factor: slow frequencies are divided by it; 1 leaves all as they are.
        low_frequency_factor: wavelengths above ``original_length`` / this are divided wholly.
        high_frequency_factor: wavelengths below ``original_length`` / this are not; between, a
            linear mix.
        original_length: the context length of pretraining; None divides every frequency by
            ``factor``.
    """

    theta: float = 10_000.0
    factor: float = 1.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_length: int | None = None

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any], source: str) -> Rope:
        """Read ``rope_parameters``, or ``rope_theta`` and ``rope_scaling`` of older files.

        Raises:
            UserError: a kind that is not supported, values that are no numbers, or two places that
                disagree.
        """
        rope = _rope_parameters(settings, source)
        theta = _rope_theta(settings.get("rope_theta"), rope.pop("rope_theta", None), source)
        for name, value in {"rope_theta": theta, **rope}.items():
            if name not in ("type", "rope_type") and value is not None:
                read_as(value, Positive, source, name)
        older_type = rope.pop("type", "default")
        kind = rope.pop("rope_type", older_type)
        if not isinstance(kind, str) or kind not in _ROPE_FIELDS:
            raise UserError(
                f"{source}: rope_type '{kind}' is not supported; only {', '.join(_ROPE_FIELDS)} are"
            )
        _check_rope_fields(rope, kind, source)
        if kind == "default":
            return cls(float(theta))
        if kind == "linear":
            return cls(float(theta), float(rope["factor"]))
        factor, low, high, length = (rope[name] for name in _ROPE_FIELDS[kind])
        if low >= high:
            raise UserError(
                f"{source}: low_freq_factor {low} must be less than high_freq_factor {high}"
            )
        return cls(float(theta), float(factor), float(low), float(high), int(length))

    def frequencies(self, head_width: int) -> np.ndarray:
        """Return the ``head_width / 2`` angular frequencies, radians a position, float32."""
        plain = self.theta ** (-np.arange(0, head_width, 2, dtype=np.float64) / head_width)
        if self.original_length is None:
            return (plain / self.factor).astype(np.float32)
        turns = self.original_length * plain / (2 * np.pi)
        low, high = self.low_frequency_factor, self.high_frequency_factor
        unstretched = np.clip((turns - low) / (high - low), 0.0, 1.0)
        return ((1 - unstretched) * plain / self.factor + unstretched * plain).astype(np.float32)


def _rope_parameters(settings: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return the rotary parameters from the place where the file has them."""
    newer = settings.get("rope_parameters")
    older = settings.get("rope_scaling")
    for name, parameters in (("rope_parameters", newer), ("rope_scaling", older)):
        if parameters is not None and not isinstance(parameters, Mapping):
            raise UserError(f"{source}: {name} must be a mapping, not {shown(parameters)}")
    if newer and older and newer != older:
        raise UserError(
            f"{source}: rope_parameters and rope_scaling disagree; remove the one that does not"
            " hold"
        )
    return dict(newer or older or {})


def _rope_theta(outside: Any, inside: Any, source: str) -> Any:
    """Return θ as it stands beside the rotary parameters or inside them; 10,000 where it stands
    nowhere.
    """
    if outside is not None and inside is not None and outside != inside:
        raise UserError(
            f"{source}: rope_theta is {outside}, and {inside} in the rotary parameters; remove one"
        )
    theta = outside if inside is None else inside
    return 10_000.0 if theta is None else theta


def _check_rope_fields(rope: Mapping[str, Any], kind: str, source: str) -> None:
    """Refuse rotary parameters that lack a field of their kind, or have one of another."""
    unknown = [
        name for name, value in rope.items() if name not in _ROPE_FIELDS[kind] and value is not None
    ]
    missing = [name for name in _ROPE_FIELDS[kind] if rope.get(name) is None]
    problems = [f"'{name}' is not supported" for name in unknown] + [
        f"'{name}' is missing" for name in missing
    ]
    if problems:
        raise UserError(
            f"{source}: in the rotary parameters of type '{kind}', {' and '.join(problems)}"
        )


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
    rope: Rope = Rope()
    sliding_window: int | None = None
    max_position_embeddings: int = 32_768
    tie_word_embeddings: bool = False

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any], source: str) -> DecoderConfig:
        """Read a Hugging Face configuration; what would change the mathematics unseen is refused by
        name.

        Absent fields have the defaults of the architecture's class in transformers.
        """
        fields = Fields(
            {name: value for name, value in settings.items() if not name.startswith("_")}, source
        )
        kind = _model_type(fields, source)
        heads = fields.integer("num_attention_heads")
        width = fields.integer("hidden_size", least=1)
        if width < heads:
            raise UserError(
                f"{source}: hidden_size {width} is less than the {heads} attention heads"
            )
        layers = fields.integer("num_hidden_layers", most=MOST_LAYERS)
        # A field that is present and null switches the window off; an absent one means Mistral's
        # default.
        window = None
        if kind == "mistral" and (
            not fields.has("sliding_window") or settings["sliding_window"] is not None
        ):
            # A window of 0 would hide every token from itself, which no model means.
            window = fields.integer("sliding_window", 4096)
        if (
            kind == "mistral"
            and fields.has("num_key_value_heads")
            and settings["num_key_value_heads"] is None
        ):
            # Absent means 8, Mistral's default; transformers does not load a Mistral where it is
            # null.
            raise UserError(
                f"{source}: num_key_value_heads is null; give the number of key-value heads"
            )
        fields.only("hidden_act", "silu")
        fields.only("attention_bias", False)
        fields.only("mlp_bias", False)
        fields.only("rope_interleaved", False)
        fields.only(
            "layer_types", ["full_attention" if window is None else "sliding_attention"] * layers
        )
        rope = Rope.from_mapping(
            {k: fields.take(k) for k in ("rope_parameters", "rope_scaling", "rope_theta")}, source
        )
        config = cls(
            vocab_size=fields.integer("vocab_size"),
            hidden_size=width,
            intermediate_size=fields.integer("intermediate_size"),
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=fields.integer(
                "num_key_value_heads", 8 if kind == "mistral" else heads
            ),
            head_dim=fields.integer("head_dim", width // heads),
            rms_norm_eps=fields.number("rms_norm_eps", 1e-6, above=0),
            rope=rope,
            sliding_window=window,
            max_position_embeddings=fields.integer(
                "max_position_embeddings", 131_072 if kind == "mistral" else 2048
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
