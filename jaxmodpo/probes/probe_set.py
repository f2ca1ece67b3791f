"""A set of probes: its file, and what a probe is.

The set of ours is ``configs/probes/crisis.yaml``; a user's own file has the same shape.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxmodpo.config import builtin, load_yaml
from jaxmodpo.errors import UserError
from jaxmodpo.fingerprints import digest
from jaxmodpo.records import Question
from jaxmodpo.schema import read_as

Kind = Literal["suicide", "self_harm", "harm_to_others", "abuse", "eating_disorder", "overdose"]
Form = Literal[
    "explicit", "indirect", "negated", "third_person", "idiomatic", "resolved", "fiction", "worry"
]
Expects = Literal["risk", "control"]

KINDS: Sequence[Kind] = (
    "suicide",
    "self_harm",
    "harm_to_others",
    "abuse",
    "eating_disorder",
    "overdose",
)
RISK_FORMS: Sequence[Form] = ("explicit", "indirect", "negated", "third_person", "idiomatic")
CONTROL_FORMS: Sequence[Form] = ("idiomatic", "negated", "resolved", "fiction", "worry")

VERSION = 1
"""of the file's shape"""


@dataclass(frozen=True)
class Probe:
    """A post to which a model replies.

    Attributes:
        id: unique in its set.
        kind: of the risk that it has, or that a control of this kind resembles.
        form: how the risk shows, or why there is none.
        expects: whether there is a risk, or a crisis script would be a false alarm.
        text: the post.
    """

    id: str
    kind: Kind
    form: Form
    expects: Expects
    text: str

    @property
    def has_risk(self) -> bool:
        return self.expects == "risk"

    def question(self) -> Question:
        """Return the probe as a question that a model replies to."""
        return Question(self.id, self.text)


@dataclass(frozen=True)
class ProbeFile:
    """A file of probes.

    Attributes:
        version: of the file's shape; 1.
        probes: the posts.
    """

    version: int
    probes: list[Probe]


@dataclass(frozen=True)
class ProbeSet:
    """The probes of a file; ``version`` is a digest of its content."""

    probes: tuple[Probe, ...]
    version: str


def load_probe_set(source: str | Path) -> ProbeSet:
    """Read a set of probes.

    Args:
        source: a YAML file, or the name of ours (crisis).

    Raises:
        UserError: another version, a field that is missing, unknown or of another type, a form that
            does not go with what the probe expects, an empty text, an id that is no plain name, or
            an id or a text that stands there twice.
    """
    path = builtin("probes", source)
    content = load_yaml(path)
    version = content.get("version")
    if type(version) is not int or version != VERSION:
        raise UserError(f"{path}: version must be {VERSION}, not {version!r:.60}")
    probe_file: ProbeFile = read_as(content, ProbeFile, str(path))
    if not probe_file.probes:
        raise UserError(f"{path}: probes holds no probe; give it at least one")
    _check_each(probe_file.probes, path)
    _refuse_doubles(probe_file.probes, path)
    return ProbeSet(tuple(probe_file.probes), digest(content)[:12])


def _check_each(probes: Sequence[Probe], path: Path) -> None:
    for number, probe in enumerate(probes, 1):
        location = f"{path}: probes, item {number}"
        if not re.fullmatch(r"[\w.+-]+", probe.id):
            raise UserError(
                f"{location}: the id {probe.id!r:.60} must be letters, digits and . _ + - alone"
            )
        if not probe.text.strip():
            raise UserError(f"{location} ({probe.id}) has no text to reply to")
        forms = RISK_FORMS if probe.has_risk else CONTROL_FORMS
        if probe.form not in forms:
            raise UserError(
                f"{location} ({probe.id}): the form of a probe that expects {probe.expects} is one"
                f" of {', '.join(forms)}, not {probe.form}"
            )


def _refuse_doubles(probes: Sequence[Probe], path: Path) -> None:
    ids: set[str] = set()
    id_of_text: dict[str, str] = {}
    for probe in probes:
        if probe.id in ids:
            raise UserError(f"{path}: the id {probe.id} stands there twice")
        ids.add(probe.id)
        words = " ".join(probe.text.lower().split())
        if words in id_of_text:
            raise UserError(
                f"{path}: {id_of_text[words]} and {probe.id} have the same text; take one out"
            )
        id_of_text[words] = probe.id
