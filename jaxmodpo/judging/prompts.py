"""What a language model is told when it judges: a request as messages.

The wording stands in ``configs/judging/prompts.yaml``, or ``scores.yaml`` where scores are asked
for, or in a file of the user's; this module fills it in. The persona is the system message, which
is the same for all of a persona's requests. Posts and replies are fenced by a mark that none of
their texts holds, so that no text can forge a fence, and what a server might take for a control
token is broken up in all of them. With our wording, the second of some replies is sent as::

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

from jaxmodpo.config import builtin, load_yaml
from jaxmodpo.criteria import Criterion
from jaxmodpo.errors import UserError, nearest
from jaxmodpo.fingerprints import digest
from jaxmodpo.judging.answer_forms import answer_example, labels
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
"""every part of the wording of rankings and comparisons, and what is filled into it"""

SCORE_PARTS: Mapping[str, set[str]] = {
    "system": set(),
    "score": {"post", "reply", "criteria", "scale", "answer", "mark"},
    "post": {"mark", "text"},
    "reply": {"mark", "text"},
    "criterion": {"name", "description"},
    "yes_no": set(),
    "number": set(),
}
"""Likewise of scores. They have a file of their own, since the wording is a part of what names a
judge: a word more about scores would make all rankings in all ledgers those of another judge."""

# The count, the ties and the form of the answer may be left to the schema.
_OPTIONAL = {"count", "ties", "answer", "scale", "mark"}

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
        source: the file.
    """

    templates: Mapping[str, str]
    version: str
    source: Path

    @classmethod
    def load(cls, source: str | Path = "prompts") -> Prompts:
        """Read a file of templates, or ``configs/judging/prompts.yaml``; one with a part ``score``
        is for scores, and any other for rankings and comparisons.

        Raises:
            UserError: an unknown or missing part, a placeholder that the part does not have or
                lacks, or a post or reply that is not fenced.
        """
        path = builtin("judging", source)
        templates = load_yaml(path)
        placeholders_of_part = SCORE_PARTS if "score" in templates else PARTS
        for name in templates:
            if name not in placeholders_of_part:
                hint = nearest(str(name), placeholders_of_part)
                raise UserError(f"{path}: unknown part '{name}'{hint}")
        for name, values in placeholders_of_part.items():
            if not isinstance(templates.get(name), str):
                raise UserError(f"{path} lacks the part '{name}', a text")
            _check_placeholders(templates[name], values, f"{path}, part '{name}'")
        for name in ("post", "reply"):
            _check_fence(templates[name], f"{path}, part '{name}'")
        return cls(templates, digest(templates)[:12], path)

    def messages(self, request: Request) -> list[dict[str, str]]:
        """Return a request as chat messages: the persona as system, everything else as user.

        Raises:
            UserError: the wording is of other kinds of requests.
        """
        if request.kind not in self.templates:
            raise UserError(
                f"{self.source} has no wording for a request of the kind '{request.kind}' (--prompts):"
                " a file with a part 'score' is for scores alone, as our 'scores' is"
            )
        if request.kind == "score":
            return self._score_messages(request)
        return self._preference_messages(request)

    def _score_messages(self, request: Request) -> list[dict[str, str]]:
        post = without_control_tokens(request.question_text)
        (response,) = request.responses
        reply = without_control_tokens(response.response_text)
        mark = fence_mark([post, reply])
        criteria = [
            self._fill("criterion", name=criterion.name, description=criterion.description)
            for criterion in request.criteria
        ]
        user = self._fill(
            "score",
            # A reply may be scored without its post.
            post=self._fill("post", mark=mark, text=post) if post else "",
            reply=self._fill("reply", mark=mark, text=reply),
            criteria="\n".join(criteria),
            scale=self._fill("yes_no" if request.yes_no else "number"),
            answer=answer_example(request),
            mark=mark,
        )
        return [
            {"role": "system", "content": self._fill("system")},
            {"role": "user", "content": user},
        ]

    def _preference_messages(self, request: Request) -> list[dict[str, str]]:
        # Control tokens are broken up before the mark is drawn, since the mark must be in none of
        # the texts as they are sent.
        post = without_control_tokens(request.question_text)
        replies = [without_control_tokens(response.response_text) for response in request.responses]
        mark = fence_mark([post, *replies])
        fenced_replies: list[str] = []
        for label, text in zip(labels(request), replies, strict=True):
            fenced_replies.append(self._fill("reply", label=label, mark=mark, text=text))
        ties = ""
        if request.ties:
            ties = " " + self.templates["ties"].strip()
        user = self._fill(
            request.kind,
            question=self._fill("post", mark=mark, text=post),
            criteria=self._criteria(request.criteria),
            count=len(request.responses),
            ties=ties,
            answer=answer_example(request),
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
