"""The sections in which a person browses questions: replies side by side, and the votes on them.

Everything that can be read is HTML, a folded part for each question, which opens without a script.
A few numbers go into the page as JSON beside it, and the page's script filters and orders by them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from jaxmodpo.records import Response
from jaxmodpo.report.blocks import Block, Paragraph, ReadyMade, Section
from jaxmodpo.report.browsing import Ballot, Browsable, Pair, ShownQuestion, read_browsable
from jaxmodpo.report.flagged_replies import read_flagged
from jaxmodpo.report.gallery import Gallery
from jaxmodpo.report.page import environment
from jaxmodpo.report.run_folders import OUTCOMES
from jaxmodpo.report.sources import Sources
from jaxmodpo.report.wording import spoken, title, visible

_STATES = {"voted": 0, "missing": 1, "identical": 2}
"""what the script knows them by"""
_CUT = "c"
_EMPTY = "e"
_TOXIC = "t"
_FAILED_PROBE = "p"
_FLAGS = {
    _CUT: "cut at the token limit",
    _EMPTY: "empty",
    _TOXIC: "toxic",
    _FAILED_PROBE: "did not pass as a reply to a crisis probe",
}


class _Votes(NamedTuple):
    """A row of a question's table of votes: two models, and what each criterion's votes say."""

    pair: int
    a: str
    b: str
    cells: list[str]


class _Reply(NamedTuple):
    """A model's reply: its text, if it may be shown, and what is known of it."""

    text: str
    flags: list[str]


class _Question(NamedTuple):
    """A question as the template shows it."""

    anchor: str
    question_id: str
    text: str
    marks: list[str]
    replies: list[tuple[int, str, list[_Reply]]]
    votes: list[_Votes]
    dissents: list[str]


def browser_sections(sources: Sources, gallery: Gallery) -> list[Section]:
    """Return a browser for each evaluation."""
    sections: list[Section] = []
    flagged = read_flagged(sources.runs)
    for number, evaluation in enumerate(sources.evaluations):
        name = "Question by question"
        if len(sources.evaluations) > 1:
            name = f"{name}: {evaluation.name}"
        if not (evaluation.run.folder / OUTCOMES).is_file():
            reason = f"The folder {evaluation.name} has no {OUTCOMES}, which names the questions."
            sections.append(Section(name, [Paragraph(reason, "faint")]))
            continue
        browsable = read_browsable(evaluation, flagged, include_texts=sources.include_texts)
        blocks: list[Block] = [Paragraph(_introduction(browsable, sources), "faint")]
        html = _html(browsable, number, include_texts=sources.include_texts)
        sections.append(Section(name, [*blocks, ReadyMade(html)]))
    return sections


def _introduction(browsable: Browsable, sources: Sources) -> str:
    sentences = [
        "Each question unfolds. 30 : 20 means 30 votes for a and 20 for b; an arrow points to the"
        " winner, and = is a tie. The link to a question ends in #q= and its id."
    ]
    if not sources.include_texts:
        sentences.append(
            "Posts and replies are people's words and are not in this page; --include-texts puts"
            " them in."
        )
    if browsable.replies_unknown:
        sentences.append(f"Cut and empty replies are not marked: {browsable.replies_unknown}.")
    return " ".join(sentences)


def _html(browsable: Browsable, number: int, *, include_texts: bool) -> str:
    pairs = browsable.pairs
    models = browsable.models
    questions = [
        _question(question, browsable, pairs, number, include_texts=include_texts)
        for question in browsable.questions
    ]
    return (
        environment()
        .get_template("questions.html")
        .render(
            number=number,
            models=models,
            pairs=[(models[a], models[b]) for a, b in pairs],
            criteria=[title(name) for name in browsable.criteria],
            questions=questions,
            groups=_groups_in_words(browsable),
            is_scored=browsable.is_scored,
            is_probed=browsable.is_probed,
            include_texts=include_texts,
            data=Markup(script_data(_numbers(browsable, pairs))),
        )
    )


# --------------------------------------------------------------------------- what is read


def _question(
    question: ShownQuestion,
    browsable: Browsable,
    pairs: Sequence[Pair],
    number: int,
    *,
    include_texts: bool,
) -> _Question:
    replies: list[tuple[int, str, list[_Reply]]] = []
    for model, responses in question.replies.items():
        reply_views = [
            _reply(response, _flags_of(question, model, position), include_texts=include_texts)
            for position, response in enumerate(responses)
        ]
        if include_texts or any(reply.flags for reply in reply_views):
            replies.append((model, browsable.models[model], reply_views))
    # Of several evaluations, each of which may have the question, the first has the plain link.
    suffix = "" if number == 0 else f"&evaluation={number + 1}"
    return _Question(
        anchor=visible(f"q={question.question_id}{suffix}"),
        question_id=question.question_id,
        text=question.text,
        marks=_marks(question),
        replies=replies,
        votes=_vote_rows(question, browsable, pairs),
        dissents=_dissents_in_words(question, browsable),
    )


def _reply(response: Response, flags: str, *, include_texts: bool) -> _Reply:
    words = [_FLAGS[flag] for flag in flags]
    return _Reply(response.response_text if include_texts else "", words)


def _flags_of(question: ShownQuestion, model: int, place: int) -> str:
    """Return a letter for each thing that is known of a model's reply, from its place."""
    response = question.replies[model][place]
    flags = _CUT if response.is_cut_at_limit else ""
    if not response.response_text.strip():
        flags += _EMPTY
    if (model, place) in question.toxic:
        flags += _TOXIC
    if (model, place) in question.failed_probes:
        flags += _FAILED_PROBE
    return flags


def _all_flags(question: ShownQuestion) -> dict[int, set[str]]:
    """Return what is known of any of each model's replies."""
    flags: dict[int, set[str]] = {}
    for model, responses in question.replies.items():
        flags[model] = set()
        for position in range(len(responses)):
            flags[model].update(_flags_of(question, model, position))
    return flags


def _groups_in_words(browsable: Browsable) -> list[str]:
    return [f"{spoken(dimension)}: {group}" for dimension, group in browsable.groups]


def _dissents_in_words(question: ShownQuestion, browsable: Browsable) -> list[str]:
    """Return which groups prefer the other reply, and of how many comparisons."""
    groups = _groups_in_words(browsable)
    counts = Counter(dissent.group for dissent in question.dissents)
    return [f"{groups[group]} ({count})" for group, count in sorted(counts.items())]


def _marks(question: ShownQuestion) -> list[str]:
    """Return what stands beside a question's id while it is folded."""
    every_flag = set().union(*_all_flags(question).values())
    marks = [f"a reply {_FLAGS[flag]}" for flag in sorted(every_flag)]
    if any(ballot.state == "missing" for ballot in question.ballots.values()):
        marks.append("a comparison without a valid vote")
    return marks


def _vote_rows(
    question: ShownQuestion, browsable: Browsable, pairs: Sequence[Pair]
) -> list[_Votes]:
    replies = sorted({reply for reply, _, _ in question.ballots})
    rows: list[_Votes] = []
    for number, pair in enumerate(pairs):
        for reply in replies:
            ballots = [question.ballots.get((reply, pair, name)) for name in browsable.criteria]
            a, b = (browsable.models[model] for model in pair)
            if len(replies) > 1:
                a = f"{a}, reply {reply}"
            rows.append(_Votes(number, a, b, [_in_words(ballot) for ballot in ballots]))
    return rows


def _in_words(ballot: Ballot | None) -> str:
    """Return votes with an arrow to the winner, as in ``◀ 30 : 20, 2 ties``."""
    if ballot is None:
        return "not compared"
    if ballot.state == "identical":
        return "identical replies"
    if ballot.state == "missing":
        return f"no valid vote, {ballot.failed} failed"
    words = f"{ballot.votes_a} : {ballot.votes_b}"
    if ballot.votes_a > ballot.votes_b:
        words = f"◀ {words}"
    elif ballot.votes_b > ballot.votes_a:
        words = f"{words} ▶"
    else:
        words = f"= {words}"
    if ballot.ties:
        words += f", {ballot.ties} ties"
    if ballot.failed:
        words += f", {ballot.failed} failed"
    return words


# --------------------------------------------------------------------------- what is filtered by


def _numbers(browsable: Browsable, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Return what the script filters by: ``votes[criterion][pair][question][reply]``, each the
    votes for a and for b and the number of the state; the flags of each model's replies; and the
    comparisons that groups decided otherwise.
    """
    votes: list[list[list[list[list[int]]]]] = []
    for criterion in browsable.criteria:
        votes.append([_votes_of_pair(browsable, criterion, pair) for pair in pairs])
    flags: list[dict[int, str]] = []
    for question in browsable.questions:
        by_model: dict[int, str] = {}
        for model, letters in _all_flags(question).items():
            if letters:
                by_model[model] = "".join(sorted(letters))
        flags.append(by_model)
    dissents = [_dissent_numbers(question, browsable, pairs) for question in browsable.questions]
    return {"pairs": pairs, "votes": votes, "flags": flags, "dissents": dissents}


def _dissent_numbers(
    question: ShownQuestion, browsable: Browsable, pairs: Sequence[Pair]
) -> list[tuple[int, int, int]]:
    """Return the numbers of group, criterion and pair of each comparison that a group decided
    otherwise.
    """
    criteria = list(browsable.criteria)
    numbers: list[tuple[int, int, int]] = []
    for dissent in question.dissents:
        cell = (criteria.index(dissent.criterion), pairs.index(dissent.pair))
        numbers.append((dissent.group, *cell))
    return numbers


def _votes_of_pair(browsable: Browsable, criterion: str, pair: Pair) -> list[list[list[int]]]:
    votes: list[list[list[int]]] = []
    for question in browsable.questions:
        replies = sorted({reply for reply, _, _ in question.ballots})
        votes_of_question: list[list[int]] = []
        for reply in replies:
            ballot = question.ballots.get((reply, pair, criterion))
            if ballot is not None:
                state = _STATES[ballot.state]
                votes_of_question.append([ballot.votes_a, ballot.votes_b, state])
        votes.append(votes_of_question)
    return votes


def script_data(value: Any) -> str:
    """Return JSON that no text in it can end: as a script element holds it.

    Inside a script element HTML knows no escapes, and a ``</script>`` or ``<!--`` in a text would
    be the page's. In JSON's own escapes they are neither.
    """
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
