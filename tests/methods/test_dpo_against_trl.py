"""The whole DPO loss, model and adapter included, against TRL's trainer on the same batch."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodpo.methods.dpo import DPO
from jaxmodpo.models.completions import sequence_logps
from jaxmodpo.policy.loaded import load_policy
from jaxmodpo.sandbox.models import save_tokenizer
from jaxmodpo.training.policy_loss import PolicyLoss

ROWS = [
    ("how are you ?", "fine thanks .", "bad ."),
    ("what now ?", "go on .", "no idea what now ."),
]


@pytest.mark.slow
def test_dpo_loss_and_gradient_equal_trls_on_one_batch(tmp_path: Path):
    # Imported here and not above: every worker that collects the tests would wait for them.
    torch = pytest.importorskip("torch", reason="TRL needs torch")
    trl = pytest.importorskip("trl", reason="compares with TRL")
    peft = pytest.importorskip("peft", reason="compares with TRL on a PEFT adapter")
    import datasets
    import transformers

    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    save_tokenizer(tmp_path / "model", [text for row in ROWS for text in row], special)
    torch.manual_seed(0)
    shape = transformers.MistralConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
    )
    base = transformers.MistralForCausalLM(shape)
    base.save_pretrained(tmp_path / "model")
    lora = peft.LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        init_lora_weights=False,
    )
    arguments = trl.DPOConfig(
        output_dir=str(tmp_path / "trl"),
        per_device_train_batch_size=2,
        beta=0.3,
        report_to=[],
        use_cpu=True,
        bf16=False,
    )
    rows = [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in ROWS]
    trainer = trl.DPOTrainer(
        base,
        args=arguments,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=transformers.AutoTokenizer.from_pretrained(tmp_path / "model"),
        peft_config=lora,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.eval()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    trainer.model.save_pretrained(tmp_path / "adapter")

    policy = load_policy(tmp_path / "model", base_dtype="float32", adapter=tmp_path / "adapter")
    ours = _batch(batch)
    reference_loss = PolicyLoss(
        policy.config, policy.lora, DPO(0.3, 0.0), policy.attention, remat="none"
    )
    ours["reference_logps"] = _logps(policy.base, policy.zero_adapter, ours, policy)

    (value, _), gradients = jax.value_and_grad(
        lambda a: _mean(reference_loss(a, policy.base, ours, None)), has_aux=True
    )(policy.adapter)
    np.testing.assert_allclose(float(value), loss.item(), rtol=1e-5)
    theirs = {n: p.grad.numpy() for n, p in trainer.model.named_parameters() if p.grad is not None}
    for layer in range(2):
        for part in "AB":
            name = f"base_model.model.model.layers.{layer}.mlp.down_proj.lora_{part}.default.weight"
            expected = theirs[name].T
            np.testing.assert_allclose(
                np.asarray(gradients[f"down_proj.{part}"][layer]),
                expected,
                rtol=1e-3,
                atol=1e-5 * abs(expected).max(),
            )


def _batch(batch) -> dict:
    """TRL's collated tensors, chosen rows first, as our padded rows and their places."""
    tokens, completion = batch["input_ids"].numpy(), batch["completion_mask"].numpy()
    assert (batch["attention_mask"].numpy()[:, 0] == 1).all(), "TRL is expected to pad on the right"
    pairs = len(tokens) // 2
    prompts = completion.argmax(1)
    lengths = prompts + completion.sum(1)

    return {
        "tokens": jnp.asarray(tokens),
        "prompt_lengths": jnp.asarray(prompts),
        "lengths": jnp.asarray(lengths),
        "places": jnp.stack([jnp.arange(pairs), pairs + jnp.arange(pairs)], axis=1),
        "row_weights": jnp.ones(pairs),
    }


def _logps(base, adapter, batch, policy):
    arrays = {name: batch[name] for name in ("tokens", "prompt_lengths", "lengths", "places")}
    return sequence_logps(
        base, adapter, arrays, config=policy.config, lora=policy.lora, attention=policy.attention
    )


def _mean(terms):
    return terms.total / terms.denominator, terms
