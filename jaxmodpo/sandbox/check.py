"""The ``sandbox check`` command: how many replies the sandbox's own grammar cannot parse."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.ranges import CommandSettings, Incidental
from jaxmodpo.records import read_responses
from jaxmodpo.results.measures import MALFORMED, Malformed
from jaxmodpo.results.versioned import plain, write_result
from jaxmodpo.sandbox.grammar import SENTENCES, Kind, parse

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CheckConfig(CommandSettings, help_group="data"):
    """Count malformed replies, and the kinds of sentences in the others."""

    responses: Path
    """CSV file of the replies sampled from a sandbox model."""
    output_dir: Incidental[Path]
    """Folder that malformed.json is written to."""

    def cost(self, estimator: Estimates) -> Cost:
        return Cost()  # takes seconds, and leaves little behind


@in_phase("sandbox check")
def check(config: CheckConfig, phase: Phase) -> None:
    """Run ``sandbox check``."""
    replies = read_responses(config.responses)
    counts: Counter[Kind] = Counter()
    malformed = 0
    for reply in replies:
        kinds = parse(reply.response_text)
        if kinds is None:
            malformed += 1
        else:
            counts.update(kinds)
    result = Malformed(
        malformed=malformed / len(replies),
        replies=len(replies),
        # Of all replies, the malformed ones with no sentence: a model that breaks more of its
        # replies is not to look warmer for it.
        sentences_per_reply={kind: round(counts[kind] / len(replies), 4) for kind in SENTENCES},
    )
    write_result(config.output_dir / MALFORMED, result)
    logger.info("malformed replies: %.1f%%", 100 * result.malformed)
    phase.finish(**plain(result))
