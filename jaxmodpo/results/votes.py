"""How many votes were asked for and how many failed, as results and manifests record it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxmodpo.schema import Tally


@dataclass(frozen=True, kw_only=True)
class VotesAsked:
    """Votes of one criterion, one persona or one model, and what became of them."""

    asked: Tally
    valid: Tally
    failed: Mapping[str, Tally]
    """by status; statuses that did not occur are absent"""


@dataclass(frozen=True, kw_only=True)
class FailedVotes:
    """Where votes failed."""

    personas_with_failed_votes: Mapping[str, VotesAsked]
    """all votes of every persona that has a failed one"""
    models: Mapping[str, VotesAsked]
    """by the model that answered; ``none`` where none did"""
