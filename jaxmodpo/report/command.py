"""``jaxmodpo report``: one HTML file that shows what a set of runs did and how they compare.

The command finds the runs and reads their files (:mod:`jaxmodpo.report.run_folders`), makes the
sections (:mod:`jaxmodpo.report.sections`), and writes ``report.html`` with its figures inside,
together with the figures and tables as files. The page needs no network and holds no times, so that
equal inputs give equal bytes.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from pathlib import Path

from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.files import atomic_path, write_text
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.ranges import CommandSettings, Incidental
from jaxmodpo.report.blocks import tables_of
from jaxmodpo.report.cards import write_cards
from jaxmodpo.report.gallery import Gallery
from jaxmodpo.report.page import lay_out
from jaxmodpo.report.run_folders import Run, find_runs, shown_files
from jaxmodpo.report.sections import every_section
from jaxmodpo.report.sources import Sources

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ReportConfig(CommandSettings, help_group="output"):
    """Write one self-contained HTML file about finished runs, and its figures and tables as files
    of their own."""

    inputs: tuple[Path, ...]
    """Folders to search, with everything below them, for the output folders of other commands."""

    output_dir: Incidental[Path]
    """Folder for report.html, figures (SVG, PDF) and tables (CSV, LaTeX); it may lie inside an
    input."""

    title: str = "Alignment to several therapeutic objectives"
    """The title of the page."""

    include_texts: bool = False
    """Put posts and replies into the page, to be read beside their votes. They are people's words:
    give such a page only to those who may read them."""

    @functools.cached_property
    def runs(self) -> list[Run]:
        """The runs, looked for once: what the manifest records is then what the page shows, even
        where another run ends meanwhile.
        """
        return find_runs(self.inputs, self.output_dir)

    def input_paths(self) -> dict[str, Path]:
        """Return the files that the page shows."""
        return shown_files(self.runs)

    def cost(self, estimator: Estimates) -> Cost:
        return Cost()  # takes seconds, and leaves little behind


@in_phase("report")
def report(config: ReportConfig, phase: Phase) -> None:
    """Write the report.

    Raises:
        UserError: an input is missing or holds no manifest, a file is not as its command writes it,
            or a launcher started several processes, and this is not the first.
    """
    gallery = Gallery()
    sections = every_section(Sources(config.runs, config.include_texts), gallery)
    for section in sections:
        for table in tables_of(section.blocks):
            gallery.add_table(table)
    for name, content in gallery.files.items():
        with atomic_path(config.output_dir / name) as temporary:
            temporary.write_bytes(content)
    page = lay_out(config.title, sections)
    # With texts it holds people's words, and is for its owner alone.
    write_text(config.output_dir / "report.html", page, private=config.include_texts)
    write_cards(config.output_dir, config.title, config.runs)
    phase.finish(runs=len(config.runs), figures=gallery.figures)
    logger.info(
        "report: %d runs, %d figures in %s",
        len(config.runs),
        gallery.figures,
        config.output_dir,
    )
