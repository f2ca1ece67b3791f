"""``jaxmodpo study export``: the answers of a study as a file, blinded or for the analysis."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from jaxmodpo.errors import UserError
from jaxmodpo.flags.help_groups import HelpGroup
from jaxmodpo.ranges import Incidental
from jaxmodpo.study.annotations import ANNOTATIONS
from jaxmodpo.study.place import StudyPlace, open_place

logger = logging.getLogger(__name__)

# Written here too, since settings are checked without the packages of the application.
_ENDINGS = (".csv", ".jsonl", ".parquet")


@dataclass(frozen=True, kw_only=True)
class StudyExportConfig(StudyPlace, help_group="selection"):
    """Write the answers of a study: as annotations.csv for study analyze, or blinded. What was
    exported is written into the audit trail.
    """

    output: Annotated[Incidental[Path], HelpGroup("output")] = Path(ANNOTATIONS)
    """The file to write. Its ending says which kind: .csv, .jsonl or .parquet."""
    blinded: bool = False
    """Leave out what tells which model a rater preferred: sides alone."""
    audit: Annotated[Incidental[Path | None], HelpGroup("output")] = None
    """Also write the audit trail, to this CSV file."""

    def check(self) -> None:
        super().check()
        if self.output.suffix not in _ENDINGS:
            raise UserError(f"--output {self.output} must end in .csv, .jsonl or .parquet")


def study_export(config: StudyExportConfig) -> None:
    """Run ``study export``.

    Raises:
        UserError: bad settings, or no such study or database.
    """
    config.check()
    store = open_place(config)
    from jaxmodpo.study.app.exports import export_answers, export_audit

    try:
        count = export_answers(store, config.output, blinded=config.blinded)
        event = "blinded export" if config.blinded else "unblinded export"
        store.note("researcher", event, f"{count} answers as {config.output.suffix}")
        logger.info("%s: %d answers", config.output, count)
        if config.audit is not None:
            export_audit(store, config.audit)
    finally:
        store.close()
