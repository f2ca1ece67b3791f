"""Our models against transformers' and PEFT's, on tiny random weights in the real file formats."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference models need torch")
import transformers  # noqa: E402

from jaxmodpo.bench.parity import CASES, compare  # noqa: E402
from jaxmodpo.errors import UserError  # noqa: E402
from jaxmodpo.models.adapters import load_adapter, save_adapter  # noqa: E402
from jaxmodpo.models.attention import Attention  # noqa: E402
from jaxmodpo.models.cached_attention import BLOCK  # noqa: E402
from jaxmodpo.models.decoder import Decoder, load_decoder, parameter_table, save_decoder  # noqa: E402
from jaxmodpo.models.lora import LoraConfig, adapter_table, average  # noqa: E402
from jaxmodpo.models.parameters import initialize  # noqa: E402
from jaxmodpo.models.roberta import load_roberta, save_roberta  # noqa: E402
from jaxmodpo.models.roberta_config import RobertaConfig  # noqa: E402

VOCABULARY = 99


def mistral_folder(folder: Path, **changes) -> transformers.MistralForCausalLM:
    torch.manual_seed(0)
    settings: dict = dict(  # noqa: C408 (keyword arguments of the class below)
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=0.2,
        sliding_window=None,
        rope_parameters={"rope_theta": 1e6, "rope_type": "default"},
    )
    model = transformers.MistralForCausalLM(
        transformers.MistralConfig(**(settings | changes))
    ).eval()
    model.save_pretrained(folder)
    return model


def roberta_folder(folder: Path, kind, **changes):
    torch.manual_seed(0)
    settings: dict = dict(  # noqa: C408 (keyword arguments of the class below)
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=40,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        initializer_range=0.2,
    )
    model = kind(transformers.RobertaConfig(**(settings | changes))).eval()
    model.save_pretrained(folder)
    return model


def assert_relative(ours, theirs, tolerance: float = 1e-4) -> None:
    theirs = np.asarray(theirs)
    assert np.abs(np.asarray(ours) - theirs).max() <= tolerance * np.abs(theirs).max()


TOKENS = np.random.default_rng(0).integers(0, VOCABULARY, (3, 17))


@pytest.mark.slow(seconds=2)
@pytest.mark.parametrize("name", CASES)
def test_models_equal_transformers_over_the_grid(tmp_path: Path, name: str):
    differences = compare(CASES[name], tmp_path)
    assert differences.logits < 1e-4
    assert differences.logps is None or differences.logps < 1e-3
    assert differences.bfloat16 < 1.5


@pytest.mark.parametrize(
    "changes", [{"sliding_window": 6}, {"rope_parameters": {"rope_theta": 2e6}}, {"head_dim": 16}]
)
def test_the_comparison_sees_a_wrong_configuration(tmp_path: Path, changes: dict):
    mistral_folder(tmp_path, sliding_window=5)
    right = load_decoder(tmp_path, "float32")
    logits = right.logits(right.hidden_states(jnp.asarray(TOKENS)))
    rewrite_config(tmp_path, **changes)
    if "head_dim" in changes:
        with pytest.raises(UserError, match="q_proj"):
            load_decoder(tmp_path, "float32")
        return
    wrong = load_decoder(tmp_path, "float32")
    assert (
        np.abs(wrong.logits(wrong.hidden_states(jnp.asarray(TOKENS))) - logits).max()
        > 1e-2 * np.abs(logits).max()
    )


@pytest.mark.slow(seconds=2)
def test_log_probabilities_in_chunks_are_those_of_the_logits(tmp_path: Path):
    mistral_folder(tmp_path)
    model = load_decoder(tmp_path, "float32")
    logits = np.asarray(model.logits(model.hidden_states(jnp.asarray(TOKENS))), np.float64)
    logps = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = np.take_along_axis(logps[:, :-1], TOKENS[:, 1:, None], -1)[..., 0]
    for chunk in (4, 16, 100, None):
        ours = np.asarray(model.token_logps(jnp.asarray(TOKENS), chunk=chunk))
        np.testing.assert_allclose(ours[:, 1:], expected, atol=1e-5, rtol=1e-5)
        assert (ours[:, 0] == 0).all()


@pytest.mark.slow(seconds=2)
@pytest.mark.parametrize("backend", ["xla", "splash"])
def test_sequences_packed_into_a_row_are_as_if_each_had_its_own(tmp_path: Path, backend: str):
    mistral_folder(tmp_path, sliding_window=5, head_dim=128 if backend == "splash" else 8)
    model = load_decoder(tmp_path, "float32")
    model.attention = Attention(backend, interpret=True)  # type: ignore[arg-type]
    first, second = TOKENS[0, :9], TOKENS[1, :7]
    packed = jnp.asarray([[*first, *second, 0]])
    segments = jnp.asarray([[1] * 9 + [2] * 7 + [0]])
    positions = jnp.asarray([[*range(9), *range(7), 0]])
    hidden = model.hidden_states(packed, segments_BT=segments, positions_BT=positions)[0]
    alone = [model.hidden_states(jnp.asarray([row]))[0] for row in (first, second)]
    assert_relative(hidden[:9], alone[0], 1e-5)
    assert_relative(hidden[9:16], alone[1], 1e-5)


@pytest.mark.slow(seconds=2)
@pytest.mark.parametrize("window", [None, 5])
def test_cached_decoding_gives_the_logits_of_a_full_pass(tmp_path: Path, window: int | None):
    mistral_folder(tmp_path, sliding_window=window)
    model = load_decoder(tmp_path, "float32")
    full = model.logits(model.hidden_states(jnp.asarray(TOKENS)))
    lengths = np.array([9, 4, 6])  # prompts of different lengths, padded on the right
    prompt = np.where(np.arange(9) < lengths[:, None], TOKENS[:, :9], 0)
    cache = model.empty_cache(3, BLOCK)
    _, cache = model.extend(jnp.asarray(prompt), jnp.broadcast_to(jnp.arange(9), (3, 9)), cache)
    for step in range(8):
        places = lengths + step
        new = TOKENS[np.arange(3), places]
        hidden, cache = model.extend(jnp.asarray(new[:, None]), jnp.asarray(places[:, None]), cache)
        assert_relative(model.logits(hidden)[:, 0], full[np.arange(3), places])


@pytest.mark.slow(seconds=4)
def test_gradients_through_remat_and_chunks_equal_the_plain_ones(tmp_path: Path):
    mistral_folder(tmp_path)
    model = load_decoder(tmp_path, "float32")
    base = {name: variable[...] for name, variable in model.base.items()}
    lora = LoraConfig(rank=3, alpha=6.0, dropout=0.0)
    adapter = jax.tree.map(
        lambda a: a + 0.05,
        initialize(adapter_table(parameter_table(model.config), lora), jax.random.key(0)),
    )

    def chunked(adapter):
        return (
            Decoder(model.config, base, lora, adapter)
            .token_logps(jnp.asarray(TOKENS), remat="full", chunk=5)
            .sum()
        )

    def plain(adapter):
        policy = Decoder(model.config, base, lora, adapter)
        logps = jax.nn.log_softmax(policy.logits(policy.hidden_states(jnp.asarray(TOKENS))))[:, :-1]
        return jnp.take_along_axis(logps, jnp.asarray(TOKENS)[:, 1:, None], -1).sum()

    ours = jax.jit(jax.grad(chunked))(adapter)
    expected = jax.jit(jax.grad(plain))(adapter)
    for name in expected:
        assert_relative(ours[name], expected[name], 1e-4)


@pytest.mark.slow(seconds=2)
@pytest.mark.parametrize(
    "lora",
    [
        LoraConfig(rank=4, alpha=6.0, dropout=0.1),
        LoraConfig(rank=4, alpha=6.0, dropout=0.0, rslora=True),
        LoraConfig(rank=2, alpha=3.0, dropout=0.0, targets=("q_proj", "v_proj")),
    ],
    ids=["plain", "rslora", "subset"],
)
def test_adapters_load_in_peft_and_peft_adapters_load_here(tmp_path: Path, lora: LoraConfig):
    peft = pytest.importorskip("peft", reason="compares with PEFT")
    theirs = mistral_folder(tmp_path / "model")
    ours = load_decoder(tmp_path / "model", "float32")
    base = {name: variable[...] for name, variable in ours.base.items()}
    adapter = initialize(adapter_table(parameter_table(ours.config), lora), jax.random.key(1))
    adapter = {
        n: a + 0.1 * jax.random.normal(jax.random.key(2), a.shape) for n, a in adapter.items()
    }
    save_adapter(tmp_path / "adapter", adapter, lora, ours.config, "somewhere")

    adapted = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    policy = Decoder(ours.config, base, lora, adapter)
    with torch.no_grad():
        expected = adapted(torch.tensor(TOKENS)).logits
    logits = policy.logits(policy.hidden_states(jnp.asarray(TOKENS)))
    assert_relative(logits, expected)
    assert (
        np.abs(
            np.asarray(logits) - np.asarray(ours.logits(ours.hidden_states(jnp.asarray(TOKENS))))
        ).max()
        > 0.1
    )

    adapted.save_pretrained(tmp_path / "theirs")
    config, loaded = load_adapter(tmp_path / "theirs", ours.config, tmp_path)
    assert config == lora
    for name, array in adapter.items():
        np.testing.assert_array_equal(np.asarray(loaded[name]), np.asarray(array))


@pytest.mark.slow(seconds=3)
def test_a_fresh_adapter_changes_nothing_to_the_last_bit(tmp_path: Path):
    mistral_folder(tmp_path)
    for dtype in ("float32", "bfloat16"):
        model = load_decoder(tmp_path, dtype)
        base = {name: variable[...] for name, variable in model.base.items()}
        lora = LoraConfig(rank=4, alpha=8.0, dropout=0.5)
        fresh = initialize(adapter_table(parameter_table(model.config), lora), jax.random.key(1))
        zeros = jax.tree.map(jnp.zeros_like, fresh)

        @jax.jit
        def logps(adapter, base=base, model=model, lora=lora):
            return Decoder(model.config, base, lora, adapter).token_logps(jnp.asarray(TOKENS))

        np.testing.assert_array_equal(np.asarray(logps(fresh)), np.asarray(logps(zeros)))


@pytest.mark.slow(seconds=2)
def test_dropout_leaves_the_adapters_mean_and_is_off_without_a_key(tmp_path: Path):
    mistral_folder(tmp_path)
    model = load_decoder(tmp_path, "float32")
    base = {name: variable[...] for name, variable in model.base.items()}
    lora = LoraConfig(rank=4, alpha=0.4, dropout=0.3, targets=("down_proj",))
    adapter = initialize(adapter_table(parameter_table(model.config), lora), jax.random.key(1))
    adapter["down_proj.B"] = 0.1 * jax.random.normal(
        jax.random.key(2), adapter["down_proj.B"].shape
    )
    policy = Decoder(model.config, base, lora, adapter)
    tokens = jnp.asarray(TOKENS)
    # The last layer's output is linear in its adapter's input, up to the norm: small alpha keeps it
    # nearly so.
    hidden_states = jax.vmap(lambda key: policy.hidden_states(tokens, key))(
        jax.random.split(jax.random.key(0), 400)
    )
    still = policy.hidden_states(tokens)
    spread = np.asarray(hidden_states.std(0))
    assert spread.max() > 1e-3
    assert np.abs(np.asarray(hidden_states.mean(0) - still)).max() < 6 * spread.max() / 20


@pytest.mark.slow(seconds=2)
def test_average_is_the_exact_mean_of_the_deltas(tmp_path: Path):
    mistral_folder(tmp_path)
    config = load_decoder(tmp_path, "float32").config
    adapters, deltas = [], []
    for seed, (rank, alpha) in enumerate([(2, 4.0), (5, 1.0)]):
        lora = LoraConfig(rank=rank, alpha=alpha, dropout=0.0)
        arrays = initialize(adapter_table(parameter_table(config), lora), jax.random.key(seed))
        arrays = {n: a + jax.random.normal(jax.random.key(7), a.shape) for n, a in arrays.items()}
        adapters.append((lora, arrays))
        deltas.append({n: lora.scale * arrays[f"{n}.A"] @ arrays[f"{n}.B"] for n in lora.targets})
    merged_config, merged = average(adapters, [0.3, 0.7])
    for name in merged_config.targets:
        ours = merged_config.scale * merged[f"{name}.A"] @ merged[f"{name}.B"]
        assert_relative(ours, 0.3 * deltas[0][name] + 0.7 * deltas[1][name], 1e-6)


def test_saved_mistral_is_the_same_model_in_transformers(tmp_path: Path):
    mistral_folder(tmp_path / "a")
    model = load_decoder(tmp_path / "a", "float32")
    save_decoder(tmp_path / "b", model, json.loads((tmp_path / "a" / "config.json").read_text()))
    first, second = (transformers.AutoModelForCausalLM.from_pretrained(tmp_path / x) for x in "ab")
    for (name, p), (_, q) in zip(first.named_parameters(), second.named_parameters(), strict=True):
        assert torch.equal(p, q), name


@pytest.mark.slow(seconds=2)
def test_roberta_language_model_head_equals_transformers(tmp_path: Path):
    theirs = roberta_folder(tmp_path, transformers.RobertaForMaskedLM)
    from jaxmodpo.models import roberta
    from jaxmodpo.models.loading import load_parameters

    config = RobertaConfig.from_mapping(
        json.loads((tmp_path / "config.json").read_text()), "", head="language_model"
    )
    parameters = load_parameters(tmp_path, roberta.parameter_table(config), np.float32)
    tokens = np.random.default_rng(0).integers(4, VOCABULARY, (2, 11))
    with torch.no_grad():
        expected = theirs(torch.tensor(tokens)).logits
    assert_relative(
        roberta.Roberta(config, parameters)(jnp.asarray(tokens), jnp.asarray([11, 11])), expected
    )


@pytest.mark.slow(seconds=2)
def test_reward_model_from_a_pretrained_encoder_loads_in_transformers(tmp_path: Path):
    roberta_folder(tmp_path / "mlm", transformers.RobertaForMaskedLM)
    model = load_roberta(tmp_path / "mlm", fresh_head_seed=3)
    save_roberta(
        tmp_path / "reward", model, json.loads((tmp_path / "mlm" / "config.json").read_text())
    )
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "reward"
    ).eval()
    tokens = np.random.default_rng(0).integers(4, VOCABULARY, (2, 11))
    with torch.no_grad():
        expected = theirs(torch.tensor(tokens)).logits
    assert expected.shape == (2, 1)
    assert_relative(model.rewards(jnp.asarray(tokens), jnp.asarray([11, 11])), expected[:, 0])
    again = load_roberta(tmp_path / "reward")
    assert again.config.num_labels == 1


def rewrite_config(folder: Path, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("stale", "outputs"),
    [
        ({"num_labels": 1}, 1),
        ({"num_labels": 3}, 3),
        ({"num_labels": 3, "id2label": {"0": "only"}}, 3),
        ({"id2label": {"0": "only"}}, 1),
        ({}, 2),
    ],
)
def test_a_classifier_has_as_many_outputs_as_transformers_reads_in_its_configuration(
    tmp_path: Path, stale, outputs
):
    roberta_folder(tmp_path, transformers.RobertaForMaskedLM)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps({k: v for k, v in settings.items() if k != "id2label"} | stale)
    )
    assert transformers.AutoConfig.from_pretrained(tmp_path).num_labels == outputs
    assert (
        RobertaConfig.from_mapping(
            json.loads((tmp_path / "config.json").read_text()), ""
        ).num_labels
        == outputs
    )


@pytest.mark.parametrize(
    "stale", [{"num_labels": 2}, {"problem_type": "single_label_classification"}]
)
def test_what_a_base_says_of_another_head_is_not_written_beside_a_reward_models(
    tmp_path: Path, stale
):
    roberta_folder(tmp_path / "mlm", transformers.RobertaForMaskedLM)
    rewrite_config(tmp_path / "mlm", **stale)
    model = load_roberta(tmp_path / "mlm", fresh_head_seed=3)
    save_roberta(
        tmp_path / "reward", model, json.loads((tmp_path / "mlm" / "config.json").read_text())
    )
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "reward"
    ).eval()
    assert theirs.config.num_labels == load_roberta(tmp_path / "reward").config.num_labels == 1


def test_a_classifier_of_several_outputs_is_no_base_of_a_reward_model(tmp_path: Path):
    roberta_folder(tmp_path, transformers.RobertaForSequenceClassification, num_labels=2)
    with pytest.raises(
        UserError, match="is a classifier with 2 outputs, and a reward model has one"
    ):
        load_roberta(tmp_path, fresh_head_seed=0)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: rewrite_config(f, model_type="gpt2"), "gpt2"),
        (lambda f: rewrite_config(f, hidden_act="gelu"), "gelu"),
        (lambda f: rewrite_config(f, rope_parameters={"rope_type": "yarn"}), "yarn"),
        (
            lambda f: rewrite_config(f, intermediate_size=40),
            r"gate_proj.*\[48, 32\], not \[40, 32\]",
        ),
        (lambda f: rewrite_config(f, num_hidden_layers=4), r"missing model.layers.3"),
        (lambda f: rewrite_config(f, num_hidden_layers=2), r"unexpected model.layers.2"),
        (lambda f: (f / "model.safetensors").unlink(), "no model.safetensors"),
        (
            lambda f: (f / "model.safetensors").write_bytes(
                (f / "model.safetensors").read_bytes()[:500]
            ),
            "corrupt",
        ),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "pickle"),
    ],
)
def test_a_folder_that_is_not_this_model_is_refused_by_name(tmp_path: Path, spoil, said: str):
    mistral_folder(tmp_path)
    spoil(tmp_path)
    with pytest.raises(UserError, match=said):
        load_decoder(tmp_path, "float32")
