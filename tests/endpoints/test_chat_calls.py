"""The name of the setting that limits an answer, for judges and for replies alike."""

from __future__ import annotations

import pytest

from jaxmodpo.endpoints.chat_calls import TokenLimit
from jaxmodpo.endpoints.failures import Failure, failure_in

REFUSED = Failure(
    400, message="'max_tokens' is not supported. Use 'max_completion_tokens' instead."
)


@pytest.mark.parametrize(
    ("base_url", "family", "name"),
    [
        ("https://api.openai.com/v1", "max_tokens", "max_completion_tokens"),
        ("https://eu.api.openai.com/v1", "max_tokens", "max_completion_tokens"),
        ("http://localhost:8000/v1", "max_tokens", "max_tokens"),
        ("http://localhost:8000/v1", "max_completion_tokens", "max_completion_tokens"),
    ],
)
def test_the_limit_is_called_what_the_host_or_the_models_family_calls_it(base_url, family, name):
    assert TokenLimit(base_url, family).name == name


def test_a_call_is_made_again_only_where_it_sent_the_older_name_and_the_newer_one_is_wanted():
    limit = TokenLimit("http://localhost:8000/v1")
    assert not limit.renamed_after(Failure(400, message="no such luck"), {"max_tokens": 9})
    assert limit.name == "max_tokens"
    # Two calls that were under way together: the second fails after the first has changed the name.
    assert limit.renamed_after(REFUSED, {"max_tokens": 9}) and limit.renamed_after(
        REFUSED, {"max_tokens": 9}
    )
    assert limit.name == "max_completion_tokens"
    assert not limit.renamed_after(REFUSED, {"max_completion_tokens": 9}), (
        "or it would be asked for ever"
    )
    assert not limit.renamed_after(REFUSED, {}), "a call that sends no limit"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (None, "not a chat completion: "),
        ([1], "not a chat completion: [1]"),
        ({"choices": []}, 'not a chat completion: {"choices": []}'),
        ({"error": {"message": "upstream", "code": 502}}, "not a chat completion: upstream"),
        ({"error": {"code": 502}}, 'not a chat completion: {"error": {"code": 502}}'),
    ],
)
def test_a_body_that_is_no_answer_is_shown(body, words):
    failure = failure_in(body)
    assert failure is not None and failure.message == words
