"""Loading: what is read, onto which devices, at what cost, and what is refused."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from transformers import GenerationConfig, MistralConfig

from jaxmodpo.bench.load import fake_checkpoint
from jaxmodpo.errors import UserError
from jaxmodpo.models import loading, quantized, tensors
from jaxmodpo.models.decoder import Decoder, load_decoder, parameter_table, save_decoder
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.model_folder import read_end_tokens, read_model_config
from jaxmodpo.models.parameters import initialize

SETTINGS = {
    "model_type": "llama",
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rope_theta": 10_000.0,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = DecoderConfig.from_mapping(SETTINGS, "test")
    model = Decoder(config, initialize(parameter_table(config), jax.random.key(0)))
    save_decoder(tmp_path / "model", model, SETTINGS)
    return tmp_path / "model"


def shard(folder: Path) -> tuple[Path, Path]:
    """Cut the folder's one file into two and an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    halves = (names[::2], names[1::2])
    placed = {}
    for number, half in enumerate(halves):
        save_file({name: tensors[name] for name in half}, folder / f"part{number}.safetensors")
        placed |= dict.fromkeys(half, f"part{number}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    return folder / "part0.safetensors", folder / "part1.safetensors"


def arrays(model: Decoder) -> dict[str, np.ndarray]:
    return {name: np.asarray(variable[...]) for name, variable in model.base.items()}


def test_indexed_files_load_as_the_single_one(folder: Path):
    single = arrays(load_decoder(folder, "float32"))
    shard(folder)
    for name, array in arrays(load_decoder(folder, "float32")).items():
        np.testing.assert_array_equal(array, single[name])


def test_parameters_of_one_shape_share_the_program_that_loads_them(folder: Path):
    loading._encoder.cache_clear()
    model = load_decoder(folder)
    table = parameter_table(model.config)
    shapes = {(spec.shape, spec.transposed) for spec in table.values()}
    assert loading._encoder.cache_info().misses == len(shapes) < len(table)


def test_bfloat16_and_float32_come_from_either(folder: Path):
    full = arrays(load_decoder(folder, "float32"))
    half = arrays(load_decoder(folder, "bfloat16"))
    for name, array in half.items():
        assert array.dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(array, full[name].astype(ml_dtypes.bfloat16))


@pytest.mark.slow(seconds=2)
@pytest.mark.parametrize("base_dtype", ["int8", "nf4"])
def test_projections_are_quantized_layer_by_layer_on_the_way_in(folder: Path, base_dtype):
    full, loaded = arrays(load_decoder(folder, "float32")), arrays(load_decoder(folder, base_dtype))
    table = quantized.stored_table(
        parameter_table(DecoderConfig.from_mapping(SETTINGS, "")), base_dtype
    )
    assert set(loaded) == set(table)
    for name, spec in table.items():
        assert loaded[name].shape == spec.shape and loaded[name].dtype == jnp.dtype(
            spec.dtype or "bfloat16"
        )
    for layer in range(2):
        parts = quantized.quantize(jnp.asarray(full["layers.down_proj"][layer]), base_dtype)
        for part, array in parts.items():
            np.testing.assert_allclose(
                loaded[f"layers.down_proj.{part}"][layer].astype(np.float32),
                np.asarray(array).astype(np.float32),
                rtol=1e-6,
            )
    exact, near = (
        np.asarray(load_decoder(folder, kind).hidden_states(jnp.asarray([[5, 7, 11]]))).astype(
            np.float32
        )
        for kind in ("float32", base_dtype)
    )
    assert np.sqrt(np.mean((near - exact) ** 2) / np.mean(exact**2)) < 0.2


def swap_index(folder: Path) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    name = sorted(index["weight_map"])[0]
    index["weight_map"][name] = "part1.safetensors"
    path.write_text(json.dumps(index))


def doubled(folder: Path) -> None:
    first, second = folder / "part0.safetensors", folder / "part1.safetensors"
    name, tensor = sorted(load_file(first).items())[0]
    save_file(load_file(second) | {name: tensor}, second)


def unlisted(folder: Path) -> None:
    first = folder / "part0.safetensors"
    save_file(load_file(first) | {"model.extra.weight": np.zeros(3, np.float32)}, first)


def outside(folder: Path) -> None:
    path = folder / "model.safetensors.index.json"
    path.write_text(path.read_text().replace('"part0', '"../part0'))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            swap_index,
            r"the index places lm_head.weight in part1.safetensors, which does not hold it",
        ),
        (doubled, r"the tensor lm_head.weight is in both part0.safetensors and part1.safetensors"),
        (unlisted, r"unexpected model.extra.weight"),
        (outside, r"names a file outside its folder: ../part0.safetensors"),
        (lambda f: (f / "part1.safetensors").unlink(), r"has no part1.safetensors"),
        (lambda f: (f / "model.safetensors.index.json").write_text("[]"), r"has no weight_map"),
        (
            lambda f: (f / "part1.safetensors").write_bytes(b"\0" * 64),
            r"part1.safetensors is corrupt or truncated",
        ),
    ],
    ids=["index", "doubled", "unlisted", "outside", "absent", "no-map", "corrupt"],
)
def test_an_index_that_does_not_fit_its_files_is_refused(folder: Path, spoil, said: str):
    shard(folder)
    spoil(folder)
    with pytest.raises(UserError, match=said):
        load_decoder(folder, "float32")


def test_every_fault_is_named_in_one_message(folder: Path):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.0.self_attn.q_proj.weight"] = np.zeros((3, 3), np.float32)
    tensors["model.norm.weight"] = tensors["model.norm.weight"].astype(np.int32)
    del tensors["lm_head.weight"]
    tensors["surplus"] = np.zeros(1, np.float32)
    save_file(tensors, path)
    with pytest.raises(UserError) as raised:
        load_decoder(folder, "float32")
    for message in (
        "missing lm_head.weight",
        "q_proj.weight has shape [3, 3], not [64, 64]",
        "model.norm.weight has type I32",
        "unexpected surplus",
    ):
        assert message in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "qwen2"}, "model_type 'qwen2' is not supported"),
        (
            {"architectures": ["LlamaForSequenceClassification"]},
            "LlamaForSequenceClassification is not supported",
        ),
        ({"attention_bias": True}, "attention_bias true"),
        ({"quantization_config": {"bits": 4}}, "the field 'quantization_config' is not supported"),
        (
            {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
            "rope_type 'dynamic' is not supported",
        ),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, "'low_freq_factor' is missing"),
        ({"rope_interleaved": True}, "rope_interleaved true is not supported"),
        ({"partial_rotary_factor": 0.5}, "the field 'partial_rotary_factor' is not supported"),
        ({"num_key_value_heads": 3}, "3 key-value heads do not divide 4"),
        ({"num_key_value_heads": None, "model_type": "mistral"}, "num_key_value_heads is null"),
        ({"hidden_size": None}, "'hidden_size' is missing"),
        ({"auto_map": {"AutoModel": "evil.py"}}, "the field 'auto_map' is not supported"),
        (
            {"rope_parameters": {"rope_theta": 5.0}},
            "rope_theta is 10000.0, and 5.0 in the rotary parameters",
        ),
        (
            {
                "rope_parameters": {"rope_type": "linear", "factor": 2.0},
                "rope_scaling": {"type": "linear", "factor": 4.0},
            },
            "rope_parameters and rope_scaling disagree",
        ),
        ({"rope_theta": "1e4"}, "rope_theta must be a number above 0"),
        ({"rope_scaling": [1]}, "rope_scaling must be a mapping"),
        ({"rope_scaling": {"rope_type": ["linear"]}}, "rope_type .* is not supported"),
        (
            {"sliding_window": 0, "model_type": "mistral"},
            "sliding_window must be a whole number from 1 to .*, not 0",
        ),
        ({"hidden_size": "64"}, "hidden_size must be a whole number"),
        ({"vocab_size": True}, "vocab_size must be a whole number"),
        (
            {"num_hidden_layers": 0},
            "num_hidden_layers must be a whole number from 1 to 10000, not 0",
        ),
        ({"num_key_value_heads": 2.0}, "num_key_value_heads must be a whole number"),
        ({"rms_norm_eps": "1e-5"}, "rms_norm_eps must be a number above 0"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings must be true or false"),
        (
            {"num_hidden_layers": 2**31 - 1},
            "num_hidden_layers must be a whole number from 1 to 10000",
        ),
        ({"num_attention_heads": 10**6}, "hidden_size 64 is less than the 1000000 attention heads"),
        ({"head_dim": 7}, "head_dim is 7, and rotary positions need an even one"),
        ({"rope_theta": 10**400}, "rope_theta must be a number above 0"),
        (
            {
                "rope_scaling": {
                    "rope_type": "llama3",
                    "factor": 8.0,
                    "low_freq_factor": 4.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 8192,
                }
            },
            "low_freq_factor 4.0 must be less than high_freq_factor 4.0",
        ),
        ({"architectures": "LlamaModel"}, "LlamaModel is not supported"),
        ({"model_type": ["llama"]}, "is not supported"),
    ],
)
def test_a_configuration_that_means_another_model_is_refused_by_name(
    folder: Path, changes: dict, said: str
):
    path = folder / "config.json"
    path.write_text(json.dumps(read_model_config(folder) | changes))
    with pytest.raises(UserError, match=said):
        load_decoder(folder, "float32")


@pytest.mark.parametrize(
    "said",
    [
        {"max_sequence_length": 2048},
        {"do_sample": True, "temperature": 0.9, "top_p": 0.6, "max_length": 4096},
        {"tokenizer_class": "LlamaTokenizer"},
        {"rope_interleaved": False},
        {
            "is_llama_config": True,
            "rope_interleaved": False,
            "pretraining_tp": 1,
            "model_max_length": 8192,
        },
        {
            "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}},
            "neftune_noise_alpha": 5,
        },
    ],
)
def test_what_early_files_say_besides_changes_nothing(folder: Path, said: dict):
    settings = read_model_config(folder)
    assert DecoderConfig.from_mapping(settings | said, "config.json") == DecoderConfig.from_mapping(
        settings, ""
    )


def test_published_shapes_count_as_many_parameters_as_their_authors_state():
    from jaxmodpo.models.parameters import count
    from jaxmodpo.models.shapes import decoder_shape as shape

    stated = {
        "mistral-7b-v0.1": 7_241_732_096,
        "llama-3.1-8b": 8_030_261_248,
        "llama-3.2-1b": 1_235_814_400,
    }
    for name, parameters in stated.items():
        assert count(parameter_table(shape(name))) == parameters
    assert (
        shape("mistral-7b-v0.1").sliding_window == 4096
        and shape("mistral-7b-v0.2").sliding_window is None
    )


def test_trace_time_does_not_grow_with_depth():
    def size(layers: int) -> int:
        config = DecoderConfig.from_mapping(SETTINGS | {"num_hidden_layers": layers}, "")
        base = {
            n: jax.ShapeDtypeStruct(s.shape, jnp.float32)
            for n, s in parameter_table(config).items()
        }
        tokens = jax.ShapeDtypeStruct((2, 8), jnp.int32)
        return len(
            str(
                jax.make_jaxpr(lambda b, t: Decoder(config, b).hidden_states(t))(base, tokens)
            ).splitlines()
        )

    assert size(8) == size(64)


SHARDED = """
import sys
from pathlib import Path
import jax, numpy as np
from jaxmodpo.models.decoder import load_decoder
from jaxmodpo.policy.mesh import make_mesh, shardings
folder, base_dtype = Path(sys.argv[1]), sys.argv[2]
assert jax.device_count() == 4
model = load_decoder(folder, base_dtype, shardings(make_mesh((1, 2, 2))))
alone = load_decoder(folder, base_dtype)
for name, variable in model.base.items():
    array, expected = variable[...], alone.base[name][...]
    # A mean over devices is summed in another order.
    array, expected = (x if x.ndim == 3 else np.asarray(x, np.float32) for x in (array, expected))
    np.testing.assert_allclose(*(np.asarray(x).astype(np.float32) for x in (array, expected)), rtol=1e-6, err_msg=name)
    if name.startswith("layers.up_proj") and array.ndim == 3:
        assert array.addressable_shards[0].data.shape == (2, array.shape[1] // 2, array.shape[2] // 2), name
"""


@pytest.mark.slow(seconds=5)
@pytest.mark.parametrize("base_dtype", ["float32", "nf4"])
def test_each_device_gets_its_part(forked_programs, tmp_path: Path, base_dtype: str):
    settings = SETTINGS | {"hidden_size": 128, "intermediate_size": 256}
    config = DecoderConfig.from_mapping(settings, "test")
    model = Decoder(config, initialize(parameter_table(config), jax.random.key(0)))
    save_decoder(tmp_path / "model", model, settings)
    forked_programs.run(SHARDED, [str(tmp_path / "model"), base_dtype], devices=4)


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="reads the process's memory from /proc"
)
def test_loading_needs_at_most_two_tensors_of_host_memory(tmp_path: Path):
    from jaxmodpo.bench.load import measure

    measured = measure(fake_checkpoint(tmp_path, layers=2, vocab_size=32_000), "bfloat16")
    assert measured["largest"] == 32_000 * 2048 * 2
    assert measured["beyond"] < 2 * measured["largest"] < measured["arrays"]


def test_a_head_that_differs_from_tied_embeddings_is_kept_as_transformers_keeps_it(
    folder: Path, tmp_path: Path
):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    config = read_model_config(folder) | {"tie_word_embeddings": True}
    (folder / "config.json").write_text(
        json.dumps(config | {"architectures": ["LlamaForCausalLM"]})
    )
    tokens = np.arange(12)[None]

    def ours(model: Decoder) -> np.ndarray:
        return np.asarray(model.logits(model.hidden_states(jnp.asarray(tokens))))

    def theirs() -> np.ndarray:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        with torch.no_grad():
            return model(torch.asarray(tokens)).logits.numpy()

    own_head = load_decoder(folder, "float32")
    assert not own_head.config.tie_word_embeddings
    np.testing.assert_allclose(ours(own_head), theirs(), atol=1e-5, rtol=1e-4)
    # A head that is a copy of the embeddings is no head of its own.
    tensors = load_file(folder / "model.safetensors")
    save_file(
        tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]},
        folder / "model.safetensors",
    )
    tied = load_decoder(folder, "float32")
    assert tied.config.tie_word_embeddings
    np.testing.assert_allclose(ours(tied), theirs(), atol=1e-5, rtol=1e-4)


def test_a_single_file_beside_an_index_of_others_is_refused(folder: Path):
    single = (folder / "model.safetensors").read_bytes()
    shard(folder)
    (folder / "model.safetensors").write_bytes(single)
    with pytest.raises(
        UserError, match=r"holds both model\.safetensors and model\.safetensors\.index\.json"
    ):
        load_decoder(folder, "float32")


def test_an_index_of_the_single_file_itself_is_no_disagreement(folder: Path):
    names = load_file(folder / "model.safetensors")
    placed = dict.fromkeys(names, "model.safetensors")
    alone = arrays(load_decoder(folder, "float32"))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    for name, array in arrays(load_decoder(folder, "float32")).items():
        np.testing.assert_array_equal(array, alone[name])


def test_replies_end_at_every_end_token_of_the_generation_config(folder: Path):
    assert read_end_tokens(folder, 2) == (2,)
    path = folder / "generation_config.json"
    for listed, expected in (([7, 2, 9], (2, 7, 9)), (5, (2, 5)), (None, (2,)), ([], (2,))):
        path.write_text(json.dumps({"eos_token_id": listed}))
        assert read_end_tokens(folder, 2) == expected
    for wrong in ("2", [2, "3"], [-1], True, {"a": 1}):
        path.write_text(json.dumps({"eos_token_id": wrong}))
        with pytest.raises(UserError, match="eos_token_id must be an id or a list of ids"):
            read_end_tokens(folder, 2)


def test_replies_end_at_the_configs_end_tokens_where_there_are_no_generation_settings(folder: Path):
    settings: dict[str, Any] = read_model_config(folder) | {"eos_token_id": [7, 2, 9]}
    (folder / "config.json").write_text(json.dumps(settings))
    theirs = GenerationConfig.from_model_config(MistralConfig(**settings)).eos_token_id
    assert read_end_tokens(folder, 2) == (2, 7, 9) and set(theirs) == {2, 7, 9}
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 5}))
    assert read_end_tokens(folder, 2) == (2, 5)


def test_a_full_disk_is_told_as_the_system_tells_it(monkeypatch, tmp_path: Path):
    def full(*_, **__):
        raise SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        )

    monkeypatch.setattr(tensors, "save_file", full)
    with pytest.raises(OSError) as raised:
        tensors.save_tensors({"a": np.zeros(1, np.float32)}, tmp_path / "a.safetensors")
    assert raised.value.errno == errno.ENOSPC and raised.value.filename == str(
        tmp_path / "a.safetensors"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused_by_the_tensors_name(folder: Path, value: float):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = value
    save_file(tensors, path)
    with pytest.raises(
        UserError, match=r"holds NaN or infinity.*: model.layers.1.mlp.up_proj.weight$"
    ):
        load_decoder(folder, "float32")
