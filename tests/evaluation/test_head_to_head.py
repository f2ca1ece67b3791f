"""What evaluate asks judges whose verdicts are known, what failures come to, and starting again."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections import Counter

import numpy as np
import pytest
from known_order import (
    PERSONAS,
    QUESTIONS,
    REPLIES,
    WORDS,
    WORTH,
    FirstShown,
    KnownOrder,
    Refuses,
    config_for,
    counted,
    outcomes,
    reply,
    rewrite,
    run,
)

from jaxmodpo.errors import UserError
from jaxmodpo.evaluation import head_to_head
from jaxmodpo.evaluation.head_to_head import evaluate
from jaxmodpo.records import Response


def test_every_unit_has_each_model_first_for_exactly_half_of_the_personas(work, monkeypatch):
    judge = FirstShown()
    run(work, monkeypatch, judge)
    first = Counter()
    for request in judge.requests:
        texts = [r.response_text for r in request.responses]
        first[request.criteria[0].name, tuple(sorted(texts)), texts[0]] += 1
    assert len(first) == 2 * 2 * 3 * QUESTIONS * REPLIES
    assert set(first.values()) == {PERSONAS // 2}


def test_a_judge_that_only_looks_at_positions_gives_every_model_one_half(work, monkeypatch):
    results = run(work, monkeypatch, FirstShown())
    assert {rate for rates in results["models"].values() for rate in rates.values()} == {0.5}


def test_no_persona_sees_a_model_in_the_same_place_throughout(work, monkeypatch):
    judge = FirstShown()
    run(work, monkeypatch, judge, names=["good", "poor"])
    counts_by_position = Counter(
        (r.persona_id, r.responses[0].response_text.startswith("9")) for r in judge.requests
    )
    assert set(counts_by_position) == {
        (f"p{n}", first) for n in range(PERSONAS) for first in (True, False)
    }


def test_the_judge_never_sees_a_models_name_or_its_own_response_ids(work, monkeypatch):
    judge = KnownOrder()
    rewrite(
        work,
        "good",
        lambda r, q, n: Response(
            r.question_id, r.question_text, f"good_{n}", r.response_text, "good"
        ),
    )
    run(work, monkeypatch, judge)
    for request in judge.requests:
        ids = [r.response_id for r in request.responses]
        assert all(re.fullmatch("[0-9a-f]{16}", name) for name in ids)
        assert not any(model in repr(request) for model in WORTH)


def test_order_and_names_of_the_models_do_not_change_what_is_asked_or_found(work, monkeypatch):
    judges = [Refuses("reply 0", 2), Refuses("reply 0", 2)]
    first = run(work, monkeypatch, judges[0])
    second = run(work, monkeypatch, judges[1], out="reversed", names=list(WORTH)[::-1])
    assert set(judges[0].requests) == set(judges[1].requests)
    for field_name in ("models", "intervals", "pairwise", "pairwise_intervals", "counts"):
        assert first[field_name] == second[field_name]


def test_identical_texts_are_a_tie_without_asking(work, monkeypatch):
    judge = KnownOrder()
    rewrite(work, "fair", lambda r, q, n: reply("good", q, n) if q == 0 else r)
    results = run(work, monkeypatch, judge, names=["good", "fair"])
    assert results["counts"]["identical_replies"] == 2 * REPLIES
    assert (
        results["counts"]["votes_asked"]
        == len(judge.requests)
        == 2 * (QUESTIONS - 1) * REPLIES * PERSONAS
    )
    assert results["pairwise"]["quality"]["good"]["fair"] == pytest.approx(
        (QUESTIONS - 1 + 0.5) / QUESTIONS
    )
    assert [row["outcome"] for row in outcomes(work) if row["identical"] == "1"] == [
        "0.5"
    ] * 2 * REPLIES


def test_questions_judged_are_counted_of_those_asked(work, monkeypatch):
    results = run(work, monkeypatch, Refuses("to q0"), names=["good", "poor"])
    assert (results["questions_judged"], results["questions"]) == (QUESTIONS - 1, QUESTIONS)
    assert results["questions_judged_by_comparison"] == [
        {"criterion": c, "a": "good", "b": "poor", "judged": QUESTIONS - 1}
        for c in ("quality", "safety")
    ]


def test_one_judged_question_gives_rates_without_intervals(work, monkeypatch):
    class OnlyTheFirst(KnownOrder):
        def verdict(self, request, criterion):
            return (
                super().verdict(request, criterion)
                if request.responses[0].response_text.endswith("q0")
                else None
            )

    results = run(work, monkeypatch, OnlyTheFirst(), names=["good", "poor"])
    assert results["models"]["good"]["quality"] == 1.0
    assert results["intervals"]["good"] == {"quality": None, "safety": None}
    assert results["tests"]["quality"][0]["average_difference_interval"] is None


def test_a_dry_run_says_which_difference_can_be_seen(work, monkeypatch, capsys):
    evaluate(config_for(work, dry_run=True))
    assert (
        "power: with 6 questions, a win rate this far from 50% is seen four times of five at"
        " p < 0.05: 46.3 points for the personas asked, none (there are too few) where it is the"
        " smallest p of 3 adjusted by Holm, and none (there are too few) over new personas as well"
        " (4 are asked; one persona's taste is taken to move a win rate by 20 points)"
    ) in capsys.readouterr().out


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_model_without_any_text_is_refused_before_anything_is_judged(work, monkeypatch, dry_run):
    for name in ("fair", "poor"):
        rewrite(
            work, name, lambda r, q, n: dataclasses.replace(r, response_text=" \n" if n else "")
        )
    judge = KnownOrder()
    with pytest.raises(
        UserError, match=re.escape(f"{work / 'fair'}.csv: every reply of fair is empty")
    ):
        run(work, monkeypatch, judge, dry_run=dry_run)
    assert not judge.requests and not (work / "out").exists()


def test_models_with_the_same_reply_meet_a_third_alike(work, monkeypatch):
    rewrite(work, "fair", lambda r, q, n: reply("good", q, n))
    results = run(work, monkeypatch, KnownOrder())
    assert results["pairwise"]["quality"]["good"] == {"fair": 0.5, "poor": 1.0}
    assert results["pairwise"]["quality"]["fair"] == {"good": 0.5, "poor": 1.0}


def test_failed_votes_are_counted_and_the_others_decide(work, monkeypatch):
    results = run(work, monkeypatch, Refuses("reply 1", PERSONAS - 1), names=["good", "poor"])
    assert results["models"]["good"] == {"quality": 1.0, "safety": 0.0}
    refused = 2 * QUESTIONS * (PERSONAS - 1)
    assert results["counts"]["failed"] == {"refusal": refused}
    assert results["counts"]["valid"] == results["counts"]["votes_asked"] - refused
    assert results["counts"]["units_without_valid_vote"] == 0
    row = next(row for row in outcomes(work) if row["reply"] == "2")
    assert (row["votes_a"], row["votes_b"], row["failed"], row["outcome"]) == ("1", "0", "3", "1.0")


def test_units_without_a_valid_vote_have_no_winner(work, monkeypatch):
    results = run(work, monkeypatch, Refuses("reply 1 to q2"), names=["good", "poor"])
    assert results["counts"]["units_without_valid_vote"] == 2
    assert results["counts"]["by_criterion"]["safety"]["units_without_valid_vote"] == 1
    assert results["models"]["good"]["quality"] == 1.0
    assert [(r["question_id"], r["reply"]) for r in outcomes(work) if r["outcome"] == ""] == [
        ("q2", "2")
    ] * 2


def test_a_pair_without_any_valid_vote_is_named(work, monkeypatch):
    with pytest.raises(
        UserError,
        match=r"quality: not one vote on good against poor is valid; 'jaxmodpo votes' shows",
    ):
        run(work, monkeypatch, Refuses("8"), names=["good", "poor"])
    assert not (work / "out" / "results.json").exists()


def test_outcomes_file_suffices_to_recompute_the_win_rates(work, monkeypatch):
    results = run(work, monkeypatch, Refuses("reply 0", 3))
    rows = outcomes(work)
    assert len(rows) == 2 * 3 * QUESTIONS * REPLIES
    for criterion, square in results["pairwise"].items():
        for a, b in itertools.combinations(WORTH, 2):
            own_rows = [r for r in rows if (r["criterion"], r["a"], r["b"]) == (criterion, a, b)]
            assert square[a][b] == pytest.approx(np.mean([float(r["outcome"]) for r in own_rows]))


def test_only_some_criteria_and_personas_are_asked_when_so_set(work, monkeypatch):
    judge = KnownOrder()
    results = run(work, monkeypatch, judge, only=("safety",), personas_per_question=2)
    assert results["criteria"] == ["safety"] and list(results["models"]["good"]) == ["safety"]
    per_question = Counter((r.question_id, r.persona_id) for r in judge.requests)
    assert set(per_question.values()) == {3 * REPLIES}
    assert len(per_question) == 2 * QUESTIONS


def test_all_criteria_in_one_call_give_the_same_results(work, monkeypatch):
    run(work, monkeypatch, KnownOrder(), out="one")
    judge = KnownOrder()
    run(work, monkeypatch, judge, out="all", criteria_per_call="all")
    assert len(judge.requests) == 3 * QUESTIONS * REPLIES * PERSONAS
    assert {tuple(c.name for c in r.criteria) for r in judge.requests} == {("quality", "safety")}
    for name in ("results.json", "outcomes.csv"):
        assert (work / "all" / name).read_bytes() == (work / "one" / name).read_bytes()


def test_ties_are_allowed_only_where_so_set_and_count_for_neither(work, monkeypatch):
    class Ties(KnownOrder):
        """A tie for all personas but the first, where one may be answered."""

        def verdict(self, request, criterion):
            tied = request.ties and request.persona_id != "p0"
            return () if tied else super().verdict(request, criterion)

    judge = Ties()
    run(work, monkeypatch, judge, names=["good", "poor"])
    assert not any(r.ties for r in judge.requests)
    results = run(work, monkeypatch, Ties(), out="ties", names=["good", "poor"], allow_ties=True)
    assert results["models"]["good"] == {"quality": 1.0, "safety": 0.0}
    assert {(r["votes_a"], r["votes_b"], r["ties"]) for r in outcomes(work, "ties")} == {
        ("1", "0", "3"), ("0", "1", "3")
    }  # fmt: skip


def test_with_both_orders_each_persona_sees_both_and_what_turns_with_them_is_a_tie(
    work, monkeypatch
):
    judge = FirstShown()
    results = run(work, monkeypatch, judge, both_orders=True)
    orders = Counter(
        (r.criteria[0].name, r.persona_id, frozenset(r.responses)) for r in judge.requests
    )
    assert (
        set(orders.values()) == {2}
        and len(judge.requests) == 2 * 2 * 3 * QUESTIONS * REPLIES * PERSONAS
    )
    assert {(r["votes_a"], r["votes_b"], r["ties"], r["outcome"]) for r in outcomes(work)} == {
        ("0", "0", "4", "0.5")
    }
    assert results["counts"]["votes_asked"] == len(judge.requests)
    known = run(work, monkeypatch, KnownOrder(), out="known", both_orders=True)
    assert known["models"]["good"] == {"quality": 1.0, "safety": 0.0}
    assert {r["votes_a"] for r in outcomes(work, "known")} == {"0", "4"}


def test_the_official_protocol_shows_all_personas_the_same_first_by_one_draw_a_question(
    work, monkeypatch
):
    judge = FirstShown()
    run(work, monkeypatch, judge, protocol="official-code")
    first: dict[str, set[bool]] = {}
    for r in judge.requests:
        names = [WORDS[reply.response_text[0]] for reply in r.responses]
        first.setdefault(r.question_id, set()).add(names == sorted(names))
    assert all(len(sides) == 1 for sides in first.values())
    assert {next(iter(sides)) for sides in first.values()} == {True, False}


def test_second_askings_change_no_result(work, monkeypatch):
    class Fickle(KnownOrder):
        def verdict(self, request, criterion):
            return (
                (request.responses[0].response_id,)
                if request.repeat
                else super().verdict(request, criterion)
            )

    run(work, monkeypatch, Fickle(), out="once")
    judge = Fickle()
    run(work, monkeypatch, judge, out="twice", repeat_share=0.5)
    repeats = sum(r.repeat for r in judge.requests)
    # Standard deviation of a binomial(288, 1/2): 8.5.
    assert abs(repeats - 144) < 5 * 8.5
    assert (work / "once" / "outcomes.csv").read_bytes() == (
        work / "twice" / "outcomes.csv"
    ).read_bytes()


def test_failed_votes_of_a_finished_evaluation_are_asked_again_when_told_to(work, monkeypatch):
    run(work, monkeypatch, KnownOrder(), out="whole")
    run(work, monkeypatch, Refuses("reply 1 to q2"))
    judge = KnownOrder()
    run(work, monkeypatch, judge, retry_errors=True)
    assert len(judge.requests) == 2 * 3 * PERSONAS
    for name in ("results.json", "outcomes.csv"):
        assert (work / "out" / name).read_bytes() == (work / "whole" / name).read_bytes()


def test_a_finished_evaluation_that_asked_again_does_not_end_with_nothing_to_do(work, monkeypatch):
    run(work, monkeypatch, Refuses("reply 1 to q2"))
    monkeypatch.setattr(head_to_head, "make_judge", lambda *_: KnownOrder())
    phase = evaluate(config_for(work, retry_errors=True))
    assert phase is not None and phase.ending.startswith(f"finished: {work / 'out'}; questions 6")
    phase = evaluate(config_for(work))
    assert phase is not None and phase.ending.endswith(
        "was finished before; there is nothing to do"
    )


def test_stand_in_judge_is_labeled_and_another_is_not(work, monkeypatch):
    assert "no clinical meaning" in run(work, monkeypatch, KnownOrder())["note"]
    local = {"judge": "endpoint", "base_url": "http://127.0.0.1:1/v1", "judge_model": "m"}
    assert run(work, monkeypatch, KnownOrder(), out="endpoint", **local)["note"] == ""


def test_killed_in_the_middle_it_goes_on_and_gives_the_same_bytes(work, monkeypatch):
    class Killed(BaseException):
        pass

    class Dies(KnownOrder):
        def answer(self, request):
            if len(self.requests) == 150:
                raise Killed
            return super().answer(request)

    run(work, monkeypatch, KnownOrder(), out="whole")
    with pytest.raises(Killed):
        run(work, monkeypatch, Dies(), out="resumed", max_concurrency=1)
    rest = KnownOrder()
    run(work, monkeypatch, rest, out="resumed", max_concurrency=1)
    assert len(rest.requests) == 2 * 3 * QUESTIONS * REPLIES * PERSONAS - 150
    for name in ("results.json", "outcomes.csv"):
        assert (work / "resumed" / name).read_bytes() == (work / "whole" / name).read_bytes()
    assert counted(work, "resumed") == counted(work, "whole")


def test_finished_evaluation_asks_nothing_again(work, monkeypatch):
    first = run(work, monkeypatch, KnownOrder())
    again = KnownOrder()
    assert run(work, monkeypatch, again) == first and again.requests == []


def test_cut_replies_are_counted_for_the_models_whose_files_tell(work, monkeypatch):
    def ended(response: Response, question: int, n: int) -> Response:
        reasons = ("length", "end") if question % 2 else ("stop", "filter")
        return dataclasses.replace(response, finish_reason=reasons[n % 2])

    rewrite(work, "good", ended)
    rewrite(work, "fair", lambda r, q, n: dataclasses.replace(r, finish_reason="end"))
    results = run(work, monkeypatch, KnownOrder())
    cut_of_each_question = sum(n % 2 == 0 for n in range(REPLIES))
    cut = QUESTIONS // 2 * cut_of_each_question
    total = QUESTIONS * REPLIES
    assert results["cut_replies"] == {
        "good": {"cut": cut, "replies": total},
        "fair": {"cut": 0, "replies": total},
    }
    assert cut > 0
    # Where nobody knows, nothing is said.
    for name in ("good", "fair"):
        rewrite(work, name, lambda r, q, n: r)
    assert "cut_replies" not in run(work, monkeypatch, KnownOrder(), "elsewhere")


def test_manifest_states_the_counts(work, monkeypatch):
    results = run(work, monkeypatch, KnownOrder())
    manifest = json.loads((work / "out" / "manifest.json").read_text())
    assert (
        manifest["results"]["votes_asked"]
        == results["counts"]["votes_asked"]
        == 2 * 3 * QUESTIONS * REPLIES * PERSONAS
    )
    assert set(manifest["outputs"]) == {
        "results.json",
        "outcomes.csv",
    }, "votes of a ledger may still be added to"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r, q, n: None if q == 3 else r, "poor has no reply to question q3, which good has"),
        (lambda r, q, n: None if (q, n) == (2, 1) else r, "poor has 1 replies to question q2, not 2 as good"),
        (
            lambda r, q, n: Response(r.question_id, "else", r.response_id, r.response_text) if q == 4 else r,
            "poor and good have different texts for question q4",
        ),
        (
            lambda r, q, n: Response(r.question_id, f"{n}", r.response_id, r.response_text),
            "question q0 stands there with two different texts",
        ),
    ],
)  # fmt: skip
def test_models_that_do_not_answer_the_same_are_named_with_the_question(
    work, monkeypatch, change, says
):
    rewrite(work, "poor", change)
    with pytest.raises(UserError, match=re.escape(says)) as raised:
        run(work, monkeypatch, KnownOrder())
    assert str(work / "poor.csv") in str(raised.value)
    assert not (work / "out").exists()


def test_a_question_that_only_a_later_model_answers_is_named(work, monkeypatch):
    rewrite(work, "good", lambda r, q, n: None if q == 5 else r)
    with pytest.raises(UserError, match="fair has a reply to question q5, which good has not"):
        run(work, monkeypatch, KnownOrder())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"names": ["good"]}, "at least two models"),
        ({"bootstrap": 0}, "--bootstrap must be at least 1, not 0"),
        ({"only": ("warmth",)}, "warmth"),
        ({"personas_per_question": 9}, "9"),
        ({"responses": ("good.csv", "b=b.csv")}, "'good.csv' must be NAME=VALUE"),
    ],
)
def test_bad_settings_are_named(work, monkeypatch, settings, says):
    with pytest.raises(UserError, match=re.escape(says)):
        run(work, monkeypatch, KnownOrder(), **settings)
