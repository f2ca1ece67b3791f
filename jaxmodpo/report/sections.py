"""The table of a report's sections, in the order in which the page shows them.

A section is a function of what there is (:class:`~jaxmodpo.report.sources.Sources`) and of the
gallery that keeps its figures. It returns its sections, or none where its kind of run is missing::

    def toxicity_sections(sources: Sources, gallery: Gallery) -> list[Section]:
        ...

A new section is a function in a file of its own and a row here. Where its files hold numbers, their
names go into the table of :mod:`~jaxmodpo.report.run_folders` too, so that the report's manifest
has them.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxmodpo.report.answer import answer
from jaxmodpo.report.blocks import Section
from jaxmodpo.report.browser import browser_sections
from jaxmodpo.report.finished_runs import run_sections
from jaxmodpo.report.gallery import Gallery
from jaxmodpo.report.groups import group_sections
from jaxmodpo.report.human_study import human_study_sections
from jaxmodpo.report.judges import judge_sections
from jaxmodpo.report.lengths import length_sections
from jaxmodpo.report.personas import persona_sections
from jaxmodpo.report.probe_section import probe_sections
from jaxmodpo.report.ratings import rating_sections
from jaxmodpo.report.seeds import seed_sections
from jaxmodpo.report.sources import Sources
from jaxmodpo.report.toxicity_section import toxicity_sections
from jaxmodpo.report.trainings import reward_sections, sweep_sections, training_sections
from jaxmodpo.report.win_rates import evaluation_sections

SECTIONS: tuple[Callable[[Sources, Gallery], list[Section]], ...] = (
    answer,
    evaluation_sections,
    rating_sections,
    length_sections,
    group_sections,
    seed_sections,
    toxicity_sections,
    probe_sections,
    judge_sections,
    human_study_sections,
    persona_sections,
    reward_sections,
    sweep_sections,
    training_sections,
    # Hundreds of questions, one below the other: nobody should scroll past them for a figure.
    browser_sections,
    run_sections,
)


def every_section(sources: Sources, gallery: Gallery) -> list[Section]:
    """Return all sections of a page, adding their figures to the gallery."""
    sections: list[Section] = []
    for make in SECTIONS:
        sections += make(sources, gallery)
    return sections
