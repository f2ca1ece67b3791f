"""What an endpoint said, without what must not be kept: the key, and the texts of the request.

Profiles and posts are people's, and belong in no ledger; a key belongs nowhere. Endpoints repeat
both: in an error that quotes the request, in an answer that quotes the post, in a header that
quotes the key.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from jaxmodpo.endpoints.messages import readable, without_key

# A repeated text of fewer characters tells nobody anything.
_SHORTEST_REPETITION = 12
# An answer as it was asked for is too short to repeat anything.
_SHORT_ANSWER = 60
_LONGEST_WORDS = 2000
_LONGEST_NAME = 200
# Texts are cut before anything is taken out of them, which takes time.
_LONGEST_READ = 100_000


class Redaction:
    """Takes out of an endpoint's words what must not be kept.

    Args:
        key: the endpoint's; may be empty.
    """

    def __init__(self, key: str):
        self._key = key

    def words(self, text: str, private_texts: Iterable[str]) -> str:
        """Return what an endpoint said without the key and without the texts that were sent to it.

        A line of a profile, a post or a reply is taken out as well as the whole.
        """
        text = without_key(readable(text[:_LONGEST_READ]), self._key)
        if len(text) > _SHORT_ANSWER:
            for repeated in _as_repeated(private_texts):
                text = text.replace(repeated, "[...]")
        # Cut last: a text that the cut went through would no longer be recognized, and its first
        # half would stay.
        return text[:_LONGEST_WORDS]

    def text(self, text: str) -> str:
        """Return a text that is asked for, and kept whole, without the key."""
        return without_key(readable(text), self._key)

    def name(self, value: Any) -> str:
        """Return a name that an endpoint gives, without the key and of a length that names have."""
        # A name may be anything: some servers give back whatever key they were sent as a model's or
        # a request's name.
        return without_key(readable(str(value or "")), self._key)[:_LONGEST_NAME]


def _as_repeated(texts: Iterable[str]) -> list[str]:
    """Return texts and their lines as a message may repeat them, plain or in JSON; longest first,
    none very short.
    """
    passages = set[str]()
    for text in texts:
        passages.add(text.strip())
        for line in text.splitlines():
            passages.add(line.strip())
    forms = set(passages)
    for passage in passages:
        # With and without escapes for what is not ASCII, and without the quotation marks around it.
        forms.add(json.dumps(passage, ensure_ascii=True)[1:-1])
        forms.add(json.dumps(passage, ensure_ascii=False)[1:-1])
    # The longest first, or a line would be cut out of a text that would then no longer be
    # recognized.
    telling = [form for form in forms if len(form) >= _SHORTEST_REPETITION]
    return sorted(telling, key=len, reverse=True)
