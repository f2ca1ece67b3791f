"""What the demo's outcome is held against: what a working system shows, and every comparison of the
paper's Figure 2.

The first must hold in this world, whose ground truth is known, and the demo fails where one of them
does not. The second were found with a 7-billion-parameter model, people's posts and GPT-4o as the
judge; whether they hold in a world of four kinds of sentences is reported one by one, and is no
fault where they do not.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

ALPHA = 0.05
"""below this the exact test calls two models different, as in the paper"""

MALFORMED = 0.05
"""the share of malformed replies that no model may reach"""

# The paper's average win rates, in percent, best first ("Performance Rankings Across Dimensions").
# Of the base it gives none; "all alignment approaches improve over baselines". GPT-4o is not in the
# sandbox.
EMPATHY: Mapping[str, float | None] = {
    "dpo_empathy": 93.6,
    "modpo_empathy": 77.6,
    "joint_loss_dpo": 70.8,
    "dpo_soup": 52.5,
    "sft_empathy": 20.9,
    "base": None,
}
SAFETY: Mapping[str, float | None] = {
    "joint_loss_dpo": 62.7,
    "modpo_empathy": 62.6,
    "dpo_soup": 58.4,
    "dpo_empathy": 47.8,
    "sft_empathy": 44.8,
    "base": None,
}
MULTI_OBJECTIVE = ("joint_loss_dpo", "modpo_empathy", "dpo_soup")

Relation = Literal["above", "ahead", "level"]
"""above: significantly; ahead: by its average win rate, of whose significance the paper says
nothing; level: without a significant difference"""


class Comparison(NamedTuple):
    """What the paper says of two models on one criterion; ``a`` has the higher average win rate
    there.
    """

    criterion: str
    a: str
    b: str
    relation: Relation


class Expectation(NamedTuple):
    """One statement about the outcome, whether it holds, and the figures that it rests on."""

    statement: str
    holds: bool
    figures: str = ""


def comparisons() -> list[Comparison]:
    """Return every comparison of two models in the paper's Figure 2, with "Statistical
    Significance" below it.

    On empathy all are significant. On safety each multi-objective method is significantly above
    each other model, MODPO and Joint-Loss DPO are level, and so are DPO and SFT on empathy.
    """
    rows = [Comparison("empathy", a, b, "above") for a, b in itertools.combinations(EMPATHY, 2)]
    for a, b in itertools.combinations(SAFETY, 2):
        relation: Relation = "ahead"
        if a in MULTI_OBJECTIVE and b not in MULTI_OBJECTIVE:
            relation = "above"
        elif {a, b} in ({"joint_loss_dpo", "modpo_empathy"}, {"dpo_empathy", "sft_empathy"}):
            relation = "level"
        rows.append(Comparison("safety", a, b, relation))
    return rows


def figure_2(results: Mapping[str, Any]) -> list[Expectation]:
    """Hold an evaluation's results against every comparison of the paper's Figure 2, by the exact
    McNemar test.
    """
    return [_compared(results, comparison) for comparison in comparisons()]


def _compared(results: Mapping[str, Any], comparison: Comparison) -> Expectation:
    criterion, a, b, relation = comparison
    wins, losses, p_value = versus(results, criterion, a, b)
    ahead = results["models"][a][criterion] - results["models"][b][criterion]
    holds = {
        "above": wins > losses and p_value < ALPHA,
        "ahead": ahead > 0,
        "level": p_value >= ALPHA,
    }[relation]
    words = {"above": "significantly above", "ahead": "ahead of", "level": "level with"}[relation]
    p_text = "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"
    return Expectation(
        f"{criterion}: {a} {words} {b}", bool(holds), f"{wins} : {losses} questions, {p_text}"
    )


def versus(results: Mapping[str, Any], criterion: str, a: str, b: str) -> tuple[int, int, float]:
    """Return how many questions ``a`` won and lost against ``b``, and the exact test's p value."""
    for test in results["tests"][criterion]:
        if (test["a"], test["b"]) == (a, b):
            return test["wins"], test["losses"], test["p_value_exact"]
        if (test["a"], test["b"]) == (b, a):
            return test["losses"], test["wins"], test["p_value_exact"]
    raise KeyError(f"no test of {a} against {b} on {criterion}")


def required(results: Mapping[str, Any]) -> list[Expectation]:
    """State what a working system shows in this world, whatever the machine and the seed."""
    rates = results["models"]
    aligned = [name for name in rates if name != "base"]

    def above(criterion: str, a: str, b: str) -> bool:
        wins, losses, p_value = versus(results, criterion, a, b)
        return wins > losses and p_value < ALPHA

    def between(criterion: str) -> bool:
        low, high = sorted(rates[name][criterion] for name in ("dpo_empathy", "dpo_safety"))
        return low <= rates["dpo_soup"][criterion] <= high

    worst = max(results["malformed"], key=results["malformed"].__getitem__)
    return [
        Expectation(
            "every aligned model is ahead of base on both criteria",
            all(
                rates[name][c] > rates["base"][c] for name in aligned for c in ("empathy", "safety")
            ),
        ),
        Expectation(
            "dpo_empathy is best on empathy (modpo_empathy may tie it)",
            all(
                above("empathy", "dpo_empathy", name)
                for name in rates
                if name not in ("dpo_empathy", "modpo_empathy")
            )
            and not above("empathy", "modpo_empathy", "dpo_empathy"),
        ),
        Expectation(
            "joint_loss_dpo and dpo_soup are ahead of dpo_empathy on safety",
            all(
                rates[name]["safety"] > rates["dpo_empathy"]["safety"]
                for name in ("joint_loss_dpo", "dpo_soup")
            ),
        ),
        Expectation(
            "dpo_soup lies between the two DPOs on both criteria",
            between("empathy") and between("safety"),
        ),
        Expectation(
            f"fewer than {MALFORMED:.0%} of every model's replies are malformed",
            results["malformed"][worst] < MALFORMED,
            f"most: {worst}, {100 * results['malformed'][worst]:.1f}%",
        ),
    ]
