"""Scorers' models of a few thousand random parameters, with tokenizers, in the real formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

from jaxmodpo.models import roberta
from jaxmodpo.models.model_folder import save_model
from jaxmodpo.models.parameters import initialize
from jaxmodpo.models.roberta_config import RobertaConfig
from jaxmodpo.sandbox.models import save_tokenizer

TEXTS = (
    "you are kind",
    "go away , you are a fool . nobody wants to hear it",
    "it sounds hard . what helps you to sleep ?",
)
ROBERTA_MARKS = {
    "cls_token": "<s>",
    "pad_token": "<pad>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
    "bos_token": "<s>",
    "eos_token": "</s>",
}


def tiny_classifier(folder: Path, **settings: Any) -> Path:
    """Write a RoBERTa classifier with random weights; ``settings`` go into its ``config.json``."""
    labels = settings.pop("labels", ("toxicity", "insult", "threat"))
    config = {
        "architectures": ["RobertaForSequenceClassification"],
        "model_type": "roberta",
        "vocab_size": 40,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 34,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "pad_token_id": 1,
        "id2label": {str(number): name for number, name in enumerate(labels)},
        "problem_type": "multi_label_classification",
        **settings,
    }
    tokenizer = folder.with_name(f"{folder.name}-tokenizer")
    save_tokenizer(tokenizer, TEXTS, ROBERTA_MARKS)
    table = roberta.parameter_table(RobertaConfig.from_mapping(config, "test"))
    weights = initialize(table, jax.random.key(0))
    weights = jax.tree.map(lambda array: 5.0 * array, weights)
    config = {name: value for name, value in config.items() if value is not None}
    save_model(folder, config, table, weights, tokenizer_from=tokenizer)
    return folder
