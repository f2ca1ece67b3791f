"""The ``sandbox check`` command: how many replies the sandbox's own grammar cannot parse."""

from __future__ import annotations

import collections
import logging
from dataclasses import dataclass
from pathlib import Path

from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.ranges import Incidental, Settings
from jaxmodpo.records import read_responses
from jaxmodpo.results.measures import MALFORMED, Malformed
from jaxmodpo.results.versioned import plain, write_result
from jaxmodpo.sandbox.grammar import SENTENCES, parse

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CheckConfig(Settings, help_group="data"):
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
    parsed = [parse(reply.response_text) for reply in read_responses(config.responses)]
    kinds = collections.Counter(kind for reply in parsed if reply for kind in reply)
    result = Malformed(
        malformed=sum(reply is None for reply in parsed) / len(parsed),
        replies=len(parsed),
        sentences_per_reply={kind: round(kinds[kind] / len(parsed), 4) for kind in SENTENCES},
    )
    write_result(config.output_dir / MALFORMED, result)
    logger.info("malformed replies: %.1f%%", 100 * result.malformed)
    phase.finish(**plain(result))
