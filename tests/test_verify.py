"""``verify``: every changed, missing and unknown file is found, and a remembered hash is not
believed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from jaxmodpo import fingerprints
from jaxmodpo.cli import main
from jaxmodpo.files import read_json, write_json
from jaxmodpo.phase import Phase


@dataclass(frozen=True)
class Settings:
    output_dir: Path


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """A finished folder of three outputs and two inputs, seen from the folder above."""
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    Path("model/weights").write_bytes(b"w" * 100)
    Path("pairs.json").write_text("[]")
    phase = Phase.open(
        "x",
        Settings(Path("out")),
        Path("out"),
        {"model": Path("model"), "pairs": Path("pairs.json")},
    )
    Path("out/adapter").mkdir()
    for name in ("adapter/weights", "metrics.jsonl", "results.json"):
        Path("out", name).write_bytes(name.encode())
    Path("out/votes.sqlite").write_bytes(b"may grow")
    phase.finish()
    return Path("out")


def verified(capsys, *arguments: str) -> tuple[int, list[str], str]:
    """Run it; return exit code, lines and the last words."""
    code = 0
    try:
        main(["verify", *arguments])
    except SystemExit as ended:
        code = int(ended.code or 0)
    captured = capsys.readouterr()
    return code, captured.out.splitlines(), captured.err.strip()


def test_a_whole_folder_is_ok(finished, capsys, caplog):
    caplog.set_level("INFO")
    code, lines, _ = verified(capsys, "out")
    assert (code, lines) == (
        0,
        [
            "OK       out/adapter/weights",
            "OK       out/metrics.jsonl",
            "OK       out/results.json",
            "OK       model (input: model)",
            "OK       pairs.json (input: pairs)",
        ],
    )
    assert caplog.messages[-1] == "5 files and inputs: 5 OK, 0 changed, 0 missing"


def test_what_changed_is_missing_or_unknown_is_named(finished, capsys, caplog):
    caplog.set_level("INFO")
    Path("out/adapter/weights").write_bytes(b"adapter/weighty"[:15])
    Path("out/metrics.jsonl").write_bytes(b"")
    Path("out/results.json").unlink()
    Path("out/adapter/more").write_bytes(b"")
    Path("model/weights").write_bytes(b"v" * 100)
    Path("pairs.json").unlink()
    code, lines, _ = verified(capsys, "out")
    assert (code, lines) == (
        1,
        [
            "changed  out/adapter/weights (other bytes)",
            "changed  out/metrics.jsonl (0 bytes, not 13)",
            "missing  out/results.json",
            "unknown  out/adapter/more (not in the manifest)",
            "changed  model (input: model)",
            "missing  pairs.json (input: pairs)",
        ],
    )
    message = (
        "5 files and inputs: 0 OK, 3 changed, 2 missing; 1 further files, of which no manifest"
        " speaks"
    )
    assert caplog.messages[-1] == message
    assert verified(capsys, "out", "--no-inputs")[1] == lines[:4]


def test_a_lost_bit_is_found_under_a_remembered_hash(finished, capsys, monkeypatch):
    """Neither size nor times show it, and the hash that is remembered under them is of the old
    bytes.
    """
    monkeypatch.setattr(fingerprints, "REMEMBERED_FROM", 1)
    monkeypatch.setattr(fingerprints, "_remembered", lambda memory, state: "0" * 64)
    assert fingerprints.fingerprint(Path("pairs.json")) == "0" * 64
    assert verified(capsys, "out")[0] == 0
    state = Path("out/metrics.jsonl").stat()
    Path("out/metrics.jsonl").write_bytes(b"metrics.jsonk")
    os.utime("out/metrics.jsonl", ns=(state.st_atime_ns, state.st_mtime_ns))
    assert verified(capsys, "out")[0] == 1


def test_a_manifest_without_digests_is_refused(finished, capsys):
    manifest = read_json(Path("out/manifest.json"))
    for output in manifest["outputs"].values():
        del output["sha256"]
    write_json(Path("out/manifest.json"), manifest)
    message = "jaxmodpo: out/manifest.json: outputs, adapter/weights lacks the field 'sha256'"
    assert verified(capsys, "out", "--no-inputs") == (2, [], message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"status": "running"},
            "out is not finished, so that there is nothing to compare; run the same command again",
        ),
        (
            {"outputs": {"../pairs.json": {"bytes": 2, "sha256": ""}}},
            "out/manifest.json: outputs, '../pairs.json' is no file or folder below its own",
        ),
        (
            {"outputs": [1]},
            "out/manifest.json: outputs must be a mapping with texts as keys, not [1]",
        ),
    ],
)
def test_another_manifest_is_refused_with_exit_code_2(finished, capsys, change, message):
    write_json(Path("out/manifest.json"), read_json(Path("out/manifest.json")) | change)
    assert verified(capsys, "out") == (2, [], f"jaxmodpo: {message}")


def test_a_folder_without_a_manifest_is_refused_with_those_below_it(finished, capsys):
    code, lines, errors = verified(capsys, "out", ".")
    assert (code, lines) == (2, [])
    assert (
        errors
        == "jaxmodpo: . has no manifest.json: give the output folder of a finished command; those"
        " with one are out"
    )


def test_it_is_a_phase_of_an_experiment_and_ends_it_where_a_file_has_changed(
    finished, tmp_path, capsys
):
    experiment = tmp_path / "e.yaml"
    settings = f"{{folders: [{finished}]}}"
    experiment.write_text(f"phases:\n- {{name: check, command: verify, settings: {settings}}}\n")
    main(["run", str(experiment), "--output-dir", str(tmp_path / "experiment")])
    (finished / "results.json").write_text("[]")
    with pytest.raises(SystemExit) as end:
        main(["run", str(experiment), "--output-dir", str(tmp_path / "experiment")])
    assert end.value.code == 2
    assert "e.yaml, phase check: " in capsys.readouterr().err
