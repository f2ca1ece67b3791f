"""The key of a call and of its votes: everything that an answer depends on, and nothing else."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from some_votes import EMPATHY, REQUEST, SAFETY

from jaxmodpo.judging.judge import Call, Request, call_key, vote_keys


def test_the_key_changes_with_everything_the_answer_depends_on():
    replace = dataclasses.replace
    first, second = REQUEST.responses
    (criterion,) = REQUEST.criteria
    # A title is for people, and no judge reads it.
    worded = vars(criterion).keys() - {"title"}
    variants = [
        REQUEST,
        replace(REQUEST, kind="rank"),
        replace(REQUEST, question_id="q2"),
        replace(REQUEST, question_text="another post"),
        replace(REQUEST, persona_id="p2"),
        replace(REQUEST, persona_text="another profile"),
        *(replace(REQUEST, criteria=(replace(criterion, **{f: "x"}),)) for f in worded),
        replace(REQUEST, criteria=(EMPATHY, SAFETY)),
        replace(REQUEST, criteria=(SAFETY, EMPATHY)),
        replace(REQUEST, responses=(second, first)),
        replace(REQUEST, responses=(first,)),
        replace(REQUEST, responses=(first, replace(second, response_text="x"))),
        replace(REQUEST, responses=(first, replace(second, response_id="x"))),
        replace(REQUEST, repeat=1),
        replace(REQUEST, ties=True),
        # Texts that run into each other are still different.
        replace(REQUEST, question_id="q1a", question_text=" post"),
    ]
    keys = [call_key(v, "judge") for v in variants] + [call_key(REQUEST, "another judge")]
    assert all(a != b for a, b in itertools.combinations(keys, 2))
    titled = replace(REQUEST, criteria=(replace(criterion, title="x"),))
    assert call_key(titled, "judge") == call_key(REQUEST, "judge")
    votes = [key for v in variants for key in vote_keys(Call(call_key(v, "judge"), v))]
    assert len(set(votes)) == len(votes) == len(variants) + 2


@settings(deadline=None)
@given(
    st.lists(st.text(max_size=3), min_size=4, max_size=4),
    st.lists(st.text(max_size=3), min_size=4, max_size=4),
)
def test_equal_keys_mean_equal_requests(one, other):
    def request(q: str, text: str, persona: str, profile: str) -> Request:
        return dataclasses.replace(
            REQUEST, question_id=q, question_text=text, persona_id=persona, persona_text=profile
        )

    first, second = request(*one), request(*other)
    assert (call_key(first, "j") == call_key(second, "j")) == (first == second)


def test_the_key_is_the_published_hash_so_that_old_ledgers_stay_valid():
    def hashed(*texts: str) -> bytes:
        digests = b"".join(
            hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts
        )
        return hashlib.blake2b(digests, digest_size=16).digest()

    def digests(*texts: str) -> bytes:
        return b"".join(hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts)

    criteria = [hashed("empathy", "d", "b", "w"), hashed("safety", "e", "c", "x")]
    head = ["judge", "compare", "q1", "a post", "p1", "a private profile", "False", "0"]
    tail = digests("a", "first text", "b", "second text")
    one = hashlib.blake2b(digests(*head, "1") + criteria[0] + tail, digest_size=16).hexdigest()
    assert call_key(REQUEST, "judge") == one
    assert vote_keys(Call(one, REQUEST)) == [one], "of one criterion the call's key is the vote's"
    both = dataclasses.replace(REQUEST, criteria=(EMPATHY, SAFETY))
    key = hashlib.blake2b(
        digests(*head, "2") + b"".join(criteria) + tail, digest_size=16
    ).hexdigest()
    assert call_key(both, "judge") == key
    assert vote_keys(Call(key, both)) == [
        hashlib.blake2b(f"{key} {name}".encode(), digest_size=16).hexdigest()
        for name in ("empathy", "safety")
    ]
