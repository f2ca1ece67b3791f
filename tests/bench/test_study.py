"""Simulated raters walk a study, and what they were told is held against what is stored."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from jaxmodpo.bench.study import (
    BenchStudyConfig,
    bench_study,
    made_up_study,
    percentiles,
    refuse_differences,
)
from jaxmodpo.bench.study_server import free_port, is_answering, served
from jaxmodpo.bench.study_walk import Pacing, walk_all
from jaxmodpo.errors import UserError


@pytest.mark.slow(seconds=4)
def test_all_answers_of_all_raters_are_acknowledged_and_stored(tmp_path, capsys):
    path = tmp_path / "load.json"
    bench_study(
        BenchStudyConfig(
            raters=3, items=2, longest_pauses=(0.01,), seconds=30.0, folder=tmp_path, json=path
        )
    )
    assert list(tmp_path.iterdir()) == [path], "something was left in the folder"
    measured = json.loads(path.read_text())
    (load,) = measured["loads"]
    assert load["acknowledged"] == load["stored"] == 3 * 2 * 7
    # Each answer, and for each item the page that saves it again and leads to the next one.
    assert load["requests"] == 3 * (1 + 2 * 7 + 2) and load["errors"] == {}
    assert measured["machine"]["cores"] >= 1 and measured["versions"]["sqlite"]
    assert "| 42 " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("stored", "sentence"),
    [
        ({("R-1", 1, 1): "left"}, "2 acknowledged answers 1 are not stored .* 0 are stored that"),
        (
            {("R-1", 1, 1): "right", ("R-1", 1, 2): "equal", ("R-2", 1, 1): "left"},
            "1 are not stored as they were given, and 1 are stored that were not acknowledged",
        ),
    ],
)
def test_an_answer_that_is_lost_or_another_one_is_told(stored, sentence):
    acknowledged = {("R-1", 1, 1): "left", ("R-1", 1, 2): "equal"}
    refuse_differences(acknowledged, dict(acknowledged))
    with pytest.raises(UserError, match=sentence):
        refuse_differences(acknowledged, stored)


def test_raters_who_reach_nobody_count_errors_and_no_answer():
    walk = walk_all(
        f"http://127.0.0.1:{free_port()}",
        {"R-1": "a", "R-2": "b"},
        criteria=2,
        pacing=Pacing(0.01, 5.0),
        seed=0,
    )
    record = asyncio.run(walk)
    assert record.errors == {"ConnectError": 2} and record.acknowledged == {}


def test_a_server_that_does_not_start_is_told_in_its_own_words(tmp_path):
    with (
        pytest.raises(UserError, match=r"did not start: jaxmodpo: .*study\.json"),
        served(tmp_path / "study.json"),
    ):
        pass


def test_a_server_that_listens_and_does_not_answer_yet_is_waited_for():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert not is_answering(listening.getsockname()[1], seconds=0.1)
    assert not is_answering(free_port())


def test_percentiles_are_in_milliseconds_and_of_nothing_unknown():
    seconds = [number / 1000 for number in range(101)]
    assert percentiles(seconds) == {"p50": 50.0, "p95": 95.0, "p99": 99.0}
    assert set(percentiles([]).values()) == {None}


def test_every_simulated_rater_has_every_item_once():
    study = made_up_study(raters=3, items=4, seed=1)
    study.check("a made-up study")
    for assignment in study.assignments:
        assert sorted(place.item_id for place in assignment.places) == sorted(
            item.item_id for item in study.items
        )
    assert study == made_up_study(raters=3, items=4, seed=1)
