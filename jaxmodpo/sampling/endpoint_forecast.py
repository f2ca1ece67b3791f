"""What replies of an endpoint would take, before any is asked for: ``responses --dry-run``.

Nothing is written and nothing leaves this machine, and a run that goes on meanwhile is not
disturbed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxmodpo.costs import CHARACTERS_PER_TOKEN, REPLY_TOKENS
from jaxmodpo.endpoints.families import Families
from jaxmodpo.endpoints.usage import Usage
from jaxmodpo.parsing import parse_json
from jaxmodpo.results.manifest import MANIFEST, read_manifest
from jaxmodpo.sampling.endpoint import usage_of
from jaxmodpo.sampling.endpoint_settings import Endpoint, check_endpoint
from jaxmodpo.sampling.journal import PlannedReply

# From so many replies on, the mean of what the endpoint counted is better than any guess of ours.
_ENOUGH_REPLIES = 30


@dataclass(frozen=True)
class ReplyForecast:
    """What a run would ask.

    Attributes:
        replies: in all.
        answered: of them, those that the journal has.
        prompt_tokens: of the calls to come.
        reply_tokens: likewise.
        counted_by: what counted the tokens, in words.
        dollars: of the calls to come; None where no price is known.
        most_dollars: the same if every reply is as long as it may be.
    """

    replies: int
    answered: int
    prompt_tokens: float
    reply_tokens: float
    counted_by: str
    dollars: float | None
    most_dollars: float | None


def forecast_replies(
    endpoint: Endpoint, planned_replies: Sequence[PlannedReply], output_dir: Path
) -> ReplyForecast:
    """Print and return what a run would ask.

    Raises:
        UserError: settings that cannot work.
    """
    check_endpoint(endpoint)
    is_finished, rows = _replies_so_far(output_dir)
    missing: list[PlannedReply] = []
    if not is_finished:
        keys = {(reply["question_id"], reply["number"]) for reply in rows}
        for planned_reply in planned_replies:
            if (planned_reply.question.question_id, planned_reply.number) not in keys:
                missing.append(planned_reply)
    tokens = _tokens(endpoint, missing, rows)
    family = endpoint.family
    longest = Usage(round(tokens.prompt), 0, endpoint.max_tokens * len(missing))
    result = ReplyForecast(
        replies=len(planned_replies),
        answered=len(planned_replies) - len(missing),
        prompt_tokens=tokens.prompt,
        reply_tokens=tokens.reply,
        counted_by=tokens.counted_by,
        dollars=family.cost(Usage(round(tokens.prompt), 0, round(tokens.reply))),
        most_dollars=family.cost(longest),
    )
    print(_described(result, endpoint))
    return result


def _replies_so_far(output_dir: Path) -> tuple[bool, list[dict[str, Any]]]:
    """Return whether the folder's run is finished, and the journal's rows where it is not."""
    manifest_path = output_dir / MANIFEST
    if not manifest_path.exists():
        return False, []
    manifest = read_manifest(manifest_path)
    journal_path = output_dir / "sampled.jsonl"
    if manifest.is_finished or not journal_path.exists():
        return manifest.is_finished, []
    settings = manifest.identity.digest()[:16]
    rows: list[dict[str, Any]] = []
    # Read here and not by a Journal, which would cut off the line that a running process is at.
    for line in journal_path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        reply = parse_json(line)
        if reply.get("settings") == settings:
            rows.append(reply)
    return False, rows


@dataclass(frozen=True)
class _Tokens:
    """The tokens of the prompts and replies to come, and what counted them, in words."""

    prompt: float
    reply: float
    counted_by: str


def _tokens(
    endpoint: Endpoint, missing: Sequence[PlannedReply], rows: Sequence[dict[str, Any]]
) -> _Tokens:
    """Count the tokens to come, by the best that is at hand: what the endpoint counted in the
    replies so far, or four characters for a token and the usual length.
    """
    usages: list[Usage] = []
    for reply in rows:
        usage = usage_of(reply)
        if usage is not None:
            usages.append(usage)
    if len(usages) >= _ENOUGH_REPLIES:
        prompt_mean = sum(usage.prompt for usage in usages) / len(usages)
        reply_mean = sum(usage.completion for usage in usages) / len(usages)
        counted_by = f"the endpoint itself, in {len(usages):,} replies so far"
        return _Tokens(prompt_mean * len(missing), reply_mean * len(missing), counted_by)
    characters = 0
    for planned_reply in missing:
        characters += len(endpoint.prompt(planned_reply.question.question_text))
    usual_tokens = min(REPLY_TOKENS, endpoint.max_tokens)
    counted_by = (
        f"characters, {CHARACTERS_PER_TOKEN:.0f} of them for a token, and a reply taken for"
        f" {usual_tokens} tokens"
    )
    return _Tokens(characters / CHARACTERS_PER_TOKEN, usual_tokens * len(missing), counted_by)


def _described(result: ReplyForecast, endpoint: Endpoint) -> str:
    """Return the lines that a dry run prints."""
    to_come = result.replies - result.answered
    lines = [
        f"{result.replies:,} replies; {result.answered:,} are there, {to_come:,} to come, with a"
        " call for each",
        f"{result.prompt_tokens:,.0f} tokens of prompts and about {result.reply_tokens:,.0f} of"
        f" replies, counted by {result.counted_by}",
    ]
    if result.dollars is None or result.most_dollars is None:
        lines.append(f"the table '{endpoint.model_table}' has no price of {endpoint.model}")
    else:
        as_of = Families.load(endpoint.model_table).as_of
        lines.append(
            f"${result.dollars:,.2f}, and ${result.most_dollars:,.2f} if every reply has"
            f" {endpoint.max_tokens} tokens, at the prices of {as_of}"
        )
    return "\n".join(lines)
