"""An exported model is the base with its adapter, in transformers too."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxmodpo.errors import UserError
from jaxmodpo.files import read_json
from jaxmodpo.models.adapters import BASE_FILE, save_adapter
from jaxmodpo.models.decoder import Decoder, load_decoder, parameter_table, save_decoder
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.export import ExportConfig, export
from jaxmodpo.models.lora import LoraConfig, adapter_table
from jaxmodpo.models.parameters import initialize

SETTINGS = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 80,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
TOKENS = np.random.default_rng(0).integers(0, 80, (2, 11))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    config = DecoderConfig.from_mapping(SETTINGS, "test")
    base = jax.tree.map(lambda a: a * 10, initialize(parameter_table(config), jax.random.key(0)))
    save_decoder(tmp_path / "base", Decoder(config, base), SETTINGS)
    (tmp_path / "base" / "tokenizer.json").write_text("{}")
    (tmp_path / "base" / "generation_config.json").write_text("{}")
    lora = LoraConfig(rank=3, alpha=4.0, dropout=0.0, targets=("v_proj", "down_proj"))
    adapter = initialize(adapter_table(parameter_table(config), lora), jax.random.key(1))
    adapter = {
        n: a + 0.1 * jax.random.normal(jax.random.key(2), a.shape) for n, a in adapter.items()
    }
    save_adapter(tmp_path / "adapter", adapter, lora, config, str(tmp_path / "base"))
    return tmp_path / "base", tmp_path / "adapter"


def adapted_logits(base: Path, adapter: Path) -> np.ndarray:
    from jaxmodpo.policy.loaded import load_policy

    policy = load_policy(base, base_dtype="float32", adapter=adapter)
    model = Decoder(policy.config, policy.base, policy.lora, policy.adapter)
    return np.asarray(model.logits(model.hidden_states(jnp.asarray(TOKENS))))


@pytest.mark.slow(seconds=3)
def test_the_merged_model_gives_the_adapted_models_logits(folders, tmp_path: Path):
    base, adapter = folders
    export(ExportConfig(model=base, adapter=adapter, output_dir=tmp_path / "out"))
    merged = load_decoder(tmp_path / "out" / "model", "float32")
    logits = np.asarray(merged.logits(merged.hidden_states(jnp.asarray(TOKENS))))
    expected = adapted_logits(base, adapter)
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())
    names = {path.name for path in (tmp_path / "out" / "model").iterdir()}
    assert names == {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["results"]["merged"] == 4 and manifest["status"] == "finished"


@pytest.mark.slow(seconds=5)
def test_shards_and_index_load_in_transformers(folders, tmp_path: Path, monkeypatch):
    torch = pytest.importorskip("torch", reason="loads in transformers")
    import transformers

    base, adapter = folders
    # A MiB is more than this model: cut at 16 KiB.
    monkeypatch.setattr("jaxmodpo.models.export.MIB", 2**14)
    export(ExportConfig(model=base, adapter=adapter, output_dir=tmp_path / "out", shard_mib=1))
    folder = tmp_path / "out" / "model"
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    assert len(files) > 2 and files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    expected = adapted_logits(base, adapter)
    with torch.no_grad():
        logits = theirs(torch.tensor(TOKENS)).logits.numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())


def test_chat_templates_that_have_names_are_exported_too(folders, tmp_path: Path):
    base, adapter = folders
    (base / "additional_chat_templates").mkdir()
    (base / "additional_chat_templates" / "tool_use.jinja").write_text("{{ messages }}")
    export(ExportConfig(model=base, adapter=adapter, output_dir=tmp_path / "out"))
    assert (
        tmp_path / "out/model/additional_chat_templates/tool_use.jinja"
    ).read_text() == "{{ messages }}"


def test_a_merge_beyond_float16_is_refused_and_infinities_written(folders, tmp_path: Path):
    base, adapter = folders
    path = base / "model.safetensors"
    tensors = {name: tensor.astype(np.float16) for name, tensor in load_file(path).items()}
    name = "model.layers.0.self_attn.v_proj.weight"
    tensors[name] = np.full_like(tensors[name], 65504)
    save_file(tensors, path)
    (adapter / BASE_FILE).unlink()  # it was made for the weights of before
    factors = {
        name: 300 * tensor
        for name, tensor in load_file(adapter / "adapter_model.safetensors").items()
    }
    save_file(factors, adapter / "adapter_model.safetensors")
    with pytest.raises(
        UserError, match=rf"{name} with the adapter added has values that float16 cannot hold"
    ):
        export(ExportConfig(model=base, adapter=adapter, output_dir=tmp_path / "out"))
    assert not (tmp_path / "out/model").exists()


def test_what_cannot_be_merged_is_refused(folders, tmp_path: Path):
    base, adapter = folders
    with pytest.raises(UserError, match="no such file"):
        export(ExportConfig(model=base, adapter=tmp_path / "none", output_dir=tmp_path / "out"))
    with pytest.raises(UserError, match="not a PEFT adapter"):
        export(ExportConfig(model=base, adapter=base, output_dir=tmp_path / "out2"))
    with pytest.raises(UserError, match="--shard-mib must be at least 1, not 0"):
        export(ExportConfig(model=base, adapter=adapter, output_dir=tmp_path / "out3", shard_mib=0))
    assert not (tmp_path / "out2" / "model").exists()


@pytest.mark.slow(seconds=3)
def test_a_head_of_its_own_beside_tied_embeddings_is_exported_and_said_to_be_one(
    folders, tmp_path: Path
):
    base, adapter = folders
    tensors = load_file(base / "model.safetensors")
    head = tensors["model.embed_tokens.weight"] + np.float32(0.5)
    save_file(tensors | {"lm_head.weight": head}, base / "model.safetensors")
    (adapter / BASE_FILE).unlink()  # it was made for the weights of before
    expected = adapted_logits(base, adapter)
    export(ExportConfig(model=base, adapter=adapter, output_dir=tmp_path / "out"))
    merged = load_decoder(tmp_path / "out" / "model", "float32")
    assert read_json(tmp_path / "out" / "model" / "config.json")["tie_word_embeddings"] is False
    logits = np.asarray(merged.logits(merged.hidden_states(jnp.asarray(TOKENS))))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
