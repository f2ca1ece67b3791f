"""The section of personas: whom the judges answered as (the paper's Figures 1, 9 and 10)."""

from __future__ import annotations

from jaxmodpo.files import read_json
from jaxmodpo.personas.report import draw_figures
from jaxmodpo.report.blocks import Block, Paragraph, Section
from jaxmodpo.report.gallery import Gallery
from jaxmodpo.report.run_folders import PERSONA_NUMBERS
from jaxmodpo.report.sources import Sources


def persona_sections(sources: Sources, gallery: Gallery) -> list[Section]:
    """Draw who the personas of each ``personas`` run are."""
    sections: list[Section] = []
    for run in sources.runs:
        path = run.folder / PERSONA_NUMBERS
        if run.command != "personas" or not path.is_file():
            continue
        blocks: list[Block] = [
            Paragraph(
                "Personas are made from survey answers. The figures show the complete pool, those"
                " selected, and the sets for training and test.",
                "faint",
            )
        ]
        for name, (figure, caption) in draw_figures(read_json(path)).items():
            blocks.append(gallery.add(f"{run.name}-{name}", figure, caption))
        sections.append(Section(f"Personas: {run.name}", blocks))
    return sections
