"""Adapters are a plain change of the base we hold, or they are refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jaxmodpo.errors import UserError
from jaxmodpo.models.adapter_config import read_adapter_config

PLAIN = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}


def adapter(folder: Path, **changes) -> Path:
    (folder / "adapter_config.json").write_text(json.dumps(PLAIN | changes))
    return folder


@pytest.mark.parametrize(
    "start", ["pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga", "mica", "next year's"]
)
def test_an_adapter_whose_start_changed_the_base_is_refused_with_what_to_do(tmp_path, start):
    with pytest.raises(UserError, match=f"init_lora_weights '{start}'.*merge_and_unload"):
        read_adapter_config(adapter(tmp_path, init_lora_weights=start))


@pytest.mark.parametrize("start", [True, False, None, "gaussian", "orthogonal", "eva"])
def test_a_start_that_sets_the_factors_alone_is_read(tmp_path, start):
    assert read_adapter_config(adapter(tmp_path, init_lora_weights=start)).rank == 4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"alora_invocation_tokens": [3, 4]}, "'alora_invocation_tokens' is not supported"),
        ({"use_dora": True}, "'use_dora' is not supported"),
        ({"kasa_config": {"beta": 1}}, "kasa_config is not supported"),
        ({"lora_ga_config": {"scale": "x"}}, "lora_ga_config is not supported"),
        ({"layers_to_transform": [0]}, "'layers_to_transform' is not supported"),
        ({"layers_to_transform": 0}, "'layers_to_transform' is not supported"),
        ({"modules_to_save": ["lm_head"]}, "'modules_to_save' is not supported"),
        ({"not_invented_yet": 0}, "'not_invented_yet' is not supported"),
        ({"task_type": "SEQ_CLS"}, "task_type"),
        ({"use_rslora": "yes"}, "use_rslora must be true or false"),
        ({"r": True}, "r must be a whole number"),
        ({"r": 4.0}, "r must be a whole number"),
        ({"lora_alpha": 0}, "lora_alpha must be a number above 0, not 0"),
        (
            {"target_modules": ["q_proj", "lm_head"]},
            "target_modules must be some of .*, not lm_head",
        ),
        ({"target_modules": []}, "target_modules must be some of .*, not none"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(tmp_path, changes, said):
    with pytest.raises(UserError, match=f"adapter_config.json: .*{said}"):
        read_adapter_config(adapter(tmp_path, **changes))


@pytest.mark.slow(seconds=9)
def test_what_peft_writes_for_a_plain_adapter_is_read(tmp_path):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(
        r=5, lora_alpha=13, lora_dropout=0.1, target_modules=["q_proj"], task_type="CAUSAL_LM"
    )
    config.save_pretrained(tmp_path)
    config = read_adapter_config(tmp_path)
    assert (config.rank, config.alpha, config.dropout, config.targets) == (
        5,
        13.0,
        0.1,
        ("q_proj",),
    )
