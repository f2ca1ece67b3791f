"""The benchmark of judging asks what it says, keeps it, and prints what it promises."""

from __future__ import annotations

import json
import re

import pytest

from jaxmodpo.bench import chat_server
from jaxmodpo.bench import judge as module
from jaxmodpo.bench.judge import BenchJudgeConfig, bench_judge
from jaxmodpo.errors import UserError
from jaxmodpo.judging.ledger import Ledger


def test_the_run_is_shown_by_tenths_and_against_a_plain_loop(capsys, tmp_path):
    ledger_path = str(tmp_path / "votes.sqlite")
    bench_judge(BenchJudgeConfig(calls=45, max_concurrency=4, ledger=ledger_path, compare=True))
    printed = capsys.readouterr().out
    tenths = [int(calls) for calls in re.findall(r"^\| (\d+) +\|", printed, re.MULTILINE)]
    assert tenths == [5, 9, 14, 18, 23, 27, 32, 36, 41, 45]
    assert "| jaxmodpo, with its ledger |" in printed and "| plain loop, nothing kept  |" in printed
    assert re.search(
        r"against the plain loop's: \d+\.\d\d×\nledger: \d+\.\d MiB.*\nreading back: [\d,]+"
        r" votes/s",
        printed,
    )
    with Ledger(ledger_path) as ledger:
        votes = list(ledger.every_vote())
    assert len(votes) == 45 and {vote.status for vote in votes} == {"valid"}
    assert len({vote.order for vote in votes}) > 5


def test_a_second_run_on_one_ledger_asks_anew(capsys, tmp_path):
    ledger_path = str(tmp_path / "votes.sqlite")
    for _ in range(2):
        bench_judge(BenchJudgeConfig(calls=10, max_concurrency=2, ledger=ledger_path))
    with Ledger(ledger_path) as ledger:
        assert len(list(ledger.every_vote())) == 20 and len(ledger.runs()) == 2


def test_requests_are_of_the_size_that_is_promised():
    requests = list(module._requests(400)())
    subjects = {(request.question_id, request.persona_id, request.criteria) for request in requests}
    assert len(requests) == len(subjects) == 400
    for request in requests:
        assert (len(request.persona_text), len(request.question_text)) == (1500, 200)
        assert [len(response.response_text) for response in request.responses] == [600] * 5


class Transport(chat_server.asyncio.WriteTransport):
    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data) -> None:
        self.written.append(bytes(data))


@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_the_server_answers_each_request_once_however_it_is_cut(piece):
    schema = {"enum": [1, 2, 3, 4]}
    body = json.dumps({"messages": ['{"enum": [9]}'], "schema": schema}).encode()
    request = b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    transport, protocol = Transport(), chat_server._Completions()
    protocol.connection_made(transport)
    sent = request * 3
    for start in range(0, len(sent), piece):
        protocol.data_received(sent[start : start + piece])
    assert len(transport.written) == 3
    for answer in transport.written:
        head, said = answer.split(b"\r\n\r\n")
        assert int(re.findall(rb"content-length: (\d+)", head)[0]) == len(said)
        ranking = json.loads(json.loads(said)["choices"][0]["message"]["content"])["ranking"]
        assert sorted(ranking) == [1, 2, 3, 4]


@pytest.mark.parametrize("settings", [{"calls": 9}, {"max_concurrency": 0}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(UserError, match="must be at least"):
        bench_judge(BenchJudgeConfig(**settings))


def test_a_call_without_a_valid_vote_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "collect", lambda *args, **settings: {"parse_error": 10})
    with pytest.raises(
        UserError, match=r"of 10 calls to the benchmark's own server came \{'parse_error': 10\}"
    ):
        bench_judge(BenchJudgeConfig(calls=10))
