"""What a language model is told when it judges: messages and the schema of its answer.

The wording stands in ``configs/judging/prompts.yaml``, or in a file of the user's; this module
fills it in and reads answers back. The persona is the system message, which is the same for all of
a persona's requests. Posts and replies are fenced by a mark that none of their texts holds, so that
no text can forge a fence, and what a server might take for a control token is broken up in all of
them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from jaxmodpo.config import builtin, load_yaml
from jaxmodpo.criteria import Criterion
from jaxmodpo.errors import UserError, nearest
from jaxmodpo.fingerprints import digest
from jaxmodpo.judging.answers import answer_object
from jaxmodpo.judging.judge import Request

PARTS: Mapping[str, set[str]] = {
    "system": {"persona"},
    "rank": {"question", "criteria", "replies", "count", "answer", "mark"},
    "compare": {"question", "criteria", "replies", "ties", "answer", "mark"},
    "post": {"mark", "text"},
    "reply": {"label", "mark", "text"},
    "criterion": {"name", "description", "better_when", "worse_when"},
    "preference": {"description"},
    "one": {"criterion"},
    "several": {"criteria"},
    "ties": set(),
}
"""every part of the wording, and what is filled into it"""

_TEXT = re.compile(r"\$(?:text\b|\{text\})")
_FENCED = re.compile(r"(?s).*\$(mark\b|\{mark\}).*\n\$(text|\{text\})\n.*\$(mark\b|\{mark\}).*")

# <s>, </s>, <|im_start|>, <|turn>, <<SYS>>, <start_of_turn>, <think> and the like, and Mistral's
# [INST] and its kin.
_CONTROL = re.compile(
    r"<(?=[^<>\s]{1,64}>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_[A-Z]+|ARGS|CALL_ID|THINK|MODEL_SETTINGS|REF|"
    r"IMG[A-Z_]*|(?:BEGIN_)?AUDIO|PREFIX|MIDDLE|SUFFIX|gMASK)\])"
)


@dataclass(frozen=True)
class Prompts:
    """The wording of requests.

    Attributes:
        templates: the templates by name.
        version: a digest of them, which is part of what shapes a judge's answers.
    """

    templates: Mapping[str, str]
    version: str

    @classmethod
    def load(cls, source: str | Path = "prompts") -> Prompts:
        """Read a file of templates, or ``configs/judging/prompts.yaml``.

        Raises:
            UserError: an unknown or missing part, a placeholder that the part does not have or
                lacks, or a post or reply that is not fenced.
        """
        path = builtin("judging", source)
        templates = load_yaml(path)
        for name in templates:
            if name not in PARTS:
                raise UserError(f"{path}: unknown part '{name}'{nearest(str(name), PARTS)}")
        for name, values in PARTS.items():
            if not isinstance(templates.get(name), str):
                raise UserError(f"{path} lacks the part '{name}', a text")
            template = Template(templates[name])
            placeholders = set(template.get_identifiers())
            if not template.is_valid() or placeholders - values:
                wrong = (
                    ", ".join(f"${v}" for v in sorted(placeholders - values))
                    or "a stray $ (write $$)"
                )
                raise UserError(f"{path}, part '{name}': {wrong} is not one of {_listed(values)}")
            # The count, the ties and the form of the answer may be left to the schema.
            if lacking := values - placeholders - {"count", "ties", "answer", "mark"}:
                raise UserError(f"{path}, part '{name}' lacks {_listed(lacking)}")
        for name in ("post", "reply"):
            if (
                not _FENCED.fullmatch(templates[name].strip())
                or len(_TEXT.findall(templates[name])) > 1
            ):
                raise UserError(
                    f"{path}, part '{name}': $text must stand once, on a line of its own between"
                    " two lines with $mark, so that no text can pass for an instruction"
                )
        return cls(templates, digest(templates)[:12])

    def messages(self, request: Request) -> list[dict[str, str]]:
        """Return a request as chat messages: the persona as system, everything else as user."""
        texts = [request.question_text, *(response.response_text for response in request.responses)]
        post, *replies = texts = [without_control_tokens(text) for text in texts]
        mark = fence_mark(texts)
        criteria = [self._criterion(criterion) for criterion in request.criteria]
        user = self._fill(
            request.kind,
            question=self._fill("post", mark=mark, text=post),
            criteria=(
                self._fill("one", criterion=criteria[0])
                if len(criteria) == 1
                else self._fill("several", criteria="\n\n".join(criteria))
            ),
            count=len(request.responses),
            ties=" " + self.templates["ties"].strip() if request.ties else "",
            answer=_example(request),
            mark=mark,
            replies="\n\n".join(
                self._fill("reply", label=label, mark=mark, text=text)
                for label, text in zip(labels(request), replies, strict=True)
            ),
        )
        persona = without_control_tokens(request.persona_text.strip())
        return [
            {"role": "system", "content": self._fill("system", persona=persona)},
            {"role": "user", "content": user},
        ]

    def _criterion(self, criterion: Criterion) -> str:
        if criterion.better_when:
            return self._fill(
                "criterion",
                name=criterion.name.replace("_", " "),
                description=criterion.description,
                better_when=criterion.better_when,
                worse_when=criterion.worse_when,
            )
        return self._fill("preference", description=criterion.description)

    def _fill(self, template: str, **values: object) -> str:
        # One pass: a dollar sign inside a value is text.
        return Template(self.templates[template]).substitute(values).strip()


def fence_mark(texts: Sequence[str]) -> str:
    """Return what marks the fences of these texts: 16 digits of their hash, drawn anew while a text
    holds them.
    """
    mark = digest(list(texts))[:16]
    while any(mark in text for text in texts):
        mark = digest([mark, *texts])[:16]
    return mark


def without_control_tokens(text: str) -> str:
    """Return a text in which nothing is a control token of a chat template: ``<|im_end|>`` becomes
    ``< |im_end|>``.

    Servers that run open models (vLLM, Ollama, llama.cpp) turn such words into the tokens that end
    a turn and begin another, wherever in a message they stand; no fence holds against that.
    """
    return _CONTROL.sub(lambda match: f"{match[0]} ", text) if "<" in text or "[" in text else text


def _listed(values: set[str]) -> str:
    return ", ".join(f"${value}" for value in sorted(values)) or "none, for it has no placeholders"


def labels(request: Request) -> list[str]:
    """Return what the shown responses are called: 1 to N in a ranking, A and B in a comparison."""
    if request.kind == "compare":
        return ["A", "B"]
    return [str(n) for n in range(1, len(request.responses) + 1)]


def _answer_names(request: Request) -> list[str]:
    """Return the names of the answer's fields: of the criteria, or of the kind where there is but
    one.
    """
    if len(request.criteria) == 1:
        return ["better" if request.kind == "compare" else "ranking"]
    return [criterion.name for criterion in request.criteria]


def _example(request: Request) -> str:
    if request.kind == "compare":
        choices = [*labels(request), *(["tie"] if request.ties else [])]
        value = " or ".join(f'"{choice}"' for choice in choices)
    else:
        value = "[the number of the best reply, …, the number of the worst]"
    return "{" + ", ".join(f'"{name}": {value}' for name in _answer_names(request)) + "}"


def answer_schema(request: Request) -> dict[str, Any]:
    """Return the JSON schema of the answer.

    For one criterion ``{"ranking": [numbers]}`` or ``{"better": "A" | "B"}``, for several a field
    of this kind under each criterion's name. A schema cannot demand a permutation in every server's
    dialect: :func:`parse_orders` checks that.
    """
    if request.kind == "compare":
        value = {"type": "string", "enum": [*labels(request), *(["tie"] if request.ties else [])]}
    else:
        numbers = list(range(1, len(request.responses) + 1))
        value = {"type": "array", "items": {"type": "integer", "enum": numbers}}
    names = _answer_names(request)
    return {
        "type": "object",
        "properties": dict.fromkeys(names, value),
        "required": names,
        "additionalProperties": False,
    }


def parse_orders(raw: str, request: Request, *, cut: bool = False) -> dict[str, tuple[str, ...]]:
    """Read an answer of :func:`answer_schema`: each criterion's response ids, best first.

    A criterion whose field is missing or anything else, such as a ranking that is no permutation,
    is left out. ``cut`` says that the answer ended at its limit.
    """
    value = answer_object(raw, _answer_names(request), cut=cut)
    if value is None:
        return {}
    order_of = _winner if request.kind == "compare" else _ranking
    orders = {}
    for name, criterion in zip(_answer_names(request), request.criteria, strict=True):
        order = order_of(value.get(name), request)
        if order is not None:
            orders[criterion.name] = order
    return orders


def _winner(value: Any, request: Request) -> tuple[str, ...] | None:
    if value == "tie" and request.ties:
        return ()
    named = dict(zip(labels(request), (r.response_id for r in request.responses), strict=True))
    return (named[value],) if isinstance(value, str) and value in named else None


def _ranking(value: Any, request: Request) -> tuple[str, ...] | None:
    ids = [r.response_id for r in request.responses]
    if not isinstance(value, list) or not all(type(n) is int for n in value):
        return None
    if sorted(value) != list(range(1, len(ids) + 1)):
        return None
    return tuple(ids[n - 1] for n in value)
