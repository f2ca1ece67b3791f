"""One right file of every kind of result, for tests that write, damage and read them."""

from __future__ import annotations

from typing import Any

from jaxmodpo.results.evaluation import ComparisonJudged, EvaluationResults, PairTest
from jaxmodpo.results.judges import (
    BothOrders,
    ComparedAgain,
    ComparedPosition,
    Estimate,
    FailedOf,
    FailedOfJudge,
    Judge,
    Judges,
    JudgesOfComparisons,
    Mean,
    Missing,
    PersonaAgreement,
    RankedAgain,
    RankedPosition,
    SharedComparisons,
    VoteCounts,
)
from jaxmodpo.results.measures import Divergence, Malformed
from jaxmodpo.results.reward import (
    Accuracy,
    Calibration,
    CalibrationBin,
    RewardDistribution,
    RewardSummary,
    Validation,
)
from jaxmodpo.results.versioned import Result

_TEST = PairTest(
    a="x",
    b="y",
    wins=3,
    losses=4,
    ties=0,
    statistic=0.14,
    p_value=0.7,
    statistic_corrected=0.0,
    p_value_corrected=1.0,
    p_value_exact=1.0,
    decisive="p_value_exact",
    average_difference=-0.1,
    average_difference_interval=(-0.3, 0.1),
)
EVALUATION = EvaluationResults(
    models={"x": {"safety": 0.4}, "y": {"safety": 0.6}},
    intervals={"x": {"safety": (0.3, 0.5)}, "y": {"safety": None}},
    pairwise={"safety": {"x": {"y": 0.4}, "y": {"x": 0.6}}},
    pairwise_intervals={"safety": {"x": {"y": (0.3, 0.5)}, "y": {"x": None}}},
    tests={"safety": (_TEST,)},
    criteria=("safety",),
    counts={"votes": 7},
    questions=7,
    questions_judged=6,
    questions_judged_by_comparison=(ComparisonJudged(criterion="safety", a="x", b="y", judged=6),),
    empty_replies={"x": 0, "y": 0},
    replies_per_question=1,
    judge="j",
    note="",
)

_ESTIMATE = Estimate(value=0.5, interval=(0.4, 0.6))
_UNDEFINED = Estimate(value=None, interval=None, undefined="nobody saw both orders")
_COMPARED: dict[str, Any] = {
    "judge": "j",
    "kind": "compare",
    "shown": 2,
    "criterion": "safety",
    "questions": 2,
    "personas": 2,
}
_RANKED = _COMPARED | {"kind": "rank", "shown": 3}
_SHARED = SharedComparisons(
    shared=2,
    questions=2,
    decided=2,
    raw=_ESTIMATE,
    agreement=_ESTIMATE,
    kappa=_UNDEFINED,
    ac1=_UNDEFINED,
)
JUDGES = Judges(
    judges=(Judge(name="j", ledger="l", identity="i", model="m", valid_votes=3),),
    ledgers=("votes.sqlite",),
    run=None,
    counts=VoteCounts(votes=3, valid=2, failed=1, superseded=0),
    position=(
        ComparedPosition(
            **_COMPARED,
            votes=3,
            units=2,
            units_in_one_order=0,
            first=2,
            second=1,
            ties=0,
            first_share=_ESTIMATE,
            wilson=(0.2, 0.9),
            effect=_UNDEFINED,
        ),
        RankedPosition(
            **_RANKED,
            votes=3,
            units=2,
            units_in_one_order=2,
            mean_ranks=(Mean(value=1.5, interval=None),) * 3,
            first_places=(_ESTIMATE,) * 3,
            friedman=None,
            p_value=None,
        ),
    ),
    both_orders=(
        BothOrders(
            **_COMPARED,
            pairs=1,
            consistent=_ESTIMATE,
            first_both_times=1,
            second_both_times=0,
            tie_once=0,
        ),
    ),
    repeats=(
        ComparedAgain(**_COMPARED, votes=2, requests=1, pairs=1, same=_ESTIMATE),
        RankedAgain(
            **_RANKED,
            votes=2,
            requests=1,
            pairs=1,
            same=_ESTIMATE,
            same_best=_ESTIMATE,
            tau=_ESTIMATE,
        ),
    ),
    personas=(
        PersonaAgreement(
            **_COMPARED,
            votes=3,
            units=2,
            units_with_one_vote=0,
            level="nominal",
            alpha=_ESTIMATE,
            agreement=_ESTIMATE,
        ),
    ),
    judges_compared=(
        JudgesOfComparisons(
            a="j",
            b="k",
            kind="compare",
            shown=2,
            criterion="safety",
            votes=_SHARED,
            majorities=_SHARED,
        ),
    ),
    missing=Missing(
        votes=3,
        valid=2,
        failed=1,
        statuses={"refusal": 1},
        by_criterion=(
            FailedOfJudge(
                judge="j",
                criterion="safety",
                votes=3,
                failed=1,
                statuses={"refusal": 1},
                failed_share=_ESTIMATE,
            ),
        ),
        by_model=(FailedOf(name="m", votes=3, failed=1),),
        personas_most_affected=(FailedOf(name="p", votes=2, failed=1),),
    ),
    resamples=50,
    seed=42,
)

_SUMMARY = RewardSummary(mean=0.5, std=0.1, quantiles=(0.4, 0.6), histogram=(7,))
VALIDATION = Validation(
    questions=7,
    pairs=7,
    tied_pairs_left_out=0,
    accuracy=0.7,
    accuracy_interval=(0.5, 0.9),
    loss=0.6,
    all_pairs=Accuracy(pairs=9, accuracy=0.8, accuracy_interval=None, loss=0.5),
    calibration=Calibration(
        bins=(CalibrationBin(low=0.5, high=0.6, pairs=7, probability=0.55, agreement=0.7),),
        expected_calibration_error=0.1,
    ),
    rewards=RewardDistribution(
        quantiles=(5, 95), histogram_edges=(0.0, 1.0), best=_SUMMARY, worst=_SUMMARY
    ),
)

RIGHT_RESULTS: dict[str, Result] = {
    "results.json": EVALUATION,
    "judges.json": JUDGES,
    "validation.json": VALIDATION,
    "kl.json": Divergence(kl=3.1, standard_error=None, replies=1),
    "malformed.json": Malformed(malformed=0.5, replies=4, sentences_per_reply={"warm": 0.75}),
}
