"""The commands around a running study: links, status, exports, and serving in a real process."""

from __future__ import annotations

import re
import signal
import socket
from pathlib import Path

import pytest
from app_world import Browser, opened, write_study
from study_world import CRITERIA

from jaxmodpo.bench.study_server import free_port, served
from jaxmodpo.cli import main
from jaxmodpo.errors import UserError
from jaxmodpo.files import read_json_lines
from jaxmodpo.study.annotation_files import read_annotations
from jaxmodpo.study.serve import CODES, StudyServeConfig, _server, study_serve
from jaxmodpo.study.study_file import read_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a study in which one rater has finished."""
    path = write_study(tmp_path_factory.mktemp("study"))
    store = opened(path)
    pseudonym, token = store.raters.new_link("Dr. A")
    browser = Browser(store)
    browser.get(f"/r/{token}")
    browser.consent()
    browser.rate_all(store, pseudonym)
    browser.post("/finish")
    store.close()
    return path


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    main(["study", *words])
    return capsys.readouterr().out


def test_links_are_printed_once_and_revoked_by_pseudonym(study: Path, tmp_path: Path, capsys):
    copy = tmp_path / "study.json"
    copy.write_bytes(study.read_bytes())
    url = "https://study.example.org"
    text = printed(capsys, "links", str(copy), "--labels", "Dr. B", "--public-url", f"{url}/")
    match = re.fullmatch(rf"(R-\w{{8}}) \(Dr\. B\): {url}/r/([\w-]{{22}})\n", text)
    assert match
    printed(capsys, "links", str(copy), "--revoke", match[1])
    store = opened(copy)
    assert store.raters.of_link(match[2]) is None
    store.close()


def test_links_that_are_too_many_are_refused_after_those_that_fit(tmp_path: Path, capsys):
    path = write_study(tmp_path)
    with pytest.raises(SystemExit) as exit_error:
        main(["study", "links", str(path), "--count", "5"])
    assert exit_error.value.code == 2
    streams = capsys.readouterr()
    assert streams.out.count("/r/") == 3 and "all 3 places" in streams.err


def test_status_says_how_the_study_goes_and_names_no_model(study: Path, capsys):
    text = printed(capsys, "status", str(study))
    assert re.search(r"R-\w{8} +finished +8/8 +0", text), text
    assert "modpo" not in text and "base" not in text


def test_an_export_is_what_the_analysis_reads(study: Path, tmp_path: Path):
    path = tmp_path / "annotations.csv"
    main(["study", "export", str(study), "--output", str(path)])
    annotations = read_annotations(path, read_study(study))
    assert len(annotations) == 8 * len(CRITERIA)
    from pyarrow import parquet

    parquet_file = tmp_path / "annotations.parquet"
    main(["study", "export", str(study), "--output", str(parquet_file)])
    rows = parquet.read_table(parquet_file).to_pylist()
    assert [row["choice"] for row in rows] == [annotation.choice for annotation in annotations]


def test_a_blinded_export_tells_sides_alone(study: Path, tmp_path: Path):
    path = tmp_path / "answers.jsonl"
    trail = tmp_path / "audit.csv"
    words = ["--output", str(path), "--blinded", "--audit", str(trail)]
    main(["study", "export", str(study), *words])
    rows = list(read_json_lines(path))
    assert not {"choice", "question_id", "reply"} & rows[0].keys()
    assert {row["side"] for row in rows if row["kind"] == "question"} == {"left"}
    assert "blinded export" in trail.read_text()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"port": 1, "admin_port": 1}, "must differ"),
        ({"public_url": "https://a.example/path"}, "without a path"),
        ({"port": 70000}, "at most 65535"),
        ({"quota": 4}, "--quota 4: the study file has 3 places"),
        ({"prolific_studies": ("65f=x",)}, "give ID, or ID=40"),
        ({"prolific_studies": ("65f",)}, "--prolific-studies: raters of .* come by personal links"),
        ({"prolific_keys": "keys.json"}, "--prolific-keys: raters of .* come by personal links"),
    ],
)
def test_settings_that_cannot_be_are_refused(study: Path, settings, told: str):
    with pytest.raises(UserError, match=told):
        study_serve(StudyServeConfig(study=study, **settings))


def test_a_study_of_prolific_needs_its_codes(tmp_path: Path, monkeypatch):
    path = write_study(tmp_path, recruitment="prolific")
    monkeypatch.setenv(CODES["completed"], "C1")
    with pytest.raises(UserError, match="JAXMODPO_PROLIFIC_CODE_SCREENED_OUT"):
        study_serve(StudyServeConfig(study=path, port=free_port()))


def test_a_study_of_prolific_that_believes_signatures_needs_keys(tmp_path: Path, monkeypatch):
    path = write_study(tmp_path, recruitment="prolific")
    for name in CODES.values():
        monkeypatch.setenv(name, "C1")
    config = StudyServeConfig(study=path, port=free_port(), prolific_keys=str(tmp_path / "none"))
    with pytest.raises(UserError, match="is not a set of public keys: No such file"):
        study_serve(config)


def test_secrets_that_can_be_guessed_are_refused(study: Path, monkeypatch):
    monkeypatch.setenv("JAXMODPO_STUDY_ADMIN_SECRET", "short")
    with pytest.raises(UserError, match="at least 16 characters"):
        study_serve(StudyServeConfig(study=study))


def test_a_port_that_is_taken_is_a_sentence(study: Path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1, port {port}"):
            study_serve(StudyServeConfig(study=study, port=port))


def test_no_part_of_an_answer_waits_until_the_one_before_it_is_confirmed():
    server = _server(None, "127.0.0.1", free_port(), None)
    with server.socket, socket.create_connection(server.socket.getsockname()):
        connection, _ = server.socket.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.slow(seconds=4)
def test_sigterm_ends_the_server_in_good_order(tmp_path: Path):
    with served(write_study(tmp_path)) as server:
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
