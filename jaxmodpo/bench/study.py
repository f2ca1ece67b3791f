"""``bench study``: how fast the web application of a human study answers many raters at once, and
whether it stores what it says to have stored.

The server is ``study serve`` in a process of its own, on a study of made-up texts. Raters are
simulated in this process and speak HTTP with it, as browsers do.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import random
import sqlite3
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxmodpo.bench.judge import text_of_words
from jaxmodpo.bench.machine import cores
from jaxmodpo.bench.study_server import served
from jaxmodpo.bench.study_walk import Answer, Pacing, WalkRecord, walk_all
from jaxmodpo.bench.table import text_table
from jaxmodpo.criteria import load_criteria
from jaxmodpo.errors import UserError
from jaxmodpo.files import write_json
from jaxmodpo.parsing import JsonObject
from jaxmodpo.ranges import Count, Positive, Seed, Unestimated
from jaxmodpo.results.manifest import this_environment
from jaxmodpo.results.versioned import write_result
from jaxmodpo.study.place import missing_package
from jaxmodpo.study.study_file import (
    STUDY,
    Assignment,
    Place,
    StudyCriterion,
    StudyFile,
    StudyItem,
    StudyTexts,
)

if TYPE_CHECKING:
    from jaxmodpo.study.app.store import Store

# Lengths in characters, as those of the paper's posts and replies.
_POST_LENGTH = 200
_REPLY_LENGTH = 600

_PERCENTILES = (50, 95, 99)

_LIBRARIES = ("sqlalchemy", "fastapi", "starlette", "uvicorn", "httpx2")


@dataclass(frozen=True, kw_only=True)
class BenchStudyConfig(Unestimated, help_group="measurement"):
    """Serve a made-up study and let simulated raters walk it at once, each answer after a pause.
    The command fails unless the answers that were acknowledged are those that are stored.
    """

    raters: Count = 200
    """Number of raters who are there at once."""
    longest_pauses: tuple[Positive, ...] = (10.0, 5.0)
    """Longest pauses before an answer, in seconds, a study for each. Every pause is drawn evenly
    from 0 to the longest; raters come within the first one."""
    seconds: Positive = 60.0
    """Seconds after which raters give no further answer."""
    items: Count = 20
    """Number of items of each rater, who stops after the last one; each item is compared by
    seven criteria."""
    folder: Path | None = None
    """Folder on the disk that answers are to be written to; by default the system's temporary one.
    Nothing stays there."""
    seed: Seed = 0
    """Seed of pauses, answers and texts."""
    json: Path | None = None
    """File that the measurements are written to as well, with the machine and the versions."""

    def check(self) -> None:
        super().check()
        if not self.longest_pauses:
            raise UserError("--longest-pauses needs one number at least")


@dataclass(frozen=True)
class StudyLoad:
    """What one study showed.

    Attributes:
        longest_pause: before an answer, in seconds.
        record: what raters saw.
        stored: how many answers the database holds.
        cpu_seconds: of the server, from the first rater on; None where the system does not say.
    """

    longest_pause: float
    record: WalkRecord
    stored: int
    cpu_seconds: float | None

    @property
    def requests(self) -> int:
        return sum(map(len, (self.record.opening, self.record.answering, self.record.turning)))


def bench_study(config: BenchStudyConfig) -> None:
    """Run ``bench study``.

    Raises:
        UserError: settings out of range, the server did not start, or an answer is stored that was
            not acknowledged or the other way round.
    """
    config.check()
    loads: list[StudyLoad] = []
    for longest_pause in config.longest_pauses:
        print(f"bench study: pauses of 0 to {longest_pause:g} s", file=sys.stderr)
        with tempfile.TemporaryDirectory(dir=config.folder) as temporary:
            loads.append(measured(config, Path(temporary), longest_pause))
    print(described(loads, config.raters))
    if config.json is not None:
        write_json(config.json, _as_json(config, loads))


def measured(config: BenchStudyConfig, folder: Path, longest_pause: float) -> StudyLoad:
    """Serve a study below a folder to raters with pauses of some length, and compare what they were
    told with what is stored.

    Raises:
        UserError: see ``bench_study``.
    """
    try:
        from jaxmodpo.study.app.store import open_store
    except ModuleNotFoundError as error:
        raise missing_package(error) from None
    path = folder / STUDY
    study = made_up_study(config.raters, config.items, config.seed)
    write_result(path, study, private=True)
    store = open_store(path, None, create=True)
    try:
        tokens = dict(store.raters.new_link() for _ in range(config.raters))
        with served(path) as server:
            before = server.cpu_seconds()
            walk = walk_all(
                server.url,
                tokens,
                criteria=len(study.criteria),
                pacing=Pacing(longest_pause, config.seconds),
                seed=config.seed,
            )
            record = asyncio.run(walk)
            after = server.cpu_seconds()
        stored = stored_answers(store)
    finally:
        store.close()
    refuse_differences(record.acknowledged, stored)
    cpu_seconds = None if before is None or after is None else after - before
    return StudyLoad(longest_pause, record, len(stored), cpu_seconds)


def stored_answers(store: Store) -> dict[Answer, str]:
    """Return the sides that the database holds, by rater, position and number of the criterion."""
    criteria = [criterion.name for criterion in store.study.criteria]
    places = {each.number: each.places for each in store.study.assignments}
    position_of: dict[tuple[str, str], int] = {}
    for rater in store.raters.all():
        if rater.assignment is not None:
            for position, place in enumerate(places[rater.assignment], 1):
                position_of[rater.pseudonym, place.item_id] = position
    stored: dict[Answer, str] = {}
    for each in store.answers.all():
        answer = each.annotation
        position = position_of[answer.rater, answer.item_id]
        stored[answer.rater, position, criteria.index(answer.criterion) + 1] = answer.side
    return stored


def refuse_differences(acknowledged: Mapping[Answer, str], stored: Mapping[Answer, str]) -> None:
    """Hold what raters were told against what is stored.

    Raises:
        UserError: the two differ.
    """
    if acknowledged == stored:
        return
    lost = [answer for answer, side in acknowledged.items() if stored.get(answer) != side]
    unacknowledged = [answer for answer in stored if answer not in acknowledged]
    raise UserError(
        f"of {len(acknowledged):,} acknowledged answers {len(lost):,} are not stored as they were"
        f" given, and {len(unacknowledged):,} are stored that were not acknowledged"
    )


# --------------------------------------------------------------------------- the study


def made_up_study(raters: int, items: int, seed: int) -> StudyFile:
    """Return a study in which everybody sees all items, in orders and on sides by draw."""
    generator = random.Random(seed)
    criteria: list[StudyCriterion] = []
    for criterion in load_criteria("therapeutic"):
        criteria.append(
            StudyCriterion(
                name=criterion.name,
                title=criterion.name.replace("_", " ").capitalize(),
                description=criterion.description,
                better_when=criterion.better_when,
                worse_when=criterion.worse_when,
            )
        )
    questions: list[StudyItem] = []
    for number in range(items):
        questions.append(
            StudyItem(
                item_id=f"{number:016x}",
                kind="question",
                post=text_of_words(generator, _POST_LENGTH),
                reply_a=text_of_words(generator, _REPLY_LENGTH),
                reply_b=text_of_words(generator, _REPLY_LENGTH),
                question_id=f"q{number}",
                reply=1,
            )
        )
    assignments: list[Assignment] = []
    for number in range(1, raters + 1):
        order = generator.sample(questions, items)
        places = [Place(item_id=item.item_id, a_is_left=generator.random() < 0.5) for item in order]
        assignments.append(Assignment(number=number, places=tuple(places)))
    return StudyFile(
        title="A study that nobody takes part in",
        models=("one", "other"),
        criteria=tuple(criteria),
        items=tuple(questions),
        assignments=tuple(assignments),
        recruitment="personal-links",
        texts=StudyTexts(
            information="Raters are simulated.",
            consent=("I am simulated.",),
            instructions="Choose by chance.",
            content_warning="None.",
        ),
        seed=seed,
        evaluation_sha256="0" * 64,
    )


# --------------------------------------------------------------------------- what it came to


def percentiles(seconds: Sequence[float]) -> dict[str, float | None]:
    """Return percentiles in milliseconds; None of nothing."""
    if not seconds:
        return {f"p{percent}": None for percent in _PERCENTILES}
    values = 1000 * np.percentile(seconds, _PERCENTILES)
    rounded: dict[str, float | None] = {}
    for percent, value in zip(_PERCENTILES, values, strict=True):
        rounded[f"p{percent}"] = round(float(value), 1)
    return rounded


def described(loads: Sequence[StudyLoad], raters: int) -> str:
    """Return the table of all studies: a row for each."""
    heads = [
        "pause, s",
        "answers acknowledged",
        "stored",
        "errors",
        "an answer, ms: p50 / p95 / p99",
        "the next page",
        "opening the link",
        "server CPU, ms a request",
    ]
    rows: list[list[str]] = []
    for load in loads:
        record = load.record
        cpu = load.cpu_seconds
        rows.append(
            [
                f"0–{load.longest_pause:g}",
                f"{len(record.acknowledged):,}",
                f"{load.stored:,}",
                f"{record.errors.total():,}",
                _in_words(record.answering),
                _in_words(record.turning),
                _in_words(record.opening),
                "" if cpu is None or not load.requests else f"{1000 * cpu / load.requests:.1f}",
            ]
        )
    lines = [f"{raters:,} raters at once, {cores()} processors", "", text_table(heads, rows)]
    for load in loads:
        for error, count in load.record.errors.most_common():
            lines.append(f"pauses of 0–{load.longest_pause:g} s: {error}, {count:,} times")
    return "\n".join(lines)


def _in_words(seconds: Sequence[float]) -> str:
    values = percentiles(seconds).values()
    return " / ".join("–" if value is None else f"{value:.0f}" for value in values)


def _as_json(config: BenchStudyConfig, loads: Sequence[StudyLoad]) -> JsonObject:
    versions = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    versions["sqlite"] = sqlite3.sqlite_version
    return {
        "machine": asdict(this_environment()) | {"cores": cores()},
        "versions": versions,
        "raters": config.raters,
        "seconds": config.seconds,
        "items": config.items,
        "seed": config.seed,
        "loads": [_load_as_json(load) for load in loads],
    }


def _load_as_json(load: StudyLoad) -> JsonObject:
    record = load.record
    return {
        "longest_pause": load.longest_pause,
        "acknowledged": len(record.acknowledged),
        "stored": load.stored,
        "errors": dict(record.errors),
        "requests": load.requests,
        "answer_ms": percentiles(record.answering),
        "next_page_ms": percentiles(record.turning),
        "link_ms": percentiles(record.opening),
        "server_cpu_seconds": load.cpu_seconds,
    }
