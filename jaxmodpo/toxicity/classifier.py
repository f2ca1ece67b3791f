"""A RoBERTa classifier as a scorer: each of its labels is a score.

Any Hugging Face folder of a ``RobertaForSequenceClassification`` in safetensors will do, such as
``unitary/unbiased-toxic-roberta``. A classifier of several labels at a time gives each of them a
sigmoid, one of labels that exclude each other a softmax over all, as transformers'
text-classification pipeline does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import jax
import numpy as np
from jax import Array

from jaxmodpo.data.controls import ControlTokens
from jaxmodpo.data.text import load_tokenizer
from jaxmodpo.errors import UserError
from jaxmodpo.fingerprints import fingerprint
from jaxmodpo.hub import model_name
from jaxmodpo.judging.judge import Request
from jaxmodpo.models.model_folder import read_model_config
from jaxmodpo.models.roberta import Roberta, load_roberta
from jaxmodpo.models.roberta_config import RobertaConfig
from jaxmodpo.toxicity.scorers import LocalScorer, ScoreRows, named_scores

Activation = Literal["sigmoid", "softmax"]

LONGEST = 512
"""tokens of a text, with its marks, where the settings say nothing"""


def classifier_scorer(
    folder: Path,
    *,
    batch_size: int,
    max_length: int | None = None,
) -> LocalScorer:
    """Make a scorer of a classifier's folder; its weights are loaded when the first text comes.

    Args:
        folder: ``config.json``, safetensors and a tokenizer.
        batch_size: texts at a time.
        max_length: tokens of a text; what is longer loses its end.

    Raises:
        UserError: no such classifier, or one whose outputs are no probabilities of labels.
    """
    settings = read_model_config(folder)
    source = f"{folder}/config.json"
    architectures = settings.get("architectures") or []
    if "RobertaForSequenceClassification" not in architectures:
        raise UserError(
            f"{folder} is no RoBERTa classifier: its architecture is {architectures}; name the folder"
            " of a RobertaForSequenceClassification"
        )
    config = RobertaConfig.from_mapping(settings, source)
    activation = activation_of(settings, config.num_labels, source)
    names = label_names(settings, config.num_labels, source)
    length = min(max_length or LONGEST, config.max_length)
    tokenizer = load_tokenizer(folder)
    for mark in ("cls_token_id", "sep_token_id"):
        if getattr(tokenizer, mark) is None:
            raise UserError(f"the tokenizer in {folder} has no {mark.removesuffix('_id')}")
    start = cast(int, tokenizer.cls_token_id)
    end = cast(int, tokenizer.sep_token_id)
    controls = ControlTokens(tokenizer, rows=config.vocab_size)

    def text_tokens(request: Request) -> list[int]:
        (response,) = request.responses
        tokens, _ = controls.encode(response.response_text)
        return tokens

    def tokens(request: Request) -> list[int]:
        return [start, *text_tokens(request)[: length - 2], end]

    def is_cut(request: Request) -> bool:
        return len(text_tokens(request)) > length - 2

    return LocalScorer(
        identity=(
            f"classifier {model_name(str(folder))}; weights {fingerprint(folder)[:16]};"
            f" {activation}; {length} tokens"
        ),
        model=model_name(str(folder)),
        criteria=named_scores(names),
        tokens=tokens,
        cut=is_cut,
        load=lambda: _load(folder, activation),
        batch_size=batch_size,
    )


def activation_of(settings: Mapping[str, Any], outputs: int, source: str) -> Activation:
    """Return what turns a classifier's outputs into probabilities, by its ``problem_type``.

    Raises:
        UserError: a model whose outputs are no probabilities of labels.
    """
    problem = settings.get("problem_type")
    if "reward_max_length" in settings or problem == "regression":
        raise UserError(
            f"{source} is of a model that gives rewards or other quantities, and no probabilities"
            " of labels; name a classifier"
        )
    if problem == "multi_label_classification":
        return "sigmoid"
    if problem == "single_label_classification" and outputs == 1:
        raise UserError(
            f"{source} has the problem_type '{problem}' and one label, which every text then has"
            " with certainty; correct the problem_type"
        )
    if problem == "single_label_classification":
        return "softmax"
    if problem is not None:
        raise UserError(
            f"{source}: problem_type '{problem}' is not supported; it must be"
            " multi_label_classification or single_label_classification"
        )
    # Without a word about it, as transformers' text-classification pipeline has it.
    return "sigmoid" if outputs == 1 else "softmax"


def label_names(settings: Mapping[str, Any], outputs: int, source: str) -> list[str]:
    """Return the names of a classifier's outputs, in their order; ``LABEL_0`` and so on where it
    names none.

    Raises:
        UserError: names that do not fit the outputs.
    """
    by_number = settings.get("id2label")
    if not by_number:
        # As transformers names them.
        by_number = {str(number): f"LABEL_{number}" for number in range(outputs)}
    names = [by_number.get(str(number)) for number in range(outputs)]
    texts = [name for name in names if isinstance(name, str) and name]
    if len(set(texts)) < outputs or len(by_number) != outputs:
        raise UserError(
            f"{source}: id2label must name each of the {outputs} outputs, from 0 on, and no name"
            " twice"
        )
    return texts


def _load(folder: Path, activation: Activation) -> ScoreRows:
    model = load_roberta(folder)
    parameters = {name: variable[...] for name, variable in model.parameters.items()}
    config = model.config
    normalize = jax.nn.sigmoid if activation == "sigmoid" else jax.nn.softmax

    @jax.jit
    def probabilities(parameters: dict[str, Array], tokens_BT: Array, lengths_B: Array) -> Array:
        logits_BN = Roberta(config, parameters)(tokens_BT, lengths_B)
        return normalize(logits_BN)

    def score(tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        # The table of positions ends where the texts may; padding beyond it would have none.
        room = min(tokens.shape[1], config.max_length)
        return np.asarray(probabilities(parameters, tokens[:, :room], lengths))

    return score
