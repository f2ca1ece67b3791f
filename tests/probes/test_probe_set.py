"""The set of probes: balanced, without doubles, and refused in a sentence where it is wrong."""

from __future__ import annotations

import collections
import itertools
from pathlib import Path

import pytest
import yaml

from jaxmodpo.config import builtin
from jaxmodpo.errors import UserError
from jaxmodpo.probes.probe_set import CONTROL_FORMS, KINDS, RISK_FORMS, Probe, load_probe_set

PROBES = load_probe_set("crisis").probes
ITEM = {"id": "a", "kind": "suicide", "form": "explicit", "expects": "risk", "text": "I want out."}


def test_every_kind_has_four_risks_of_every_form_and_two_controls_of_every_form():
    counts = collections.Counter((probe.expects, probe.kind, probe.form) for probe in PROBES)
    assert len(PROBES) == 180
    expected = {("risk", kind, form): 4 for kind in KINDS for form in RISK_FORMS}
    expected |= {("control", kind, form): 2 for kind in KINDS for form in CONTROL_FORMS}
    assert counts == expected


def word_pairs(probe: Probe) -> set[tuple[str, str]]:
    words = "".join(c if c.isalnum() else " " for c in probe.text.lower()).split()
    return set(itertools.pairwise(words))


def test_no_two_probes_share_a_third_of_their_pairs_of_words():
    pairs = {probe.id: word_pairs(probe) for probe in PROBES}
    for (first, a), (second, b) in itertools.combinations(pairs.items(), 2):
        assert len(a & b) / len(a | b) < 1 / 3, (first, second)


def test_probes_are_short_and_ids_say_what_they_are():
    for probe in PROBES:
        assert 8 <= len(probe.text.split()) <= 45, probe.id
        control = "" if probe.has_risk else "control-"
        begin = f"{probe.kind}-{control}{probe.form}-".replace("_", "-")
        assert probe.id.startswith(begin)
    assert (PROBES[0].question().question_id, PROBES[0].has_risk) == ("suicide-explicit-1", True)


def written(folder: Path, *items: dict[str, str], version: object = 1) -> Path:
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump({"version": version, "probes": list(items)}))
    return path


@pytest.mark.parametrize(
    ("items", "sentence"),
    [
        ([], "own.yaml: probes holds no probe; give it at least one"),
        ([ITEM, ITEM | {"text": "x"}], "own.yaml: the id a stands there twice"),
        (
            [ITEM, ITEM | {"id": "b", "text": "i  want OUT."}],
            "own.yaml: a and b have the same text; take one out",
        ),
        (
            [ITEM | {"form": "fiction"}],
            "own.yaml: probes, item 1 (a): the form of a probe that expects risk is one of explicit,"
            " indirect, negated, third_person, idiomatic, not fiction",
        ),
        ([ITEM | {"text": " "}], "own.yaml: probes, item 1 (a) has no text to reply to"),
        (
            [ITEM | {"id": "a b"}],
            "own.yaml: probes, item 1: the id 'a b' must be letters, digits and . _ + - alone",
        ),
        ([ITEM | {"kind": "sadness"}], "own.yaml: probes, item 1, kind"),
        ([ITEM | {"frm": "x"}], "own.yaml: probes, item 1: unknown key 'frm'"),
        ([{"id": "a"}], "own.yaml: probes, item 1 lacks"),
    ],
)
def test_a_wrong_file_is_refused_in_a_sentence(tmp_path, items, sentence):
    with pytest.raises(UserError) as refused:
        load_probe_set(written(tmp_path, *items))
    assert sentence in str(refused.value)


@pytest.mark.parametrize("version", [2, None, True, "1"])
def test_another_version_is_refused(tmp_path, version):
    with pytest.raises(UserError, match=r"own\.yaml: version must be 1, not "):
        load_probe_set(written(tmp_path, ITEM, version=version))


def test_an_own_file_is_read_and_its_version_changes_with_its_text(tmp_path):
    first = load_probe_set(written(tmp_path, ITEM))
    assert [probe.id for probe in first.probes] == ["a"]
    assert load_probe_set(written(tmp_path, ITEM | {"text": "Other."})).version != first.version
    assert builtin("probes", "crisis").name == "crisis.yaml"
