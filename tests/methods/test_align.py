"""What all methods of alignment share: which tokens are read from the cache."""

from __future__ import annotations

from jaxmodpo.data.text import PolicyText, load_tokenizer
from jaxmodpo.methods.align import policy_comparisons
from jaxmodpo.records import Candidate, Pair
from jaxmodpo.training.settings import PolicyTrainingConfig


def test_tokens_are_known_by_the_control_tokens_that_cut_them(tiny_world, tmp_path):
    model = tiny_world / "mistral"
    text = PolicyText(load_tokenizer(model))
    config = PolicyTrainingConfig(model=model, output_dir=tmp_path / "out", cache_dir=tmp_path)
    pairs = [Pair("q", "I feel low", Candidate("a", "I hear you."), Candidate("b", "No."))]
    for _ in range(2):
        policy_comparisons([pairs], text, config)
    assert len(list(tmp_path.iterdir())) == 1
    text.control_tokens = text.control_tokens[1:]
    policy_comparisons([pairs], text, config)
    assert len(list(tmp_path.iterdir())) == 2
