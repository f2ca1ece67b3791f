"""How many of each model's replies a limit of tokens cut, as far as their files say it.

A reply that was cut is judged as it is. A model that seldom comes to an end loses by that, and not
only by what it says, so the share belongs beside its win rates::

    count_cut({"dpo": Path("out/test/dpo/responses.csv")})      # {"dpo": CutReplies(cut=12, …)}
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jaxmodpo.records import read_responses
from jaxmodpo.results.evaluation import CutReplies


def count_cut(files: Mapping[str, Path]) -> dict[str, CutReplies]:
    """Count the replies that end at a limit of tokens.

    Args:
        files: of replies, by model.

    Returns:
        Counts by model. A model is missing where its file says of no reply why it ended, as files
        that other tools wrote do not.
    """
    counts: dict[str, CutReplies] = {}
    for name, path in files.items():
        ended = [reply for reply in read_responses(path) if reply.finish_reason]
        if ended:
            cut = sum(reply.is_cut_at_limit for reply in ended)
            counts[name] = CutReplies(cut=cut, replies=len(ended))
    return counts
