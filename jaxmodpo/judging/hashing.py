"""Draws and digests that depend on names and texts alone.

Chance in judging (who serves, what is shown first, who wins a tie, the rubric's noise) is a hash of
a seed and of the names concerned, so that no answer depends on the order of calls or on what was
asked before a kill. The module is apart because assignment, ledger and rubric must hash alike, and
fast: a run asks for a million votes over a few thousand different texts.
"""

from __future__ import annotations

import functools
import hashlib

_SIZE = 16


@functools.lru_cache(maxsize=2**17)
def text_digest(text: str) -> bytes:
    """Return 16 bytes of BLAKE2b of a text, remembered."""
    return hashlib.blake2b(text.encode(), digest_size=_SIZE).digest()


def drawn_bytes(seed: int, *names: str) -> bytes:
    """Return 16 bytes, as good as random, fixed by the seed and the names in their order.

    Every name enters as a digest of fixed length, so that no two lists of names run together.
    """
    digests = [text_digest(str(seed))]
    digests += [text_digest(name) for name in names]
    return hashlib.blake2b(b"".join(digests), digest_size=_SIZE).digest()
