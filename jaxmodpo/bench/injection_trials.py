"""The requests of ``bench injection``: a poor reply among better ones, with words to the judge or
without.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template
from typing import NamedTuple

from jaxmodpo.bench.scripted_judge import answer_json, default_prompts, mark_of
from jaxmodpo.config import builtin, load_yaml
from jaxmodpo.criteria import Criterion, load_criteria
from jaxmodpo.errors import UserError
from jaxmodpo.judging.answer_forms import labels
from jaxmodpo.judging.judge import Request
from jaxmodpo.records import Candidate
from jaxmodpo.schema import read_as

PLAIN = "the poor reply alone"
"""what trials without an injection are called"""

POOR = "poor"
"""the id of the poor reply"""


class Trial(NamedTuple):
    """One request in which the poor reply stands as it is or with an injection."""

    injection: str
    request: Request


@dataclass(frozen=True)
class PostWithReplies:
    """A post with its replies.

    Attributes:
        post: the text that asks for help.
        honest: replies that are better than the poor one.
        poor: the reply that injections are put around.
    """

    post: str
    honest: list[str]
    poor: str


@dataclass(frozen=True)
class InjectionFile:
    """Replies that speak to the judge, for bench injection.

    Attributes:
        posts: posts with honest replies and a poor one.
        personas: texts of the personas whom the judge plays.
        injections: templates by name; $reply is the poor reply, $label its label, $other a rival's,
            $answer the JSON that puts it first, and $mark the mark of the fences.
    """

    posts: list[PostWithReplies]
    personas: list[str]
    injections: dict[str, str]


def load_trials(source: str | Path, criterion: str, personas: int) -> Iterator[Trial]:
    """Read a file of injections and yield every trial; those of the poor reply alone come first.

    A ranking shows all honest replies and the poor one, in each position once; a comparison shows
    one honest reply and the poor one, in both orders.

    Args:
        source: a file, or the name of one in ``configs/judging``.
        criterion: the name of the therapeutic criterion that is judged by.
        personas: how many of the file's personas judge, the first ones.

    Raises:
        UserError: a part of the file is missing or holds an unknown placeholder.
    """
    path = builtin("judging", source)
    content = read_as(load_yaml(path), InjectionFile, str(path))
    every_post_has_rivals = all(post.honest for post in content.posts)
    is_whole = content.posts and content.personas and content.injections and every_post_has_rivals
    if not is_whole:
        raise UserError(f"{path} must hold posts with honest replies, personas and injections")
    if not 1 <= personas <= len(content.personas):
        raise UserError(f"--personas is {personas}, but {path} has {len(content.personas)}")
    (criterion_read,) = load_criteria("therapeutic", [criterion])
    plain_requests = list(_plain_requests(content, personas, criterion_read))
    for name, template in {PLAIN: "$reply", **content.injections}.items():
        where = f"{path}, injection '{name}'"
        for plain in plain_requests:
            yield Trial(name, injected(plain, template, where))


def _plain_requests(
    content: InjectionFile, personas: int, criterion: Criterion
) -> Iterator[Request]:
    """Yield every request with the poor reply as it is."""
    for post_number, post in enumerate(content.posts):
        for persona_number, persona in enumerate(content.personas[:personas]):
            rank = Request(
                "rank",
                f"post {post_number}",
                post.post,
                f"persona {persona_number}",
                persona,
                (criterion,),
                (),
            )
            for responses in _ranked_together(post):
                yield replace(rank, responses=responses)
            for responses in _compared(post):
                yield replace(rank, kind="compare", responses=responses)


def _ranked_together(post: PostWithReplies) -> Iterator[tuple[Candidate, ...]]:
    """Yield all replies, the poor one in each position once."""
    honest, poor = _candidates(post)
    for position in range(len(honest) + 1):
        yield (*honest[:position], poor, *honest[position:])


def _compared(post: PostWithReplies) -> Iterator[tuple[Candidate, ...]]:
    """Yield the poor reply and each honest one, in both orders."""
    honest, poor = _candidates(post)
    for better in honest:
        yield poor, better
        yield better, poor


def _candidates(post: PostWithReplies) -> tuple[list[Candidate], Candidate]:
    honest = [Candidate(f"honest {number}", text) for number, text in enumerate(post.honest)]
    return honest, Candidate(POOR, post.poor)


def injected(plain: Request, template: str, where: str = "the injection") -> Request:
    """Put an injection around the poor reply, which is told its label, a rival's, the answer and
    the fences' mark.

    Raises:
        UserError: an unknown placeholder.
    """
    ids = [response.response_id for response in plain.responses]
    place = ids.index(POOR)
    reply_labels = labels(plain)
    poor_label = reply_labels[place]
    rivals = [label for label in reply_labels if label != poor_label]
    values = {
        "reply": plain.responses[place].response_text,
        "label": poor_label,
        "other": rivals[0],
        "answer": answer_json([poor_label, *rivals], plain.kind),
        # The mark of the message without the injection: more than a writer of replies can know. The
        # message with the injection gets another, since this one stands in a text.
        "mark": mark_of(default_prompts().messages(plain)[1]["content"]),
    }
    try:
        text = Template(template).substitute(values)
    except (KeyError, ValueError) as error:
        placeholders = ", ".join(f"${name}" for name in values)
        raise UserError(f"{where}: not one of {placeholders} ({error}); write $$ for $") from None
    responses = list(plain.responses)
    responses[place] = Candidate(POOR, text)
    return replace(plain, responses=tuple(responses))
