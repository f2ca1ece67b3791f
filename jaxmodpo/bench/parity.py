"""``bench parity``: our models against transformers', on tiny random weights in the real file
formats.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxmodpo.bench.table import text_table
from jaxmodpo.errors import UserError
from jaxmodpo.models.decoder import load_decoder
from jaxmodpo.models.roberta import load_roberta
from jaxmodpo.parsing import JsonObject
from jaxmodpo.ranges import Seed, Unestimated

VOCABULARY = 131
# Many rows, since a reward model gives but one number for each and an error's root mean square
# needs many.
LENGTHS = np.tile([40, 23, 9], 16)
PROMPTS = np.tile([12, 5, 3], 16)

_SMALL: JsonObject = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "initializer_range": 0.1,
}
_DECODER: JsonObject = {
    **_SMALL,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
}
_PLAIN = {"rope_type": "default", "rope_theta": 10_000.0}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}


class Case(NamedTuple):
    """A model to compare: ``mistral``, ``llama`` or ``roberta``, and what its configuration
    says.
    """

    kind: str
    settings: JsonObject


CASES = {
    "Mistral v0.1: window of 8": Case("mistral", {"sliding_window": 8, "rope_parameters": _PLAIN}),
    "Mistral v0.2: no window, θ 1e6": Case(
        "mistral", {"sliding_window": None, "rope_parameters": {**_PLAIN, "rope_theta": 1e6}}
    ),
    "Mistral: no grouped heads": Case(
        "mistral", {"sliding_window": None, "num_key_value_heads": 4}
    ),
    "Mistral: one key-value head, head_dim 32": Case(
        "mistral", {"sliding_window": None, "num_key_value_heads": 1, "head_dim": 32}
    ),
    "Mistral: tied embeddings, window": Case(
        "mistral", {"sliding_window": 8, "tie_word_embeddings": True}
    ),
    "Llama: plain rotary": Case("llama", {"rope_parameters": _PLAIN}),
    "Llama: linear rotary scaling": Case(
        "llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}}
    ),
    "Llama 3.1: scaled rotary": Case("llama", {"rope_parameters": _LLAMA3}),
    "Llama 3.2: scaled rotary, tied, head_dim 32": Case(
        "llama",
        {
            "rope_parameters": {**_LLAMA3, "factor": 32.0},
            "tie_word_embeddings": True,
            "head_dim": 32,
        },
    ),
    "RoBERTa: one output": Case("roberta", {"num_labels": 1}),
    "RoBERTa: 16 sigmoid outputs": Case(
        "roberta",
        {"num_labels": 16, "problem_type": "multi_label_classification", "type_vocab_size": 2},
    ),
}


class Parity(NamedTuple):
    """How far we are from transformers.

    Attributes:
        logits: largest difference over the largest logit, float32.
        logps: largest absolute difference of completion log-probabilities, nats, float32; None for
            encoders.
        bfloat16: our root-mean-square distance from float32 logits over torch's, both in bfloat16.
    """

    logits: float
    logps: float | None
    bfloat16: float


@dataclass(frozen=True, kw_only=True)
class BenchParityConfig(Unestimated, help_group="measurement"):
    """Compare logits and log-probabilities with transformers over a grid of configurations."""

    seed: Seed = 0
    """Seed of the weights and the tokens that are compared."""


def bench_parity(config: BenchParityConfig) -> None:
    """Run ``bench parity``."""
    config.check()
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise UserError(
            "bench parity compares with torch models; pip install torch==2.13.0 (CPU)"
        ) from error
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for number, (name, case) in enumerate(CASES.items()):
            print(name, file=sys.stderr)
            parity = compare(case, Path(temporary) / str(number), config.seed)
            logps = "" if parity.logps is None else f"{parity.logps:.1e}"
            rows.append([name, f"{parity.logits:.1e}", logps, f"{parity.bfloat16:.2f}"])
    heads = [
        "configuration",
        "logits, relative",
        "log-probabilities, nats",
        "bfloat16 error / torch's",
    ]
    print(text_table(heads, rows))


def compare(case: Case, folder: Path, seed: int = 0) -> Parity:
    """Make a random model with transformers, save it, load it here, and compare on padded rows."""
    import torch

    theirs = reference_model(case, seed)
    theirs.save_pretrained(folder)
    # Rows of several lengths, padded at the end: a mask that lets padding through shows.
    real = np.arange(LENGTHS.max()) < LENGTHS[:, None]
    tokens = np.random.default_rng(seed).integers(4, VOCABULARY, real.shape)
    # RoBERTa derives positions from its padding token.
    tokens = np.where(real, tokens, 1)
    arguments = {
        "input_ids": torch.tensor(tokens),
        "attention_mask": torch.tensor(real.astype(np.int64)),
    }
    with torch.no_grad():
        their_float32 = theirs(**arguments).logits.numpy()
        # Of bfloat16 only the arithmetic is compared, so that the model that it is measured by has
        # the rounded weights too, and computes with them in float32.
        rounded = theirs.bfloat16()
        their_bfloat16 = rounded(**arguments).logits.float().numpy()
        exact = rounded.float()(**arguments).logits.numpy()
    our_float32 = _our_logits(case, folder, "float32", tokens)
    our_bfloat16 = _our_logits(case, folder, "bfloat16", tokens)
    logps_difference: float | None = None
    if case.kind != "roberta":
        # An encoder has one row of logits for each text, a decoder one for each token: what stands
        # at padding is nobody's concern.
        their_float32 = their_float32[real]
        their_bfloat16 = their_bfloat16[real]
        exact = exact[real]
        our_float32 = our_float32[real]
        our_bfloat16 = our_bfloat16[real]
        their_logps = _their_completions(their_float32, tokens, real)
        our_logps = _our_completions(folder, tokens)
        logps_difference = float(np.abs(their_logps - our_logps).max())
    our_error = np.mean((our_bfloat16 - exact) ** 2)
    their_error = np.mean((their_bfloat16 - exact) ** 2)
    return Parity(
        logits=float(np.abs(our_float32 - their_float32).max() / np.abs(their_float32).max()),
        logps=logps_difference,
        bfloat16=float(np.sqrt(our_error / their_error)),
    )


def reference_model(case: Case, seed: int) -> Any:
    """Return a random model of transformers', in evaluation."""
    import torch
    import transformers

    torch.manual_seed(seed)
    if case.kind == "roberta":
        settings: JsonObject = {**_SMALL, "max_position_embeddings": 64, **case.settings}
        encoder_config = transformers.RobertaConfig(**settings)
        return transformers.RobertaForSequenceClassification(encoder_config).eval()
    settings = {**_DECODER, **case.settings}
    if case.kind == "mistral":
        return transformers.MistralForCausalLM(transformers.MistralConfig(**settings)).eval()
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings)).eval()


def _our_logits(case: Case, folder: Path, dtype: Any, tokens: np.ndarray) -> np.ndarray:
    if case.kind == "roberta":
        encoder = load_roberta(folder, dtype=dtype)
        return np.asarray(encoder(jnp.asarray(tokens), jnp.asarray(LENGTHS)))
    model = load_decoder(folder, dtype)
    return np.asarray(model.logits(model.hidden_states(jnp.asarray(tokens))))


def _their_completions(logits: np.ndarray, tokens: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Sum torch's log-probabilities over each row's completion, in float64."""
    rows = np.zeros((*real.shape, logits.shape[-1]))
    rows[real] = logits
    # The largest logit is taken off, or the exponential might overflow.
    shifted = rows - rows.max(-1, keepdims=True)
    logps = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    # A position's logits are about the token after it.
    targets = tokens[:, 1:, None]
    target_logps = np.take_along_axis(logps[:, :-1], targets, -1)[..., 0]
    positions = np.arange(1, tokens.shape[1])
    in_completion = (positions >= PROMPTS[:, None]) & (positions < LENGTHS[:, None])
    return np.where(in_completion, target_logps, 0).sum(1)


def _our_completions(folder: Path, tokens: np.ndarray) -> np.ndarray:
    from jaxmodpo.models.completions import completion_logps

    batch = {
        "tokens": jnp.asarray(tokens),
        "prompt_lengths": jnp.asarray(PROMPTS),
        "lengths": jnp.asarray(LENGTHS),
        # An example is one sequence here, in a row of its own.
        "places": jnp.arange(len(tokens))[:, None],
    }
    logps, *_ = completion_logps(load_decoder(folder, "float32"), batch, None)
    return np.asarray(logps)[:, 0]
