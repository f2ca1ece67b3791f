"""Small result files that say one thing of one model: how far it moved, and what it breaks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxmodpo.results.versioned import Result
from jaxmodpo.schema import Tally

DIVERGENCE = "kl.json"
MALFORMED = "malformed.json"


@dataclass(frozen=True, kw_only=True)
class Divergence(Result):
    """``kl.json`` of ``score kl``: a policy's divergence from its base, in nats per reply."""

    kl: float
    standard_error: float | None
    """None of a single reply"""
    replies: Tally


@dataclass(frozen=True, kw_only=True)
class Malformed(Result):
    """``malformed.json`` of ``sandbox check``: what the sandbox's grammar cannot read."""

    malformed: float
    """share of the replies"""
    replies: Tally
    sentences_per_reply: Mapping[str, float]
    """by kind of sentence; a malformed reply counts as one with none"""
