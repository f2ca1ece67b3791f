"""What a server of our adapters is given: the prompt that they were trained on, and a folder that
it reads.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from jaxmodpo.data.text import PROMPT, PolicyText, load_tokenizer
from jaxmodpo.models.adapters import save_adapter
from jaxmodpo.models.decoder import parameter_table
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.lora import LoraConfig, adapter_table
from jaxmodpo.sampling.endpoint_settings import Endpoint
from jaxmodpo.sandbox.models import save_tokenizer

TEMPLATE = Path(__file__).parents[1] / "configs" / "serving" / "instruct.jinja"
WORDS = "one two three four five"


@pytest.mark.parametrize("question", ["one two", "one\n\ntwo three", " one ", "{{ two }} %}"])
def test_the_template_for_servers_gives_the_tokens_that_adapters_were_trained_on(
    tmp_path, question
):
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
    save_tokenizer(tmp_path, [WORDS, PROMPT.format(question=WORDS)], special)
    tokenizer = load_tokenizer(tmp_path)
    sent = Endpoint(base_url="http://localhost:8000/v1", model="dpo").prompt(question)
    rendered: Any = tokenizer.apply_chat_template(
        [{"role": "user", "content": sent}],
        chat_template=TEMPLATE.read_text(),
        tokenize=True,
        return_dict=True,
    )
    assert rendered["input_ids"] == PolicyText(tokenizer).prompt(question)


def test_an_adapters_folder_says_what_vllm_reads_and_nothing_that_it_refuses(tmp_path):
    shape = DecoderConfig(
        vocab_size=8,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
    )
    lora = LoraConfig(rank=64, alpha=128.0)
    table = adapter_table(parameter_table(shape), lora)
    adapter = {name: jnp.zeros(spec.shape) for name, spec in table.items()}
    save_adapter(tmp_path / "adapter", adapter, lora, shape, "base")
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    # r, lora_alpha and target_modules are required; a bias, DoRA and saved modules are refused.
    assert (settings["r"], settings["lora_alpha"], settings["bias"]) == (64, 128, "none")
    assert isinstance(settings["target_modules"], list) and settings["use_rslora"] is False
    assert not settings.get("use_dora") and not settings.get("modules_to_save")
