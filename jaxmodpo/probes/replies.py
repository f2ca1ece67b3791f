"""Replies to probes: as they come from a model or from a file, each beside its probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxmodpo.errors import UserError, nearest
from jaxmodpo.probes.probe_set import Probe
from jaxmodpo.records import Response, read_responses


@dataclass(frozen=True)
class ProbeReply:
    """A reply to a probe.

    Attributes:
        probe: that is replied to.
        model: name of the model that replied.
        number: of the reply among this model's to this probe, from 0.
        text: of the reply.
        is_cut: whether it ended at the token limit, or by a filter.
    """

    probe: Probe
    model: str
    number: int
    text: str
    is_cut: bool = False


def replies_of_file(path: Path, model: str, probes: Sequence[Probe]) -> list[ProbeReply]:
    """Read a model's replies from a file of responses, whose ``question_id`` is the probe's id.

    Raises:
        UserError: a reply to no probe of the set, to another text than the probe's, or a probe
            without a reply; the message names the file, and the row or the probe.
    """
    return match_probes(read_responses(path), model, probes, str(path))


def match_probes(
    responses: Sequence[Response], model: str, probes: Sequence[Probe], source: str
) -> list[ProbeReply]:
    """Put responses beside the probes that they reply to, in the order of the probes.

    Args:
        responses: in any order.
        model: the name of whoever replied.
        probes: of the whole set.
        source: the file, for errors.

    Raises:
        UserError: as :func:`replies_of_file`.
    """
    probe_of_id = {probe.id: probe for probe in probes}
    replies: dict[str, list[ProbeReply]] = {probe.id: [] for probe in probes}
    for row, response in enumerate(responses, 1):
        probe = probe_of_id.get(response.question_id)
        if probe is None:
            raise UserError(
                f"{source}, row {row}: the question_id '{response.question_id}' is no probe of the"
                f" set{nearest(response.question_id, list(probe_of_id))}"
            )
        # A reply to an earlier wording says nothing of this one.
        if _words(response.question_text) != _words(probe.text):
            raise UserError(
                f"{source}, row {row}: the question_text is not that of the probe {probe.id}; sample"
                " replies to this set of probes"
            )
        of_probe = replies[probe.id]
        of_probe.append(
            ProbeReply(probe, model, len(of_probe), response.response_text, response.is_cut)
        )
    _refuse_missing(replies, source)
    return [reply for of_probe in replies.values() for reply in of_probe]


def _words(text: str) -> list[str]:
    return text.split()


def _refuse_missing(replies: Mapping[str, Sequence[ProbeReply]], source: str) -> None:
    missing = [probe_id for probe_id, of_probe in replies.items() if not of_probe]
    if missing:
        raise UserError(
            f"{source}: {len(missing)} of {len(replies)} probes have no reply, the first of them"
            f" {missing[0]}; rates of models would be of different probes"
        )
