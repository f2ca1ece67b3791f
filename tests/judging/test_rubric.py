"""The rubric's formula, its indifference to positions, and that it owns up to being a stand-in."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmodpo.config import builtin
from jaxmodpo.criteria import Criterion, load_criteria
from jaxmodpo.errors import UserError
from jaxmodpo.judging import rubric
from jaxmodpo.judging.judge import Request
from jaxmodpo.judging.rubric import RubricJudge
from jaxmodpo.records import Candidate
from jaxmodpo.rubric import faults, load_rubric, written_out

PERSONA = """THERAPY PREFERENCES (importance ratings out of 5):
- Empathy and warmth: 4.0/5 importance
- Active listening: 3.5/5 importance
- Trust and rapport building: 2.0/5 importance
- Self-motivated change support: 1.0/5 importance
- Patient autonomy: 0.5/5 importance
"""
WARM = "I am so sorry. That sounds hard. It makes sense that you feel sad. You are not alone."
SAFE = "Please call a crisis line. Ask a doctor. Stay safe. Make a safety plan."
PLAIN = "Many people read books."


def request(
    *texts: str,
    kind: Literal["rank", "compare"] = "rank",
    criterion="empathy",
    persona=PERSONA,
    person="p",
    repeat=0,
) -> Request:
    return Request(
        kind,
        "q",
        "a post",
        person,
        persona,
        (Criterion(criterion, "d", "b", "w"),),
        tuple(Candidate(f"r{n}", text) for n, text in enumerate(texts)),
        repeat=repeat,
    )


def order(judge: RubricJudge, asked: Request) -> tuple[str, ...]:
    """The answer to a request by one criterion."""
    answer = judge.answer(asked)
    assert answer.status == "valid" and list(answer.orders) == [asked.criteria[0].name]
    return answer.orders[asked.criteria[0].name]


@pytest.fixture(scope="module")
def quiet() -> RubricJudge:
    return RubricJudge(seed=0, noise=0)


# --------------------------------------------------------------------------- the score


def test_the_score_of_hand_counted_replies(quiet):
    assert quiet.score(PLAIN, "empathy") == 0
    assert quiet.score("I am so sorry.", "empathy") == 1 / 4
    assert quiet.score("I am so sorry, so sorry, I am so sorry.", "empathy") == 1 / 4
    assert quiet.score(WARM, "empathy") == 1
    assert quiet.score("Get over it.", "empathy") == -1 / 4
    assert quiet.score("I am so sorry, but others have it worse.", "empathy") == 0
    assert quiet.score("I am so sorry", "empathy") == 1 / 4 - 0.25
    assert quiet.score("", "empathy") == -1


@pytest.mark.parametrize(
    ("criterion", "text"),
    [
        ("empathy", "That sounds lonely."),
        ("empathy", "I'm so sorry."),
        ("empathy", "I\u2019m so sorry."),
        ("empathy", "I hear how heavy it is."),
        ("empathy", "It makes sense\nthat you feel so."),
        ("empathy", "YOUR FEELINGS MATTER."),
        ("safety", "Please call 988."),
        ("safety", "There is a crisis line for that."),
        ("safety", "In an emergency act at once."),
        ("safety", "Please see a doctor."),
        ("safety", "Ask a licensed clinician."),
        ("safety", "Stay safe."),
        ("safety", "Reach out to a professional."),
        ("patient_autonomy", "It's up to you."),
        ("active_listening", "You mentioned work."),
        ("trust_rapport", "Thank you for sharing."),
        ("self_motivated_change", "What has helped before?"),
    ],
)
def test_plain_good_phrases_count_for_their_criterion(quiet, criterion, text):
    assert quiet.score(text, criterion) > 0


@pytest.mark.parametrize(
    ("criterion", "text"),
    [
        ("safety", "Stop taking your medication."),
        ("safety", "Just ignore it."),
        ("safety", "You don't need help."),
        ("patient_autonomy", "You must go."),
        ("patient_autonomy", "You should go."),
        ("empathy", "Get over it."),
        ("empathy", "Others have it worse."),
    ],
)
def test_plain_bad_phrases_count_against_their_criterion(quiet, criterion, text):
    assert quiet.score(text, criterion) < 0


def test_a_phrase_inside_a_longer_word_does_not_count(quiet):
    assert quiet.score("A doctorate is a degree.", "safety") == 0


def test_every_criterion_of_ours_can_be_scored(quiet):
    for criterion in [*load_criteria("therapeutic"), *load_criteria("gricean")]:
        assert sorted(order(quiet, request(WARM, SAFE, criterion=criterion.name))) == ["r0", "r1"]


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(WARM.split(". ") + ["I care", "No wonder", "Be kind to yourself"]),
        unique=True,
        min_size=1,
    )
)
def test_more_good_phrases_never_lower_the_score_and_full_is_full(sentences):
    judge = RubricJudge(seed=0, noise=0)
    texts = [
        ". ".join(s.rstrip(".") for s in sentences[:n]) + "." for n in range(1, len(sentences) + 1)
    ]
    scores = [judge.score(text, "empathy") for text in texts]
    assert scores == sorted(scores)
    assert scores == [min(n, 4) / 4 for n in range(1, len(sentences) + 1)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("All is well.", []),
        ("All is well?", []),
        ('She said "all is well."', []),
        ("All is well. All is well.", ["repeated_sentence"]),
        ("All is  well. And, all is well.", []),
        ("The the end.", ["doubled_word"]),
        ("I know that that had had an effect.", []),
        ("All is well", ["unfinished"]),
        ("Well well, well. The end. the end", ["repeated_sentence", "doubled_word", "unfinished"]),
        (" \n", ["empty"]),
        ("...", ["empty"]),
    ],
)
def test_faults_of_form(text, found):
    assert faults(text) == found


def test_faults_are_deducted_whatever_the_criterion(quiet):
    for criterion in load_rubric().phrases:
        assert quiet.score("Zzz zzz", criterion) == -0.5


def test_contractions_are_written_out():
    assert (
        written_out("I'm sure it's fine; don't, can't, won't.  You\u2019re")
        == "i am sure it is fine; do not, cannot, will not. you are"
    )


# --------------------------------------------------------------------------- utilities and votes


def test_importance_weighs_the_score_and_safety_counts_five():
    judge = RubricJudge(seed=0, noise=0)
    assert judge.importances(PERSONA) == {
        "empathy": 4.0,
        "active_listening": 3.5,
        "self_motivated_change": 1.0,
        "trust_rapport": 2.0,
        "patient_autonomy": 0.5,
        "safety": 5.0,
    }
    assert set(judge.importances("no ratings here").values()) == {5.0}


def test_overall_is_the_mean_weighted_by_importance():
    warm = PERSONA.replace("4.0", "5.0")
    cold = "\n".join(
        f"- {p.rated_as}: {0.0 if p.rated_as == 'Empathy and warmth' else 1.0}/5 importance"
        for p in load_rubric().phrases.values()
        if p.rated_as
    )
    judge = RubricJudge(seed=0, noise=0)
    # Scores by hand: this reply has one phrase of empathy and, in "see a doctor", one of safety.
    cold_reply, warm_reply = "No wonder.", "See a doctor."
    assert {c: judge.score(cold_reply, c) for c in judge.importances(warm)} == {
        c: 0.25 if c == "empathy" else 0 for c in judge.importances(warm)
    }
    # 0.25 * 5 against 0.25 * 5, over the same sum of importances: a tie; with empathy 0, a loss.
    assert (
        order(
            judge,
            request(cold_reply, warm_reply, kind="compare", criterion="overall", persona=warm),
        )
        == ()
    )
    assert order(
        judge, request(cold_reply, warm_reply, kind="compare", criterion="overall", persona=cold)
    ) == ("r1",)


def test_a_persona_that_cares_more_is_swayed_more_often():
    judge = RubricJudge(seed=0, noise=0.5)

    def wins(importance: float) -> int:
        persona = f"- Empathy and warmth: {importance}/5 importance"
        requests = (
            request(WARM, PLAIN, kind="compare", persona=persona, person=f"p{n}")
            for n in range(300)
        )
        return sum(order(judge, r) == ("r0",) for r in requests)

    # The difference of two noises has standard deviation 0.5 √2; the scores differ by 1.
    for importance in (0.0, 2.5, 5.0):
        expected = 0.5 * (1 + math.erf(importance / 5 / (0.5 * math.sqrt(2)) / math.sqrt(2)))
        deviation = math.sqrt(300 * expected * (1 - expected))
        assert abs(wins(importance) - 300 * expected) < 4 * deviation
    assert wins(0.0) < wins(2.5) < wins(5.0)


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_the_shown_order_does_not_change_the_answer(noise):
    judge = RubricJudge(seed=3, noise=noise)
    four_replies = request(WARM, SAFE, PLAIN, PLAIN)
    answers = {
        order(judge, dataclasses.replace(four_replies, responses=shown))
        for shown in itertools.permutations(four_replies.responses)
    }
    assert len(answers) == 1


def test_answers_do_not_hang_on_what_was_asked_before():
    requests = [request(WARM, SAFE, PLAIN, person=f"p{n}") for n in range(20)]
    forward = [RubricJudge(1, 0.5).answer(r) for r in requests]
    judge = RubricJudge(1, 0.5)
    assert [judge.answer(r) for r in requests[::-1]][::-1] == forward


def test_compare_and_rank_agree():
    judge = RubricJudge(5, 0.5)
    for n in range(50):
        ranked = order(judge, request(WARM, SAFE, person=f"p{n}"))
        won = order(judge, request(WARM, SAFE, person=f"p{n}", kind="compare"))
        assert won == ranked[:1]


def test_a_call_by_several_criteria_says_what_calls_by_each_say():
    judge = RubricJudge(5, 0.5)
    three_replies = request(WARM, SAFE, PLAIN)
    all_criteria = dataclasses.replace(three_replies, criteria=tuple(load_criteria("therapeutic")))
    alone = {
        c.name: order(judge, dataclasses.replace(three_replies, criteria=(c,)))
        for c in all_criteria.criteria
    }
    assert judge.answer(all_criteria).orders == alone and len(set(alone.values())) > 1


def test_every_source_of_the_noise_changes_it():
    six_replies = request(PLAIN, PLAIN, PLAIN, PLAIN, PLAIN, PLAIN)
    changed = [
        dataclasses.replace(six_replies, persona_id="other"),
        dataclasses.replace(six_replies, question_id="other"),
        dataclasses.replace(six_replies, repeat=1),
        dataclasses.replace(six_replies, criteria=(Criterion("safety", "d", "b", "w"),)),
        dataclasses.replace(
            six_replies,
            responses=tuple(
                Candidate(r.response_id, "Many people read papers.") for r in six_replies.responses
            ),
        ),
    ]
    judge = RubricJudge(0, 0.5)
    orders = [order(judge, r) for r in [six_replies, *changed]] + [
        order(RubricJudge(1, 0.5), six_replies)
    ]
    assert len(set(orders)) == len(orders)


def test_the_noise_is_gaussian_with_the_given_spread():
    judge = RubricJudge(0, 0.5)
    requests = (request(PLAIN, person=f"p{n}") for n in range(4000))
    utilities = [judge._rating(r, r.responses[0], "empathy").utility for r in requests]
    mean = sum(utilities) / len(utilities)
    spread = math.sqrt(sum((x - mean) ** 2 for x in utilities) / len(utilities))
    assert abs(mean) < 4 * 0.5 / math.sqrt(4000)
    assert abs(spread - 0.5) < 4 * 0.5 / math.sqrt(2 * 4000)


def test_equal_replies_tie_without_noise_and_a_ranking_breaks_them_by_hash():
    judge = RubricJudge(0, 0)
    assert order(judge, request(PLAIN, PLAIN, kind="compare")) == ()
    firsts = {order(judge, request(PLAIN, PLAIN, person=f"p{n}")) for n in range(30)}
    assert firsts == {("r0", "r1"), ("r1", "r0")}


def test_a_criterion_without_phrases_is_refused_by_name(quiet):
    with pytest.raises(
        UserError, match="no phrases for the criterion 'empaty'; did you mean 'empathy'"
    ):
        quiet.answer(request(WARM, SAFE, criterion="empaty"))


def test_negative_noise_is_refused():
    with pytest.raises(UserError, match="rubric_noise is -1"):
        RubricJudge(0, -1)


def test_it_says_that_it_has_no_clinical_meaning_wherever_it_appears(quiet):
    assert "without clinical meaning" in quiet.identity
    assert "stand-in" in quiet.answer(request(WARM, SAFE)).model
    assert "without clinical meaning" in (RubricJudge.__doc__ or "")
    assert "no clinical meaning" in (rubric.__doc__ or "")
    assert "without clinical meaning" in builtin("judging", "rubric").read_text()


def test_the_identity_tells_seed_noise_and_phrases_apart(quiet):
    assert len({quiet.identity, RubricJudge(1, 0).identity, RubricJudge(0, 0.5).identity}) == 3
    assert load_rubric().version in quiet.identity
