"""The last sections: which runs there are with their counts, and what made each of them."""

from __future__ import annotations

from jaxmodpo.report.blocks import Block, Column, Folded, Heading, Properties, Section, Table
from jaxmodpo.report.gallery import Gallery
from jaxmodpo.report.sources import Sources
from jaxmodpo.report.wording import counts_in_words, flat

_COLUMNS = (
    Column("run", is_word=True),
    Column("command", is_word=True),
    Column("status", is_word=True),
    Column("counts", is_word=True),
)


def run_sections(sources: Sources, gallery: Gallery) -> list[Section]:
    """Show every run: what it counted, and its settings, inputs and environment."""
    rows: list[list[str]] = []
    manifests: list[Block] = []
    for run in sources.runs:
        manifest = run.manifest
        rows.append([run.name, run.command, manifest.status, counts_in_words(manifest.results)])
        manifests.append(
            Folded(
                f"{run.name}: {run.command}",
                [
                    Heading("Settings"),
                    Properties(flat(run.settings)),
                    Heading("Inputs, SHA-256"),
                    Properties(flat(manifest.identity.inputs)),
                    Heading("Environment"),
                    Properties(flat(manifest.environment)),
                ],
            )
        )
    return [
        Section("Runs", [Table("runs", _COLUMNS, rows)]),
        Section("Manifests", manifests),
    ]
