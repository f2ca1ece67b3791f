"""``responses`` on several hosts, each of which samples a share of the replies."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import logging
import time
from pathlib import Path

import pytest
from responses_settings import responses_config

from jaxmodpo.errors import UserError
from jaxmodpo.files import read_json
from jaxmodpo.records import read_responses
from jaxmodpo.sampling import shares
from jaxmodpo.sampling.command import responses, run_responses


@pytest.mark.slow(seconds=25)
def test_three_hosts_sample_shares_and_the_first_writes_all(model: Path, tmp_path: Path):
    alone = responses_config(model, tmp_path)
    responses(alone)
    hosts = [
        dataclasses.replace(alone, output_dir=tmp_path / "shared", share=(number, 3))
        for number in range(3)
    ]
    assert run_responses(hosts[2]) is None
    # A share whose host died in the middle: it goes on, and the first host waits for it.
    folder = tmp_path / "shared" / ".shares" / "1"
    assert run_responses(hosts[1]) is None
    journal = folder / "sampled.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:4]) + '{"torn')
    record = read_json(folder / "share.json")
    del record["is_whole"]
    (folder / "share.json").write_text(json.dumps(record))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        first = pool.submit(run_responses, hosts[0])
        time.sleep(3)
        assert not first.done()
        assert run_responses(hosts[1]) is None
        phase = first.result()
    assert phase is not None and phase.results["responses"] == 30
    shared = (tmp_path / "shared" / "responses.csv").read_bytes()
    assert shared == (tmp_path / "out" / "responses.csv").read_bytes()
    assert not folder.parent.exists()
    # What is finished is not begun again by anybody.
    assert run_responses(hosts[1]) is None
    assert not folder.parent.exists()


@pytest.mark.slow(seconds=20)
def test_a_host_of_another_count_is_refused_and_its_replies_count(
    model: Path, tmp_path: Path, monkeypatch, caplog
):
    alone = responses_config(model, tmp_path)
    responses(alone)
    shared = dataclasses.replace(alone, output_dir=tmp_path / "shared")
    assert run_responses(dataclasses.replace(shared, share=(1, 3))) is None
    monkeypatch.setattr(shares, "SECONDS_TO_AGREE", 0.0)
    first = dataclasses.replace(shared, share=(0, 2))
    with pytest.raises(UserError, match=r"^host 1 was started with --share 1 3, and this one with"):
        run_responses(first)
    # Started anew with the count of the first, it leaves out what it has, and what the first has.
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert run_responses(dataclasses.replace(shared, share=(1, 2))) is None
    assert "9 replies sampled" in caplog.text  # to q3, q5 and q9: q1 and q7 were sampled
    assert run_responses(first) is not None
    whole = (tmp_path / "shared" / "responses.csv").read_bytes()
    assert whole == (tmp_path / "out" / "responses.csv").read_bytes()


@pytest.mark.slow(seconds=15)
def test_a_model_may_be_named_as_shares_were(model: Path, tmp_path: Path):
    both = responses_config(
        model, tmp_path, adapters=("share_1=base", "1=base"), max_new_tokens=2, samples=1
    )
    for number in (1, 0):
        run_responses(dataclasses.replace(both, share=(number, 2)))
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == ["1", "manifest.json", "share_1"]
    texts = [reply.response_text for reply in read_responses(out / "share_1" / "responses.csv")]
    assert len(texts) == 10
    assert texts == [reply.response_text for reply in read_responses(out / "1" / "responses.csv")]


def test_a_share_that_does_not_exist_is_refused(model: Path, tmp_path: Path):
    with pytest.raises(UserError, match="--share 3 3: hosts are counted from 0"):
        run_responses(responses_config(model, tmp_path, share=(3, 3)))
