"""How far judges' votes can be believed, from their ledgers alone.

Five questions, each answered by criterion: does the judge favour a position, does it say the same
when asked again, do personas agree, do two judges agree, and which votes are missing. Everything is
counted from votes as they are recorded; no vote is made up for one that failed. The module is apart
from the evaluation because it also serves preference collection, and compares ledgers of several
runs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from jaxmodpo.evaluation import agreement
from jaxmodpo.evaluation.agreement import Array
from jaxmodpo.evaluation.judge_agreement import compare_judges
from jaxmodpo.evaluation.sums import (
    ALL,
    Estimator,
    Row,
    add_up,
    by_question,
    count_values,
    share,
    square_tables,
    verdicts,
)
from jaxmodpo.evaluation.vote_table import Numbers, Record, VoteTable, read_votes, together
from jaxmodpo.intervals import wilson_interval
from jaxmodpo.judging.ledger import Ledger

MOST_AFFECTED = 10
"""personas that are named for their failed votes"""


def analyse(
    ledgers: Sequence[Ledger], *, run: str | None = None, resamples: int = 2000, seed: int = 42
) -> Row:
    """Read ledgers and return everything that is said about their judges, as plain values.

    Raises:
        UserError: no votes, or a vote that cannot be one.
    """
    record = read_votes(ledgers, run)
    estimator = functools.partial(agreement.estimate, resamples=resamples, seed=seed)
    parts: dict[str, list[Row]] = {
        name: [] for name in ("position", "both_orders", "repeats", "personas", "judges")
    }
    for votes in record.tables:
        answered = votes.where(votes.judge >= 0)
        first_time = answered.where(answered.repeat == 0)
        ballots = cast_ballots(votes.where(votes.repeat == 0))
        for names, part in _groups(record, first_time):
            parts["position"].append(names | position(part, estimator))
            parts["both_orders"] += [names | row for row in both_orders(part, estimator)]
        for names, part in _groups(record, answered):
            parts["repeats"] += [names | row for row in repeats(part, estimator)]
        for names, part in _groups(record, ballots):
            parts["personas"].append(names | personas(part, estimator))
        parts["judges"] += compare_judges(record, ballots, estimator)
    missing = missingness(record, estimator)
    counts = {name: missing[name] for name in ("votes", "valid", "failed")} | {
        "superseded": record.superseded
    }
    return {
        "judges": [
            judge._asdict()
            | {"valid_votes": int(sum((votes.judge == n).sum() for votes in record.tables))}
            for n, judge in enumerate(record.judges)
        ],
        "ledgers": [ledger.shown_location for ledger in ledgers],
        "run": run,
        "counts": counts,
        "position": parts["position"],
        "both_orders": parts["both_orders"],
        "repeats": parts["repeats"],
        "personas": parts["personas"],
        "judges_compared": parts["judges"],
        "missing": missing,
        "resamples": resamples,
        "seed": seed,
    }


def _groups(record: Record, votes: VoteTable) -> Iterator[tuple[Row, VoteTable]]:
    """Yield each judge's votes by each criterion, and by all where there are several."""
    for number, judge in enumerate(record.judges):
        own = votes.where(votes.judge == number)
        for criterion, part in _by_criterion(record, own):
            yield (
                {
                    "judge": judge.name,
                    "kind": votes.kind,
                    "shown": votes.shown,
                    "criterion": criterion,
                },
                part,
            )


def _by_criterion(record: Record, votes: VoteTable) -> Iterator[tuple[str, VoteTable]]:
    found = sorted(np.unique(votes.criterion), key=lambda number: record.criteria[number])
    for number in found:
        yield record.criteria[number], votes.where(votes.criterion == number)
    if len(found) > 1:
        yield ALL, votes


def _counts(votes: VoteTable) -> Row:
    names = {"questions": votes.question, "personas": votes.persona}
    return {"votes": len(votes)} | {name: len(np.unique(column)) for name, column in names.items()}


# --------------------------------------------------------------------------- position


def position(votes: VoteTable, estimator: Estimator) -> Row:
    """Return what the position shown does to one judge's votes.

    ``units_in_one_order`` counts units (a question, its responses, a criterion) that all personas
    saw in the same order: there a response's worth cannot be told from its place.
    """
    unit = together(votes.unit, votes.criterion)
    orders = np.unique(np.stack([unit, votes.order], axis=1), axis=0)[:, 0]
    units, different = np.unique(orders, return_counts=True)
    counted = _counts(votes) | {
        "units": len(units),
        "units_in_one_order": int((different == 1).sum()),
    }
    return counted | (
        _compared(votes, unit, estimator) if votes.kind == "compare" else _ranked(votes, estimator)
    )


def first_shown_won(votes: VoteTable) -> tuple[Numbers, Numbers]:
    """Return of each comparison whether the first shown won, and whether either did."""
    first = (votes.positions[:, 0] != 0).astype(int)
    rows = np.arange(len(votes))
    won, lost = (votes.ranks[rows, side] for side in (first, 1 - first))
    return won < lost, won != lost


def _compared(votes: VoteTable, unit: Numbers, estimator: Estimator) -> Row:
    """Return the first shown's share of decided votes, and what being first adds to a response's
    share.

    The effect compares a unit's two halves: P(a wins | a first) − P(a wins | a second), averaged
    over units with Mantel and Haenszel's weights n₁n₂ / (n₁ + n₂). It holds where positions are not
    balanced.
    """
    won, decided = first_shown_won(votes)
    firsts, total = int(won.sum()), int(decided.sum())
    wilson = wilson_interval(firsts, total)
    _, at, inverse = np.unique(unit, return_index=True, return_inverse=True)
    upper_first = votes.positions[:, 0] == 0
    upper_won = won == upper_first
    cells = [upper_first, ~upper_first, upper_first & upper_won, ~upper_first & upper_won]
    seen_first, seen_second, won_first, won_second = add_up(
        inverse, np.stack(cells, axis=1) & decided[:, None], len(at)
    ).T
    both = np.maximum(seen_first + seen_second, 1)
    gained = (won_first * seen_second - won_second * seen_first) / both
    sums = by_question(votes.question[at], gained, seen_first * seen_second / both)
    return {
        "first": firsts,
        "second": total - firsts,
        "ties": len(votes) - total,
        "first_share": estimator(
            by_question(votes.question, won, decided), share, "no vote is decided"
        ),
        "wilson": None if wilson is None else list(wilson),
        "effect": estimator(sums, share, "no two personas saw a pair in different orders"),
    }


def _ranked(votes: VoteTable, estimator: Estimator) -> Row:
    """Return the mean rank given to each position, 1 the best, and Friedman's test against equal
    ones.

    The test takes votes as independent, so it is left out for several criteria together, whose
    votes share an order, and where all personas saw one order.
    """
    shown = np.arange(votes.shown)
    by_position = np.empty((len(votes), votes.shown), np.int16)
    np.put_along_axis(
        by_position, votes.positions.astype(np.int64), votes.ranks.astype(np.int16) + 1, axis=1
    )
    sums = by_question(votes.question, by_position, np.ones(len(votes)))
    means = [estimator(sums[:, [place, -1]], share, "no votes") for place in shown]
    tops = by_question(votes.question, by_position == 1, np.ones(len(votes)))
    unit = together(votes.unit, votes.criterion)
    varied = len(np.unique(together(unit, votes.order))) > len(np.unique(unit))
    one_criterion = len(np.unique(votes.criterion)) == 1
    test: Row = {"friedman": None, "p_value": None}
    if varied and one_criterion:
        test["friedman"], test["p_value"] = agreement.friedman(
            [mean["value"] for mean in means], len(votes)
        )
    return {
        "mean_ranks": means,
        "first_places": [estimator(tops[:, [place, -1]], share, "no votes") for place in shown],
        **test,
    }


def both_orders(votes: VoteTable, estimator: Estimator) -> list[Row]:
    """Return how often a persona that saw a pair in both orders kept to its verdict; nothing where
    none did.
    """
    if votes.kind != "compare":
        return []
    voter = together(votes.unit, votes.criterion, votes.persona)
    rows = np.argsort(voter, kind="stable")
    pair = np.flatnonzero(voter[rows[1:]] == voter[rows[:-1]])
    one, other = votes.where(rows[pair]), votes.where(rows[pair + 1])
    if not len(one):
        return []
    equal = (one.ranks == other.ranks).all(axis=1)
    (first, decided), (first_again, decided_again) = first_shown_won(one), first_shown_won(other)
    turned = decided & decided_again & ~equal
    row = _counts(one)
    row["pairs"] = row.pop("votes")
    return [
        row
        | {
            "consistent": estimator(
                by_question(one.question, equal, np.ones(len(one))), share, "nobody saw both orders"
            ),
            "first_both_times": int((turned & first & first_again).sum()),
            "second_both_times": int((turned & ~first & ~first_again).sum()),
            "tie_once": int((decided != decided_again).sum()),
        }
    ]


# --------------------------------------------------------------------------- repeats


def repeats(votes: VoteTable, estimator: Estimator) -> list[Row]:
    """Return how often the same request got the same answer; nothing where none was asked twice.

    Every two answers to a request are compared. Of rankings also Kendall's τ, which is the mean
    over every two responses of 1 for the same order and −1 for the opposite one; and the same first
    place.
    """
    request = together(votes.unit, votes.criterion, votes.persona, votes.order)
    _, inverse, times = np.unique(request, return_inverse=True, return_counts=True)
    votes, inverse = votes.where(times[inverse] > 1), inverse[times[inverse] > 1]
    if not len(votes):
        return []
    _, at, request = np.unique(inverse, return_index=True, return_inverse=True)
    times, question = np.bincount(request), votes.question[at]
    pairs = times * (times - 1) / 2
    why = "no request was answered twice"
    same = _pairs_alike(request, together(*votes.ranks.T))
    row = _counts(votes) | {"requests": len(at), "pairs": int(pairs.sum())}
    row["same"] = estimator(by_question(question, same, pairs), share, why)
    if votes.kind == "rank":
        best = _pairs_alike(request, votes.ranks.argmin(axis=1))
        row["same_best"] = estimator(by_question(question, best, pairs), share, why)
        signs = agreement.orientations(votes.ranks)
        summed = add_up(request, signs, len(at))
        # Of R signs that add up to S, every two multiply to (S² − R) / 2 in all.
        concordance = ((summed**2 - times[:, None]) / 2).mean(axis=1)
        row["tau"] = estimator(by_question(question, concordance, pairs), share, why)
    return [row]


def _pairs_alike(group: Numbers, value: Numbers) -> Array:
    """Count in each group every two rows with the same value."""
    values, value = np.unique(value, return_inverse=True)
    alike, times = np.unique(group * len(values) + value, return_counts=True)
    return add_up(alike // len(values), (times * (times - 1) / 2)[:, None], int(group.max()) + 1)[
        :, 0
    ]


# --------------------------------------------------------------------------- personas


def cast_ballots(votes: VoteTable) -> VoteTable:
    """Return one verdict for each judge, unit, criterion and persona.

    Of a persona that was asked about a pair in both orders the verdict is the evaluation's: what it
    said both times, a tie where that differs, and nothing where one vote failed, since the other
    may be the position's. Of several rankings the last counts. The order shown is that of the first
    vote.

    Args:
        votes: asked for the first time, failed ones included.
    """
    if votes.kind == "compare":
        asked = together(votes.source, votes.unit, votes.criterion, votes.persona)
        votes = votes.where(~np.isin(asked, asked[votes.judge < 0]))
    votes = votes.where(votes.judge >= 0)
    voter = together(votes.judge, votes.unit, votes.criterion, votes.persona)
    _, first, inverse = np.unique(voter, return_index=True, return_inverse=True)
    cast = votes.where(first)
    if votes.kind == "compare":
        preferred = np.sign(votes.ranks[:, 1].astype(int) - votes.ranks[:, 0])
        balance, times = add_up(
            inverse, np.stack([preferred, np.ones_like(preferred)], axis=1), len(first)
        ).T
        ranks = np.stack([balance == -times, balance == times], axis=1).astype(np.uint8)
    else:
        last = np.empty(len(first), np.int64)
        last[inverse] = np.arange(len(votes))
        ranks = votes.ranks[last]
    return replace(cast, ranks=ranks)


def personas(ballots: VoteTable, estimator: Estimator) -> Row:
    """Return how far personas agree: Krippendorff's α over units with at least two votes.

    A unit of a comparison is a pair, and its values are the two responses and a tie, nominal; each
    pair counts both ways round, since which response is called a means nothing. A unit of a ranking
    is a response, and its values are ranks, ordinal; where everybody ranks everything that is the
    mean Spearman correlation of two personas.
    """
    unit, at, inverse = np.unique(
        together(ballots.unit, ballots.criterion), return_index=True, return_inverse=True
    )
    question = ballots.question[at]
    if ballots.kind == "compare":
        counts = count_values(inverse, verdicts(ballots), len(unit), 3)
        met = agreement.both_ways(agreement.coincidences(counts))
    else:
        counts = np.stack(
            [count_values(inverse, place, len(unit), ballots.shown) for place in ballots.ranks.T],
            axis=1,
        )
        met = agreement.coincidences(counts).sum(axis=1)
        counts = counts[:, 0]
    level = "nominal" if ballots.kind == "compare" else "ordinal"
    sums = by_question(question, met)
    paired = counts.sum(axis=1) > 1
    return _counts(ballots) | {
        "units": int(paired.sum()),
        "units_with_one_vote": int((~paired).sum()),
        "level": level,
        "alpha": estimator(
            sums,
            lambda s: agreement.krippendorff_alpha(square_tables(s), level),
            "all votes are the same" if paired.any() else "no unit has two votes",
        ),
        "agreement": estimator(
            sums, lambda s: agreement.raw_agreement(square_tables(s)), "no unit has two votes"
        ),
    }


# --------------------------------------------------------------------------- missing votes


def missingness(record: Record, estimator: Estimator) -> Row:
    """Count failed votes: by status, by judge and criterion, by model, and for the personas most
    affected.
    """

    def column(name: str) -> Numbers:
        return np.concatenate([getattr(votes, name) for votes in record.tables])

    status, source, criterion, question = map(column, ("status", "source", "criterion", "question"))
    failed = status != record.statuses.index("valid")
    rows = []
    for number, asked in enumerate(record.sources):
        own = source == number
        met = sorted(np.unique(criterion[own]), key=record.criteria.__getitem__)
        for by in [*met, *([None] if len(met) > 1 else [])]:
            part = own if by is None else own & (criterion == by)
            sums = by_question(question[part], failed[part], np.ones(int(part.sum())))
            rows.append(
                {"judge": asked.name, "criterion": ALL if by is None else record.criteria[by]}
                | {"votes": int(part.sum()), "failed": int(failed[part].sum())}
                | {"statuses": _tally(status[part & failed], record.statuses)}
                | {"failed_share": estimator(sums, share, "no votes")}
            )
    return {
        "votes": len(status),
        "valid": int((~failed).sum()),
        "failed": int(failed.sum()),
        "statuses": _tally(status[failed], record.statuses),
        "by_criterion": rows,
        "by_model": _affected(column("model"), failed, record.models),
        "personas_most_affected": [
            row
            for row in _affected(column("persona"), failed, record.personas)[:MOST_AFFECTED]
            if row["failed"]
        ],
    }


def _tally(values: Numbers, names: Sequence[str]) -> dict[str, int]:
    numbers, times = np.unique(values, return_counts=True)
    return {names[int(n)]: int(count) for n, count in zip(numbers, times, strict=True)}


def _affected(values: Numbers, failed: Numbers, names: Sequence[str]) -> list[Row]:
    """Return votes and failed votes of each value, most failed ones first."""
    asked, lost = (
        np.bincount(values, minlength=len(names)),
        np.bincount(values[failed], minlength=len(names)),
    )
    rows = [
        {"name": name, "votes": int(asked[n]), "failed": int(lost[n])}
        for n, name in enumerate(names)
        if asked[n]
    ]
    return sorted(rows, key=lambda row: (-row["failed"], row["name"]))
