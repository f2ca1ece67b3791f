"""What a language model is told when it judges: messages and the schema of its answer.

The wording stands in ``configs/judging/prompts.yaml``, or in a file of the user's; this module
fills it in and reads answers back. The persona is the system message, which is the same for all of
a persona's requests. Posts and replies are fenced by a mark that none of their texts holds, so that
no text can forge a fence, and what a server might take for a control token is broken up in all of
them. With our wording, the second of some replies is sent as::

    Response 2:
    --- response 2 b5a52ccc956087b2 ---
    Have you tried tea?
    --- end of response 2 b5a52ccc956087b2 ---
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

# The count, the ties and the form of the answer may be left to the schema.
_OPTIONAL = {"count", "ties", "answer", "mark"}

_TEXT = re.compile(r"\$(?:text\b|\{text\})")
_FENCED = re.compile(r"(?s).*\$(mark\b|\{mark\}).*\n\$(text|\{text\})\n.*\$(mark\b|\{mark\}).*")

# <s>, </s>, <|im_start|>, <|turn>, <<SYS>>, <start_of_turn>, <think> and the like, and Mistral's
# [INST] and its kin.
_CONTROL = re.compile(
    r"<(?=[^<>\s]{1,64}>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_[A-Z]+|ARGS|CALL_ID|THINK|MODEL_SETTINGS|REF|"
    r"IMG[A-Z_]*|(?:BEGIN_)?AUDIO|PREFIX|MIDDLE|SUFFIX|gMASK)\])"
)

_MARK_DIGITS = 16


@dataclass(frozen=True)
class Prompts:
    """The wording of requests.

    Attributes:
        templates: the parts of the wording, by name.
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
            _check_placeholders(templates[name], values, f"{path}, part '{name}'")
        for name in ("post", "reply"):
            _check_fence(templates[name], f"{path}, part '{name}'")
        return cls(templates, digest(templates)[:12])

    def messages(self, request: Request) -> list[dict[str, str]]:
        """Return a request as chat messages: the persona as system, everything else as user."""
        # Control tokens are broken up before the mark is drawn, since the mark must be in none of
        # the texts as they are sent.
        post = without_control_tokens(request.question_text)
        replies = [without_control_tokens(response.response_text) for response in request.responses]
        mark = fence_mark([post, *replies])
        fenced_replies = [
            self._fill("reply", label=label, mark=mark, text=text)
            for label, text in zip(labels(request), replies, strict=True)
        ]
        ties = ""
        if request.ties:
            ties = " " + self.templates["ties"].strip()
        user = self._fill(
            request.kind,
            question=self._fill("post", mark=mark, text=post),
            criteria=self._criteria(request.criteria),
            count=len(request.responses),
            ties=ties,
            answer=_example(request),
            mark=mark,
            replies="\n\n".join(fenced_replies),
        )
        # The persona stands alone in the system's message and has no fence. It is the user's own
        # data, but texts of people all the same, which a server must not take for control tokens.
        persona = without_control_tokens(request.persona_text.strip())
        return [
            {"role": "system", "content": self._fill("system", persona=persona)},
            {"role": "user", "content": user},
        ]

    def _criteria(self, criteria: Sequence[Criterion]) -> str:
        texts = [self._criterion(criterion) for criterion in criteria]
        if len(texts) == 1:
            return self._fill("one", criterion=texts[0])
        return self._fill("several", criteria="\n\n".join(texts))

    def _criterion(self, criterion: Criterion) -> str:
        if not criterion.better_when:
            return self._fill("preference", description=criterion.description)
        return self._fill(
            "criterion",
            name=criterion.name.replace("_", " "),
            description=criterion.description,
            better_when=criterion.better_when,
            worse_when=criterion.worse_when,
        )

    def _fill(self, template_name: str, **values: object) -> str:
        # One pass: a dollar sign inside a value is text.
        return Template(self.templates[template_name]).substitute(values).strip()


def _check_placeholders(text: str, values: set[str], location: str) -> None:
    """Refuse a template that names what its part does not have, or lacks what it must say."""
    template = Template(text)
    placeholders = set(template.get_identifiers())
    unknown = placeholders - values
    if unknown or not template.is_valid():
        wrong = ", ".join(f"${name}" for name in sorted(unknown)) or "a stray $ (write $$)"
        raise UserError(f"{location}: {wrong} is not one of {_listed(values)}")
    lacking = values - placeholders - _OPTIONAL
    if lacking:
        raise UserError(f"{location} lacks {_listed(lacking)}")


def _check_fence(text: str, location: str) -> None:
    """Refuse a template that lets a text stand outside of its fence."""
    # A text on a line of its own cannot begin or end the line of a mark. A second $text would be
    # outside of the fence that the pattern sees.
    is_fenced = _FENCED.fullmatch(text.strip()) is not None
    if not is_fenced or len(_TEXT.findall(text)) > 1:
        raise UserError(
            f"{location}: $text must stand once, on a line of its own between"
            " two lines with $mark, so that no text can pass for an instruction"
        )


def fence_mark(texts: Sequence[str]) -> str:
    """Return what marks the fences of these texts: 16 digits of their hash, drawn anew while a text
    holds them.
    """
    # A fixed mark could be written into a post, and whatever follows it would read as ours. A mark
    # that is a hash of all texts cannot be known to who writes one of them: writing it down changes
    # it. It is no random number, since the same request must be the same message each time.
    mark = digest(list(texts))[:_MARK_DIGITS]
    while any(mark in text for text in texts):
        mark = digest([mark, *texts])[:_MARK_DIGITS]
    return mark


def without_control_tokens(text: str) -> str:
    """Return a text in which nothing is a control token of a chat template: ``<|im_end|>`` becomes
    ``< |im_end|>``.

    Servers that run open models (vLLM, Ollama, llama.cpp) turn such words into the tokens that end
    a turn and begin another, wherever in a message they stand; no fence holds against that.
    """
    # Most texts hold neither, and a pattern over a million texts takes its time.
    if "<" not in text and "[" not in text:
        return text
    # A space after the bracket: the words stay legible, and no tokenizer knows them any more.
    return _CONTROL.sub(lambda match: f"{match[0]} ", text)


def _listed(values: set[str]) -> str:
    return ", ".join(f"${value}" for value in sorted(values)) or "none, for it has no placeholders"


def labels(request: Request) -> list[str]:
    """Return what the shown responses are called: 1 to N in a ranking, A and B in a comparison."""
    if request.kind == "compare":
        return ["A", "B"]
    return [str(n) for n in range(1, len(request.responses) + 1)]


# --------------------------------------------------------------------------- answers


def _answer_names(request: Request) -> list[str]:
    """Return the names of the answer's fields: of the criteria, or of the kind where there is but
    one.
    """
    if len(request.criteria) == 1:
        return ["better" if request.kind == "compare" else "ranking"]
    return [criterion.name for criterion in request.criteria]


def _choices(request: Request) -> list[str]:
    """Return what a comparison may be answered by."""
    return labels(request) + (["tie"] if request.ties else [])


def _example(request: Request) -> str:
    """Return the form of the answer in words, for models whose server knows no schemas."""
    if request.kind == "compare":
        value = " or ".join(f'"{choice}"' for choice in _choices(request))
    else:
        value = "[the number of the best reply, …, the number of the worst]"
    fields = [f'"{name}": {value}' for name in _answer_names(request)]
    return "{" + ", ".join(fields) + "}"


def answer_schema(request: Request) -> dict[str, Any]:
    """Return the JSON schema of the answer.

    For one criterion ``{"ranking": [numbers]}`` or ``{"better": "A" | "B"}``, for several a field
    of this kind under each criterion's name. A schema cannot demand a permutation in every server's
    dialect: :func:`parse_orders` checks that.
    """
    if request.kind == "compare":
        value = {"type": "string", "enum": _choices(request)}
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
    names = _answer_names(request)
    value = answer_object(raw, names, cut=cut)
    if value is None:
        return {}
    order_of = _winner if request.kind == "compare" else _ranking
    orders: dict[str, tuple[str, ...]] = {}
    for name, criterion in zip(names, request.criteria, strict=True):
        order = order_of(value.get(name), request)
        if order is not None:
            orders[criterion.name] = order
    return orders


def _winner(value: Any, request: Request) -> tuple[str, ...] | None:
    """Return the better response's id alone, nothing for a tie, and None for anything else."""
    if value == "tie" and request.ties:
        return ()
    if not isinstance(value, str):
        return None
    for label, response in zip(labels(request), request.responses, strict=True):
        if value == label:
            return (response.response_id,)
    return None


def _ranking(value: Any, request: Request) -> tuple[str, ...] | None:
    """Return the ranked responses' ids, best first; None where it is no ranking of all of them."""
    # Only true integers: JSON's true is 1 for Python, and 1.0 says that a model did not understand.
    if not isinstance(value, list) or not all(type(number) is int for number in value):
        return None
    numbers = range(1, len(request.responses) + 1)
    if sorted(value) != list(numbers):
        return None
    return tuple(request.responses[number - 1].response_id for number in value)
