"""Each reply computed once: losses, gradients and metrics are those of pairs that bring their own
two sequences each, for every method.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import tiny_mistral

from jaxmodpo.data.batches import Batches, Batching
from jaxmodpo.data.comparisons import MOST_REPLIES, Comparisons
from jaxmodpo.data.examples import Examples
from jaxmodpo.data.replies import policy_pairs, reward_pairs, reward_rankings
from jaxmodpo.data.text import PolicyText, RewardText, load_tokenizer
from jaxmodpo.methods.align import with_reference
from jaxmodpo.methods.dpo import DPO
from jaxmodpo.methods.joint import JointDPO
from jaxmodpo.methods.modpo import MODPO
from jaxmodpo.methods.reward_model import RewardLoss
from jaxmodpo.methods.sft import SFT
from jaxmodpo.models.lora import LoraConfig
from jaxmodpo.models.roberta import load_roberta
from jaxmodpo.policy.loaded import Policy, load_policy
from jaxmodpo.records import Candidate, Pair, Ranking
from jaxmodpo.training.policy_loss import PolicyLoss
from jaxmodpo.training.settings import PolicyTrainingConfig
from jaxmodpo.training.step import means

WORDS = ["i", "you", "hear", "feel", "alone", "hope", "night", "call", "talk", "sleep", "help"]


def rankings(seed: int, questions: int = 2, replies: int = 5) -> list[Ranking]:
    """Return one objective's rankings; another seed ranks the same replies otherwise."""
    texts = np.random.default_rng(0)
    order = np.random.default_rng(seed)
    ranking_list: list[Ranking] = []
    for question in range(questions):
        candidates = [
            Candidate(f"r{number}", " ".join(texts.choice(WORDS, texts.integers(3, 12))))
            for number in range(replies)
        ]
        shuffled = tuple(candidates[number] for number in order.permutation(replies))
        ranking_list.append(Ranking(f"q{question}", " ".join(texts.choice(WORDS, 6)), shuffled))
    return ranking_list


def all_pairs(ranked: Sequence[Ranking]) -> list[Pair]:
    pairs: list[Pair] = []
    for ranking in ranked:
        for better, worse in itertools.combinations(ranking.candidates, 2):
            pairs.append(Pair(ranking.question_id, ranking.question_text, better, worse))
    return pairs


def pair_by_pair(comparisons: Comparisons, **reply_values: np.ndarray) -> Examples:
    """Return the brute-force form: a comparison is an example with its own sequences, and what is
    known of a reply is repeated likewise.
    """
    replies = comparisons.replies
    # A ranking's empty place holds any reply; its rank of 0 says so.
    rows = np.maximum(comparisons.rows, 0)
    fields = dict(comparisons.fields)
    for name, values in reply_values.items():
        fields[name] = values[rows]
    return Examples(
        replies.tokens[rows, 0], replies.prompt_lengths[rows, 0], replies.lengths[rows, 0], fields
    )


def reply_numbers(comparisons: Comparisons) -> np.ndarray:
    """Return a number for each reply in the place of a reference's log-probability."""
    return np.random.default_rng(5).normal(-20, 4, len(comparisons.replies)).astype(np.float32)


def with_numbers(comparisons: Comparisons, numbers: np.ndarray) -> Examples:
    """Return the questions with the same numbers as their replies' ``reference_logps``."""
    questions = comparisons.by_question()
    values = np.zeros(questions.examples.lengths.shape, np.float32)
    for row, example, positions in zip(
        comparisons.rows, questions.example_of, questions.places, strict=True
    ):
        values[example, positions] = numbers[row]
    return questions.examples.with_fields(reference_logps=values)


def measured(loss: Any, trainable: Any, frozen: Any, examples: Examples, batching: Batching) -> Any:
    """Return mean loss and metrics, and the gradient of the mean, over all examples at once."""
    batches = Batches(examples, batch_size=len(examples), batching=batching)
    batch = {name: jnp.asarray(array[0]) for name, array in batches.at(0).items()}

    def total(parameters: Any) -> Any:
        terms = loss(parameters, frozen, batch, None)
        return terms.total, terms

    (_, terms), gradients = jax.jit(jax.value_and_grad(total, has_aux=True))(trainable)
    scaled = jax.tree.map(lambda gradient: np.asarray(gradient / terms.denominator), gradients)
    return {name: float(value) for name, value in means(terms).items()}, scaled


def assert_same(ours: Any, brute_force: Any, tolerance: float = 1e-6) -> None:
    """Assert equal losses and metrics, and equal gradients of all parameters together."""
    assert ours[0].keys() == brute_force[0].keys()
    for name, value in brute_force[0].items():
        assert ours[0][name] == pytest.approx(value, rel=tolerance, abs=1e-7), name
    ours_flat, expected = (
        np.concatenate([array.ravel() for _, array in sorted(side[1].items())])
        for side in (ours, brute_force)
    )
    assert np.linalg.norm(expected) > 0
    assert np.linalg.norm(ours_flat - expected) <= tolerance * np.linalg.norm(expected)


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> tuple[Policy, PolicyText]:
    folder = tiny_mistral(tmp_path_factory.mktemp("base") / "model", " ".join(WORDS), gain=2.0)
    loaded = load_policy(folder, base_dtype="float32", fresh=LoraConfig(4, 8.0, 0.0))
    # A fresh adapter is zero, and half of its gradients are.
    keys = jax.random.split(jax.random.key(1), len(loaded.adapter))
    moved = {
        name: array + 0.1 * jax.random.normal(key, array.shape)
        for key, (name, array) in zip(keys, loaded.adapter.items(), strict=True)
    }
    return loaded.with_parameters(moved), PolicyText(load_tokenizer(folder))


@pytest.mark.slow(seconds=12)
@pytest.mark.parametrize(
    ("name", "batching"),
    [
        ("sft", "packed"),
        ("dpo", "packed"),
        ("dpo", "padded"),
        ("ipo", "packed"),
        ("modpo", "packed"),
        ("joint", "packed"),
    ],
)
def test_a_policys_loss_and_gradient_are_those_of_pairs_with_sequences_of_their_own(
    policy, name, batching
):
    loaded, text = policy
    first, second = all_pairs(rankings(1)), all_pairs(rankings(2))
    pair_sets = [first, second] if name == "joint" else [first]
    comparisons = policy_pairs(pair_sets, text, chosen_only=name == "sft")
    methods: dict[str, Any] = {
        "sft": SFT(),
        "dpo": DPO(0.3, 0.1, sft_weight=0.5),
        "ipo": DPO(0.3, link="ipo"),
        "modpo": MODPO(0.3, (0.6, 0.4)),
        "joint": JointDPO(0.3, (0.6, 0.4), sft_weight=0.5),
    }
    if name == "modpo":
        margins = np.random.default_rng(3).normal(size=(len(comparisons), 1)).astype(np.float32)
        comparisons = comparisons.with_fields(reward_margins=margins)
    loss = PolicyLoss(loaded.config, loaded.lora, methods[name], loaded.attention, "none")
    numbers = reply_numbers(comparisons)
    ours = with_numbers(comparisons, numbers)
    brute_force = pair_by_pair(comparisons, reference_logps=numbers)
    assert (ours.lengths > 0).sum() < (brute_force.lengths > 0).sum()
    assert ours.tokens.shape[1] <= 5
    assert_same(
        measured(loss, loaded.adapter, loaded.base, ours, batching),
        measured(loss, loaded.adapter, loaded.base, brute_force, batching),
    )


@pytest.mark.slow(seconds=6)
@pytest.mark.parametrize(("whole", "batching"), [(False, "packed"), (True, "padded")])
def test_a_reward_models_loss_and_gradient_are_those_of_comparisons_with_sequences_of_their_own(
    tiny_world, whole, batching
):
    model = load_roberta(tiny_world / "roberta", fresh_head_seed=0)
    text = RewardText(load_tokenizer(tiny_world / "roberta"), 64, model.config.vocab_size)
    ranked = rankings(1)
    # Rankings of other lengths, and a question that two people ranked.
    ranked[1] = Ranking(ranked[1].question_id, ranked[1].question_text, ranked[1].candidates[:3])
    ranked.append(
        Ranking(ranked[0].question_id, ranked[0].question_text, ranked[0].candidates[::-1])
    )
    comparisons = reward_rankings(ranked, text) if whole else reward_pairs(all_pairs(ranked), text)
    questions = comparisons.by_question()
    assert len(questions.examples) == 2
    # Five times as large: of weights as small as fresh ones all rewards are equal but for a hundred
    # thousandth, and what is left of them after a subtraction has few digits.
    parameters = {name: 5 * variable[...] for name, variable in model.parameters.items()}
    loss = RewardLoss(model.config, has_dropout=False)
    assert_same(
        measured(loss, parameters, {}, questions.examples, batching),
        measured(loss, parameters, {}, pair_by_pair(comparisons), batching),
        tolerance=1e-5,
    )


def test_questions_are_grouped_by_id_and_prompt_in_any_order_and_equal_texts_are_one_reply(policy):
    _, text = policy
    pairs = all_pairs(rankings(1))
    other_prompt = Pair("q0", "another prompt", pairs[0].chosen, pairs[0].rejected)
    renamed = Pair(
        "q1",
        pairs[-1].question_text,
        Candidate("new id", pairs[-1].chosen.response_text),
        pairs[-1].rejected,
    )
    mixed = [*pairs[::2], other_prompt, renamed, *pairs[1::2]]
    comparisons = policy_pairs([mixed], text)
    questions = comparisons.by_question()
    examples = questions.examples
    assert (examples.lengths > 0).sum(1).tolist() == [5, 5, 2]
    assert examples.fields["comparison_weights"].sum(1).tolist() == [10, 11, 1]
    # Every pair finds its own two replies again.
    for number, pair in enumerate(mixed):
        for row, candidate in enumerate((pair.chosen, pair.rejected)):
            tokens, prompt = text.example(pair.question_text, candidate.response_text)
            example, slot = questions.example_of[number], questions.places[number, row]
            assert examples.prompt_lengths[example, slot] == prompt
            length = examples.lengths[example, slot]
            assert examples.tokens[example, slot, :length].tolist() == tokens


def test_one_pair_a_question_stands_as_it_is_chosen_before_rejected(policy):
    _, text = policy
    pairs = all_pairs(rankings(1))[::10]
    examples = policy_pairs([pairs], text).by_question().examples
    assert examples.fields["comparisons"].tolist() == [[[0, 1]]] * 2
    for example, pair in enumerate(pairs):
        for row, candidate in enumerate((pair.chosen, pair.rejected)):
            tokens, _ = text.example(pair.question_text, candidate.response_text)
            assert examples.tokens[example, row, : len(tokens)].tolist() == tokens


def test_a_question_of_too_many_replies_becomes_several_examples_that_lose_no_pair(policy):
    _, text = policy
    pairs = all_pairs(rankings(1, questions=1, replies=12))
    comparisons = policy_pairs([pairs], text)
    questions = comparisons.by_question()
    lengths = questions.examples.lengths
    assert len(pairs) == 66 and lengths.shape[1] == MOST_REPLIES
    assert questions.examples.fields["comparison_weights"].sum() == 66
    assert (lengths > 0).sum() < 66, "still far fewer than two for each pair"
    lengths_of_pairs = questions.of_comparisons(lengths)
    np.testing.assert_array_equal(
        lengths_of_pairs, comparisons.replies.lengths[comparisons.rows, 0]
    )


def test_other_pairs_of_the_same_replies_recompute_no_reference(policy, tmp_path, monkeypatch):
    loaded, text = policy
    config = PolicyTrainingConfig(
        model=tmp_path / "base", output_dir=tmp_path / "out", cache_dir=tmp_path / "cache"
    )
    monkeypatch.setattr("jaxmodpo.methods.align.fingerprint", lambda _: "the base")
    by_empathy = policy_pairs([all_pairs(rankings(1))], text).by_question()
    scored = with_reference(loaded, by_empathy.examples, config).fields["reference_logps"]
    assert scored.shape == (2, 5)
    monkeypatch.setattr(Policy, "logps", lambda *_, **__: pytest.fail("computed again"))
    # Another criterion prefers otherwise, and a pair is left out.
    by_safety = policy_pairs([all_pairs(rankings(2))[:-1]], text).by_question()
    np.testing.assert_array_equal(
        with_reference(loaded, by_safety.examples, config).fields["reference_logps"], scored
    )


@pytest.mark.parametrize("batching", ["packed", "padded"])
def test_replies_that_a_question_does_not_have_take_no_room(policy, batching):
    _, text = policy
    ranked = [*rankings(1, questions=1), *rankings(1, questions=9, replies=2)[1:]]
    examples = policy_pairs([all_pairs(ranked)], text).by_question().examples
    assert examples.lengths.shape == (9, 5) and (examples.lengths > 0).sum() == 21
    batches = Batches(examples, batch_size=3, epochs=2, batching=batching)
    positions = sum(
        batch["segments"].astype(bool).sum() for batch in batches if "segments" in batch
    )
    assert positions == (2 * examples.lengths.sum() if batching == "packed" else 0)
    # Padded, the fullest batch has a question of five replies and two pairs.
    assert batches.shape.rows <= 9
    for batch in Batches(examples, batch_size=3, batching=batching):
        weights = batch["row_weights"][0][:, None] * batch["comparison_weights"][0]
        example, number = np.nonzero(weights)
        replies = batch["comparisons"][0][example, number]
        places = batch["places"][0][example[:, None], replies]
        # A pair's replies lie in two places, and no other question's pair has them.
        assert (places[:, 0] != places[:, 1]).all()
        for position in np.unique(places):
            assert len(np.unique(example[(places == position).any(1)])) == 1
