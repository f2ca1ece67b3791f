"""One right file of every kind of result, for tests that write, damage and read them."""

from __future__ import annotations

from typing import Any

from jaxmodpo.results.demo import Expectation, WorldMeans, WorldResults
from jaxmodpo.results.evaluation import (
    ComparisonJudged,
    Counts,
    CriterionCounts,
    CutReplies,
    EvaluationResults,
    PairTest,
)
from jaxmodpo.results.fronts import (
    Advantage,
    Arm,
    Fronts,
    MeanComparison,
    MeanHypervolumes,
    MeanPoint,
    SeedDifference,
    SeedMean,
)
from jaxmodpo.results.human_study import (
    LABELS,
    AgreementLevels,
    ConsensusBin,
    CorrectedRate,
    CriterionFindings,
    Example,
    ExampleTexts,
    HumanStudyResults,
    JudgeAgreement,
    LeaveOneOut,
    RaterCounts,
    RaterMean,
    StudyExamples,
)
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
from jaxmodpo.results.probes import (
    CONTROL_CHECKS,
    RISK_CHECKS,
    CheckRate,
    ProbedModel,
    ProbeRates,
    ProbeResults,
)
from jaxmodpo.results.reward import (
    Accuracy,
    Calibration,
    CalibrationBin,
    RewardDistribution,
    RewardSummary,
    Validation,
)
from jaxmodpo.results.sweep import (
    Comparison,
    Hypervolume,
    Measured,
    Point,
    ScoreDifference,
    Sweep,
)
from jaxmodpo.results.toxicity import ModelToxicity, ScoreSummary, ToxicityResults, ToxicityTest
from jaxmodpo.results.tuning import Trial, Tuning
from jaxmodpo.results.versioned import Result
from jaxmodpo.results.votes import FailedVotes, VotesAsked

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
    p_value_holm=1.0,
    decisive="p_value_exact",
    average_difference=-0.1,
    average_difference_interval=(-0.3, 0.1),
)
_VOTES = VotesAsked(asked=7, valid=6, failed={"refusal": 1})
_SAFETY_COUNTS = CriterionCounts(
    votes_asked=7,
    valid=6,
    failed={"refusal": 1},
    units=7,
    units_without_valid_vote=1,
    units_tied=0,
    identical_replies=0,
)
COUNTS = Counts(
    **vars(_SAFETY_COUNTS),
    by_criterion={"safety": _SAFETY_COUNTS},
    missing=FailedVotes(personas_with_failed_votes={"p": _VOTES}, models={"m": _VOTES}),
)
EVALUATION = EvaluationResults(
    models={"x": {"safety": 0.4}, "y": {"safety": 0.6}},
    intervals={"x": {"safety": (0.3, 0.5)}, "y": {"safety": None}},
    pairwise={"safety": {"x": {"y": 0.4}, "y": {"x": 0.6}}},
    pairwise_intervals={"safety": {"x": {"y": (0.3, 0.5)}, "y": {"x": None}}},
    tests={"safety": (_TEST,)},
    criteria=("safety",),
    counts=COUNTS,
    questions=7,
    questions_judged=6,
    questions_judged_by_comparison=(ComparisonJudged(criterion="safety", a="x", b="y", judged=6),),
    empty_replies={"x": 0, "y": 0},
    replies_per_question=1,
    judge="j",
    note="",
    cut_replies={"x": CutReplies(cut=3, replies=7)},
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

_EXPECTATION = Expectation(statement="x is ahead of y", holds=False, figures="3 : 4")
WORLD = WorldResults(
    **vars(EVALUATION),
    seed=0,
    kl={"x": 1.5, "y": 0.0},
    malformed={"x": 0.01, "y": 0.0},
    required=(_EXPECTATION,),
    figure_2=(_EXPECTATION,),
)
WORLDS = WorldMeans(
    seeds=(0, 1),
    models=EVALUATION.models,
    intervals={"x": {"safety": (0.3, 0.5)}, "y": {"safety": (0.5, 0.7)}},
    pairwise=EVALUATION.pairwise,
    kl=WORLD.kl,
    malformed=WORLD.malformed,
    required=(_EXPECTATION,),
    figure_2=(_EXPECTATION,),
)

_BASE = Measured(
    label="base",
    adapter=None,
    scale=1.0,
    weights=None,
    scores={"a": 0.1, "b": 0.2},
    kl=0.0,
    kl_standard_error=None,
    per_question={"a": {"q": 0.1}, "b": {"q": 0.2}},
)
_POINT = Point(
    label="modpo_0.50_0.50",
    scale=1.0,
    weights=(0.5, 0.5),
    scores={"a": 0.2, "b": 0.3},
    kl=0.1,
    kl_standard_error=0.05,
)
_SCORE_DIFFERENCE = ScoreDifference(value=0.0, interval=(-0.1, 0.1))
_COMPARISON = Comparison(
    weights=(0.5, 0.5),
    kl={"modpo": 0.1, "soup": 0.1},
    scale={"modpo": 1.0, "soup": 1.0},
    differences={"a": _SCORE_DIFFERENCE, "b": _SCORE_DIFFERENCE, "weighted": _SCORE_DIFFERENCE},
)
SWEEP = Sweep(
    objectives=("a", "b"),
    base=_BASE.as_model(),
    fronts={"modpo": (_POINT,), "soup": (_POINT,)},
    reference_point={"a": 0.1, "b": 0.2},
    hypervolume={
        "modpo": Hypervolume(value=0.1, interval=(0.0, 0.2), undominated=1),
        "soup": Hypervolume(value=0.1, interval=(0.0, 0.2), undominated=1),
        "modpo - soup": Hypervolume(value=0.0, interval=(-0.1, 0.1)),
    },
    equal_weights=(_COMPARISON,),
    matched_kl=(),
)

_MEAN = SeedMean(mean=0.2, interval=(0.1, 0.3))
_SEED_DIFFERENCE = SeedDifference(mean=0.2, interval=None, seeds_above=1)
_MEAN_POINT = MeanPoint(weights=(0.5, 0.5), scores={"a": _MEAN, "b": _MEAN}, kl=_MEAN)
_MEAN_COMPARISON = MeanComparison(
    weights=(0.5, 0.5),
    kl={"modpo": _MEAN, "soup": _MEAN},
    differences={"weighted": _MEAN, "a": _MEAN, "b": _MEAN},
)
FRONTS = Fronts(
    arms={
        "best_worst": Arm(
            objectives=("a", "b"),
            seeds=1,
            base={"a": _MEAN, "b": _MEAN},
            fronts={"modpo": (_MEAN_POINT,), "soup": (_MEAN_POINT,)},
            matched_fronts={"modpo": (_MEAN_POINT,), "soup": (_MEAN_POINT,)},
            hypervolume=MeanHypervolumes(modpo=_MEAN, soup=_MEAN, difference=_SEED_DIFFERENCE),
            equal_weights=(_MEAN_COMPARISON,),
            matched_kl=(_MEAN_COMPARISON,),
        )
    },
    between={"modpo": Advantage(hypervolume=_SEED_DIFFERENCE, weighted=(_SEED_DIFFERENCE,))},
)

TUNING = Tuning(
    seed=100,
    trials={
        "dpo_empathy": (
            Trial(
                settings={"beta": 1.0},
                objective=0.75,
                empathy_wins=0.5,
                safety_wins=1.0,
                empathy=0.0,
                safety=0.25,
                malformed=0.01,
            ),
        )
    },
)

_RATE = CheckRate(count=1, replies=1, interval=(0.2, 1.0))
_NO_RATE = CheckRate(count=0, replies=0, interval=None)
_RATES = ProbeRates(probes=1, replies=1, rates=dict.fromkeys(RISK_CHECKS, _RATE))
_NO_RATES = ProbeRates(probes=0, replies=0, rates=dict.fromkeys(CONTROL_CHECKS, _NO_RATE))
PROBES = ProbeResults(
    note="A screen.",
    judge="rubric",
    probe_set="0",
    checks={"help": "urges towards help"},
    models={
        "a": ProbedModel(
            risk=_RATES,
            risk_by_kind={"suicide": _RATES},
            risk_by_form={"explicit": _RATES},
            controls=_NO_RATES,
            controls_by_kind={},
            controls_by_form={},
            without_verdict=0,
            empty=0,
            cut=0,
        )
    },
)

_SCORE = ScoreSummary(
    scored=3,
    mean=0.25,
    mean_interval=(0.1, 0.4),
    above=1,
    share=1 / 3,
    share_interval=(0.05, 0.8),
)
_TOXICITY_OF = ModelToxicity(
    questions=3, replies=4, empty=1, failed={}, cut=0, scores={"toxicity": _SCORE}
)
TOXICITY = ToxicityResults(
    scorer="classifier",
    note="Read this first.",
    headline="toxicity",
    threshold=0.5,
    scores=("toxicity",),
    models={"a": _TOXICITY_OF, "b": _TOXICITY_OF},
    tests=(
        ToxicityTest(
            score="toxicity",
            a="a",
            b="b",
            questions=3,
            mean_difference=0.0,
            mean_difference_interval=None,
            mean_p_value=1.0,
            mean_p_adjusted=1.0,
            more=1,
            fewer=1,
            equal=1,
            share_p_value=1.0,
            share_p_adjusted=1.0,
            share_test="exact",
        ),
    ),
)

_SHARE = Estimate(value=0.5, interval=(0.3, 0.7))
_NOBODY = Estimate(value=None, interval=None, undefined="nobody answered this criterion")
_RATERS = RaterMean(value=0.8, standard_error=0.05, interval=(0.7, 0.9), raters=3)
_LEFT_OUT = LeaveOneOut(accuracy=_RATERS, kappa=_RATERS, ac1=_RATERS)
_AGREES = JudgeAgreement(questions=2, accuracy=_SHARE, kappa=_NOBODY, ac1=_SHARE)
HUMAN_STUDY = HumanStudyResults(
    title="Comparing replies",
    models=("x", "y"),
    questions=2,
    raters=RaterCounts(counted=3, excluded={"failed 2 attention checks": 1}, median_seconds=61.5),
    criteria={
        "safety": CriterionFindings(
            questions=2,
            answers=6,
            shares=dict.fromkeys(LABELS, _SHARE),
            fleiss=_SHARE,
            leave_one_out=_LEFT_OUT,
            leave_one_out_of_all=_LEFT_OUT,
            two_class=_AGREES,
            three_class=_AGREES,
            levels=AgreementLevels(human_human=_SHARE, human_judge=_SHARE, judge_majority=_SHARE),
            confusion=((1, 0, 0), (0, 1, 0), (0, 0, 0)),
            consensus=(ConsensusBin(above=0.9, to=1.0, questions=2, accuracy=_SHARE),),
            inflation=_SHARE,
            intraclass=_NOBODY,
            corrected=CorrectedRate(
                judge=_SHARE,
                people=_SHARE,
                corrected=_SHARE,
                weight=0.4,
                labeled=2,
                unlabeled=5,
                more_labels=None,
            ),
            examples=(
                Example(
                    majority="a",
                    judge="equal",
                    question_id="q1",
                    item_id="4f2a91c0",
                    votes=dict.fromkeys(LABELS, 1),
                ),
            ),
        )
    },
    judge_is_samples=True,
    bootstrap=100,
)

RIGHT_RESULTS: dict[str, Result] = {
    "human_study.json": HUMAN_STUDY,
    "examples.json": StudyExamples(
        texts={"4f2a91c0": ExampleTexts(post="a post", reply_a="one", reply_b="another")}
    ),
    "tuning.json": TUNING,
    "results.json": EVALUATION,
    "judges.json": JUDGES,
    "validation.json": VALIDATION,
    "kl.json": Divergence(kl=3.1, standard_error=None, replies=1),
    "sweep.json": SWEEP,
    "points/base.json": _BASE,
    "fronts.json": FRONTS,
    "world/results.json": WORLD,
    "worlds/results.json": WORLDS,
    "probes.json": PROBES,
    "toxicity.json": TOXICITY,
    "malformed.json": Malformed(malformed=0.5, replies=4, sentences_per_reply={"warm": 0.75}),
}
