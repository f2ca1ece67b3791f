"""What a language model is told when it judges: messages and the schema of its answer.

The wording stands in ``configs/judging/prompts.yaml``; this module fills it in. The persona is the
system message, which is the same for all of a persona's requests. Posts and replies are fenced by a
mark hashed from their texts, so that no text can hold its own closing line.
"""

from __future__ import annotations

import functools
from string import Template
from typing import Any

from jaxmodpo.artifacts import digest
from jaxmodpo.config import builtin, load_yaml
from jaxmodpo.judging.criteria import Criterion
from jaxmodpo.judging.judge import Request


@functools.cache
def load_prompts() -> dict[str, str]:
    """Read ``configs/judging/prompts.yaml``."""
    return load_yaml(builtin("judging", "prompts"))


def prompts_version() -> str:
    """Return a digest of the wording, which is part of what shapes a judge's answers."""
    return digest(load_prompts())[:12]


def labels(request: Request) -> list[str]:
    """Return what the shown responses are called: 1 to N in a ranking, A and B in a comparison."""
    if request.kind == "compare":
        return ["A", "B"]
    return [str(n) for n in range(1, len(request.responses) + 1)]


def messages(request: Request) -> list[dict[str, str]]:
    """Return a request as chat messages: the persona as system, everything else as user."""
    mark = digest([request.question_text, *(r.response_text for r in request.responses)])[:16]
    user = _fill(
        request.kind,
        question=_fill("post", mark=mark, text=request.question_text),
        criterion=_criterion(request.criterion),
        count=len(request.responses),
        replies="\n\n".join(
            _fill("reply", label=label, mark=mark, text=response.response_text)
            for label, response in zip(labels(request), request.responses, strict=True)
        ),
    )
    return [
        {"role": "system", "content": _fill("system", persona=request.persona_text.strip())},
        {"role": "user", "content": user},
    ]


def answer_schema(request: Request) -> dict[str, Any]:
    """Return the JSON schema of the answer: ``{"ranking": [numbers]}`` or ``{"better": "A" | "B"}``.

    A schema cannot demand a permutation in every server's dialect: whoever reads the answer checks that.
    """
    if request.kind == "compare":
        name, value = "better", {"type": "string", "enum": labels(request)}
    else:
        numbers = list(range(1, len(request.responses) + 1))
        name, value = "ranking", {"type": "array", "items": {"type": "integer", "enum": numbers}}
    return {
        "type": "object",
        "properties": {name: value},
        "required": [name],
        "additionalProperties": False,
    }


def _criterion(criterion: Criterion) -> str:
    if criterion.better_when:
        return _fill(
            "criterion",
            name=criterion.name.replace("_", " "),
            description=criterion.description,
            better_when=criterion.better_when,
            worse_when=criterion.worse_when,
        )
    return _fill("preference", description=criterion.description)


def _fill(part: str, **values: object) -> str:
    # One pass: a dollar sign inside a value is text.
    return Template(load_prompts()[part]).substitute(values)
