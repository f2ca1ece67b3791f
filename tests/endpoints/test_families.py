"""What models take and cost: prices by hand, the first fitting family, and the user's mistakes by
row.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmodpo.endpoints.families import Families, Family
from jaxmodpo.endpoints.usage import Usage
from jaxmodpo.errors import UserError

OURS = Families.load()


def table(tmp_path, text: str):
    (tmp_path / "models.yaml").write_text(text)
    return tmp_path / "models.yaml"


def test_a_calls_price_is_that_of_its_fresh_its_cached_and_its_answers_tokens():
    family = Family("m", prompt=2.0, cached=0.5, answer=8.0)
    # 600 fresh, 400 cached, 50 of the answer: 1200 + 200 + 400 millionths.
    assert family.cost(Usage(1000, 400, 50)) == pytest.approx(1800e-6, rel=1e-12)
    assert family.cost(Usage()) == 0.0


def test_without_a_price_of_cached_tokens_they_cost_what_others_do_and_without_another_nothing_is_known():
    assert Family("m", prompt=2.0, answer=8.0).cost(Usage(1000, 400, 50)) == pytest.approx(
        2400e-6, rel=1e-12
    )
    assert Family("m", prompt=2.0).cost(Usage(1, 0, 1)) is None
    assert Family("m", answer=2.0, cached=1.0).cost(Usage(1, 0, 1)) is None
    assert Family("m", prompt=0.0, answer=0.0).cost(Usage(9, 0, 9)) == 0.0, "free is a price"


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_what_was_cached_never_makes_a_call_dearer(prompt, cached, completion):
    cached = min(cached, prompt)
    for row in OURS.rows:
        cost, uncached = (
            row.cost(Usage(prompt, cached, completion)),
            row.cost(Usage(prompt, 0, completion)),
        )
        if cost is not None and uncached is not None:
            assert 0 <= cost <= uncached * (1 + 1e-12)


def test_the_first_family_that_fits_a_name_counts():
    assert OURS.of("gpt-5-mini-2025-08-07").match == "gpt-5-mini-20*"
    # A sibling is no cheaper for its name: nobody knows its price.
    for sibling in ("gpt-5.1", "gpt-5-pro", "o3-pro", "gpt-4-turbo"):
        assert OURS.of(sibling).prompt is None and OURS.of(sibling).limit == "max_completion_tokens"
    assert not OURS.of("gpt-5-pro").temperature
    assert OURS.of("gpt-5-chat-latest").withdrawn == "July 2026"
    assert not OURS.of("gpt-5").temperature and OURS.of("gpt-4o").temperature
    unknown = OURS.of("mistral-7b")
    assert (unknown.temperature, unknown.limit, unknown.prompt) == (True, "max_tokens", None)
    assert OURS.batch_discount == 0.5 and OURS.as_of


def test_a_table_of_ones_own(tmp_path):
    own = Families.load(
        table(tmp_path, "as_of: today\nfamilies: [{match: 'a*', prompt: 1, answer: 2.5}]")
    )
    assert own.of("abc").cost(Usage(10**6, 0, 10**6)) == 3.5
    assert (own.batch_discount, own.as_of) == (0.0, "today")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("famlies: []", r"models\.yaml: unknown key 'famlies'; did you mean 'families'"),
        ("as_of: now", r"models\.yaml lacks the field 'families'"),
        ("families: {}", "families must be a list, not {}"),
        (
            "batch_discount: 50\nfamilies: []",
            "batch_discount must be a number from 0 to below 1, not 50",
        ),
        (
            "batch_discount: half\nfamilies: []",
            'batch_discount must be a number from 0 to below 1, not "half"',
        ),
        ("families: [gpt]", 'families, item 1 must be a mapping with texts as keys, not "gpt"'),
        ("families: [{match: a}, {prompt: 1}]", "families, item 2 lacks the field 'match'"),
        ("families: [{match: 5}]", "families, item 1, match must be a text, not 5"),
        (
            "families: [{match: a, promt: 1}]",
            "families, item 1: unknown key 'promt'; did you mean 'prompt'",
        ),
        ("families: [{match: a, prompt: -1}]", "item 1, prompt must be a number from 0, not -1"),
        (
            "families: [{match: a, cached: free}]",
            'cached must be a number from 0 or null, not "free"',
        ),
        (
            "families: [{match: a, answer: true}]",
            "answer must be a number from 0 or null, not true",
        ),
        ("families: [{match: a, prompt: .nan}]", "prompt must be a number from 0 or null, not NaN"),
        ("families: [{match: a, temperature: 1}]", "temperature must be true or false, not 1"),
        (
            "families: [{match: a, limit: tokens}]",
            'limit must be max_tokens or max_completion_tokens, not "tokens"',
        ),
    ],
)
def test_a_table_that_cannot_be_is_refused_by_row_and_field(tmp_path, text, words):
    with pytest.raises(UserError, match=words):
        Families.load(table(tmp_path, text))
