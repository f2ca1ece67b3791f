"""Table 1 out of scores: numbers worked out by hand, ties, nothing and one question."""

from __future__ import annotations

import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from jaxmodpo.toxicity.summary import (
    Rules,
    ScoredReply,
    paired_tests,
    summarize_model,
    table_rows,
)

RULES = Rules(threshold=0.5, resamples=200, seed=0)


def replies(model: str, *scores: float | None, per_question: int = 1) -> list[ScoredReply]:
    """Return replies, None for one without scores: ``per_question`` to each question."""
    rows: list[ScoredReply] = []
    for number, score in enumerate(scores):
        question, reply = divmod(number, per_question)
        named = {} if score is None else {"toxicity": score}
        status = "refusal" if score is None else "valid"
        rows.append(ScoredReply(model, f"q{question}", reply + 1, status, named))
    return rows


def test_the_papers_counts_have_wilsons_intervals():
    base = summarize_model(replies("base", *[0.9] * 7, *[0.1] * 593), ["toxicity"], RULES)
    summary = base.scores["toxicity"]
    assert (summary.above, summary.scored) == (7, 600)
    assert summary.share == pytest.approx(7 / 600)
    assert summary.share_interval == pytest.approx(
        proportion_confint(7, 600, method="wilson"), abs=1e-12
    )
    assert summary.mean == pytest.approx((7 * 0.9 + 593 * 0.1) / 600)
    assert summary.mean_interval is not None and summary.mean is not None
    low, high = summary.mean_interval
    assert 0.1 < low < summary.mean < high < 0.13


def test_the_threshold_itself_counts_and_a_share_of_0_is_not_certain():
    counted = summarize_model(replies("a", 0.5, 0.4999), ["toxicity"], RULES)
    assert counted.scores["toxicity"].above == 1
    none = summarize_model(replies("a", *[0.1] * 20), ["toxicity"], RULES).scores["toxicity"]
    assert none.share == 0.0 and none.share_interval == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_several_replies_to_a_question_count_as_one_trial():
    many = summarize_model(
        replies("a", 0.9, 0.1, 0.1, 0.1, per_question=2), ["toxicity"], RULES
    ).scores["toxicity"]
    assert (many.scored, many.above, many.share) == (4, 1, 0.25)
    assert many.share_interval == pytest.approx(proportion_confint(0.5, 2, method="wilson"))


def test_failed_empty_and_cut_replies_are_counted_and_not_scored():
    rows = [
        *replies("a", 0.9, None),
        ScoredReply("a", "q8", 1, "", {}),
        ScoredReply("a", "q9", 1, "valid", {"toxicity": 0.1}, is_cut=True),
    ]
    model = summarize_model(rows, ["toxicity", "insult"], RULES)
    assert (model.questions, model.replies, model.empty, model.cut) == (4, 4, 1, 1)
    assert model.failed == {"refusal": 1}
    assert model.scores["toxicity"].scored == 2
    nothing = model.scores["insult"]
    assert (nothing.scored, nothing.mean, nothing.share, nothing.share_interval) == (
        0,
        None,
        None,
        None,
    )
    row = table_rows({"a": model}, 0.5)[1]
    assert (row["score"], row["mean"], row["share_low"]) == ("insult", None, None)


def test_tests_pair_questions_and_agree_with_scipy():
    a = [0.9, 0.8, 0.2, 0.7, 0.1, 0.3]
    b = [0.1, 0.2, 0.3, 0.6, 0.1, 0.2]
    (test,) = paired_tests({"a": replies("a", *a), "b": replies("b", *b)}, ["toxicity"], RULES)
    assert (test.questions, test.more, test.fewer, test.equal) == (6, 2, 0, 4)
    assert test.mean_difference == pytest.approx((sum(a) - sum(b)) / 6)
    differences = [x - y for x, y in zip(a, b, strict=True)]
    expected = stats.permutation_test(
        (differences,), lambda d, axis: d.mean(axis), permutation_type="samples"
    ).pvalue
    assert test.mean_p_value == pytest.approx(expected)
    assert test.share_p_value == pytest.approx(stats.binomtest(2, 2).pvalue) == 0.5
    assert test.share_test == "exact" and test.share_p_adjusted == 0.5


def test_p_values_of_one_score_are_adjusted_together():
    models: dict[str, list[ScoredReply]] = {}
    for name, toxic in (("a", 0), ("b", 6), ("c", 12)):
        models[name] = replies(name, *[0.9] * toxic, *[0.1] * (12 - toxic))
    tests = paired_tests(models, ["toxicity"], RULES)
    raw = [test.share_p_value for test in tests]
    assert raw == pytest.approx([2 / 2**6, 2 / 2**12, 2 / 2**6])
    adjusted = [test.share_p_adjusted for test in tests]
    assert adjusted == pytest.approx([2 * 2 / 2**6, 3 * 2 / 2**12, 2 * 2 / 2**6])


def test_models_without_a_common_question_have_no_test_and_equal_ones_p_1():
    other = [ScoredReply("b", "elsewhere", 1, "valid", {"toxicity": 0.9})]
    (test,) = paired_tests({"a": replies("a", 0.9), "b": other}, ["toxicity"], RULES)
    assert (test.questions, test.mean_difference, test.mean_p_value) == (0, None, None)
    assert (test.share_p_value, test.share_p_adjusted) == (None, None)
    same = {name: replies(name, 0.9, 0.1) for name in ("a", "b")}
    (test,) = paired_tests(same, ["toxicity"], RULES)
    assert (test.mean_difference, test.mean_p_value, test.share_p_value) == (0.0, 1.0, 1.0)
    assert paired_tests({"a": replies("a", 0.9)}, ["toxicity"], RULES) == []


def test_of_one_question_there_is_a_mean_and_no_interval_of_it():
    summary = summarize_model(replies("a", 0.25), ["toxicity"], RULES).scores["toxicity"]
    assert (summary.mean, summary.mean_interval) == (0.25, None)
    assert summary.share_interval is not None
