"""The code of docs/library.md, as it stands there, on a tiny model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxmodpo.models.decoder import parameter_table
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.files import save_model
from jaxmodpo.models.parameters import initialize
from jaxmodpo.policy.loaded import load_policy
from jaxmodpo.sandbox.models import save_tokenizer

PAGE = Path(__file__).parents[1] / "docs" / "library.md"


def make_model(folder: Path, texts: list[str]) -> None:
    """Write a Mistral of a few thousand random parameters, with a tokenizer that knows the texts'
    words.
    """
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    save_tokenizer(folder.with_name("tokenizer"), texts, special)
    settings = {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "vocab_size": 512,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "rope_theta": 10000.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    table = parameter_table(DecoderConfig.from_mapping(settings, "test"))
    parameters = jax.tree.map(lambda array: 5 * array, initialize(table, jax.random.key(0)))
    save_model(folder, settings, table, parameters, tokenizer_from=folder.with_name("tokenizer"))


@pytest.mark.slow(seconds=15)
def test_the_page_trains_a_policy_and_writes_its_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    page = PAGE.read_text()
    make_model(tmp_path / "model", [page])
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for number, block in enumerate(
        re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL), 1
    ):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)

    assert names["before"].shape == (4, 2)
    np.testing.assert_array_equal(names["before"], names["reference"])
    updates = [
        json.loads(line)["step"] for line in Path("run/metrics.jsonl").read_text().splitlines()
    ]
    assert updates == [5, 10, 15, 20]
    # The loss is less than that of the untrained policy, which has no margin of its own.
    untrained = np.log1p(np.exp(0.3 * names["margins"][:, 0] / 0.7))
    assert (names["losses"] < untrained).all()
    assert (names["implicit_margins"] > 0).all()
    expected = np.log1p(np.exp(-(names["implicit_margins"] - 0.3 * names["margins"][:, 0]) / 0.7))
    np.testing.assert_allclose(names["losses"], expected, rtol=1e-4)
    loaded = load_policy(names["folder"], base_dtype="bfloat16", adapter=names["adapter"])
    np.testing.assert_array_equal(loaded.logps(names["examples"], rows=4), names["after"])
