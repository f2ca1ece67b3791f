"""``jaxmodpo study links``: personal links for raters, made and revoked.

A link is printed once. What is stored of it is a hash, from which nobody can make it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from jaxmodpo.errors import UserError
from jaxmodpo.files import check_writable, write_table
from jaxmodpo.flags.help_groups import HelpGroup
from jaxmodpo.ranges import CountOrZero, Incidental
from jaxmodpo.study.place import StudyPlace, open_place
from jaxmodpo.study.web_address import checked_url
from jaxmodpo.terminal import printable


@dataclass(frozen=True, kw_only=True)
class StudyLinksConfig(StudyPlace, help_group="selection"):
    """Make personal links for the raters of a study, or revoke some. A link is shown once: only its
    hash is stored.
    """

    count: CountOrZero = 0
    """How many links to make."""
    labels: tuple[str, ...] = ()
    """For whom links are, instead of --count: one link for each. Stored apart from answers."""
    revoke: tuple[str, ...] = ()
    """Pseudonyms of raters whose links shall lead nowhere any more."""
    public_url: Incidental[str] = "http://127.0.0.1:8600"
    """What raters' addresses begin with."""
    output: Annotated[Incidental[Path | None], HelpGroup("output")] = None
    """A CSV file for the links, for your eyes alone. By default they are printed."""

    def check(self) -> None:
        super().check()
        checked_url(self.public_url)
        if self.count and self.labels:
            raise UserError("give --count or --labels, not both")
        if not (self.count or self.labels or self.revoke):
            raise UserError("say how many links to make with --count, or which to --revoke")


def study_links(config: StudyLinksConfig) -> None:
    """Run ``study links``.

    Raises:
        UserError: bad settings, or not enough places; links made before that are still given.
    """
    config.check()
    if config.output is not None:
        check_writable(config.output)
    store = open_place(config, create=True)
    rows: list[dict[str, str]] = []
    try:
        for pseudonym in config.revoke:
            store.raters.revoke(store.raters.named(pseudonym))
        for label in config.labels or ("",) * config.count:
            pseudonym, token = store.raters.new_link(label)
            link = f"{checked_url(config.public_url)}/r/{token}"
            rows.append({"rater": pseudonym, "label": label, "link": link})
    finally:
        store.close()
        _give(rows, config.output)


def _give(rows: list[dict[str, str]], output: Path | None) -> None:
    if output is not None:
        write_table(output, rows, ("rater", "label", "link"))
        return
    for row in rows:
        label = f" ({printable(row['label'])})" if row["label"] else ""
        print(f"{row['rater']}{label}: {row['link']}")
