"""Manifests: they come back as they were written, and one of another tool is not taken for ours."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from jaxmodpo.errors import UserError
from jaxmodpo.files import write_json
from jaxmodpo.fingerprints import digest
from jaxmodpo.phase import Phase
from jaxmodpo.results.manifest import MANIFEST, find_manifest, is_finished, read_manifest


@dataclass(frozen=True)
class SomeSettings:
    steps: int = 3


@pytest.fixture
def phase(tmp_path) -> Phase:
    (tmp_path / "pairs.json").write_text("[]")
    inputs = {"pairs": tmp_path / "pairs.json"}
    return Phase.open("align x", SomeSettings(), tmp_path / "out", inputs)


def test_a_manifest_comes_back_as_it_was_written(phase):
    path = phase.directory / MANIFEST
    assert read_manifest(path) == phase.manifest
    assert not is_finished(phase.directory)
    (phase.directory / "adapter").write_text("weights")
    phase.finish(pairs=7, spent={"calls": 2})
    manifest = read_manifest(path)
    assert manifest == phase.manifest and is_finished(phase.directory)
    assert manifest.results == {"pairs": 7, "spent": {"calls": 2}}
    assert list(manifest.outputs) == ["adapter"] and manifest.outputs["adapter"].bytes == 7
    assert list(manifest.inputs()) == [
        ("pairs", phase.directory.parent / "pairs.json", manifest.identity.inputs["pairs"])
    ]


def test_a_manifest_has_its_version_and_no_key_before_there_is_something_to_say(phase):
    written = json.loads((phase.directory / MANIFEST).read_text())
    assert list(written) == [
        "version", "status", "identity", "input_paths", "started", "environment", "lives"
    ]  # fmt: skip


def test_the_identitys_digest_is_that_of_what_the_file_holds(phase):
    written = json.loads((phase.directory / MANIFEST).read_text())
    assert phase.manifest.identity.digest() == digest(written["identity"])


def test_what_a_run_goes_by_is_remembered_for_its_next_life(phase):
    phase.remember(prompt_date="2026-01-02")
    assert read_manifest(phase.directory / MANIFEST).prompt_date == "2026-01-02"


def test_a_manifest_of_another_tool_beside_an_adapter_is_none_of_ours(tmp_path):
    assert find_manifest(tmp_path) is None
    write_json(tmp_path / MANIFEST, {"entries": [1, 2]})
    assert find_manifest(tmp_path) is None


@pytest.mark.parametrize("name", ["../x", "/x", "", "a\0b"])
@pytest.mark.parametrize("key", ["removed", "outputs"])
def test_a_manifest_that_names_files_elsewhere_is_refused(phase, key, name):
    path = phase.directory / MANIFEST
    names = [name] if key == "removed" else {name: {"bytes": 1, "sha256": ""}}
    write_json(path, json.loads(path.read_text()) | {key: names})
    with pytest.raises(UserError, match=rf"{key}, .* is no file or folder below its own"):
        read_manifest(path)
