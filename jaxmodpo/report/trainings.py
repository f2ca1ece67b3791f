"""The sections of trainings: reward models' validation, fronts of sweeps, and learning curves."""

from __future__ import annotations

from jaxmodpo.evaluation.fronts import front_figure
from jaxmodpo.report import training_figures
from jaxmodpo.report.blocks import Block, Cell, Column, Paragraph, Section, Table
from jaxmodpo.report.gallery import Gallery
from jaxmodpo.report.run_folders import METRICS, read_metrics
from jaxmodpo.report.sources import Sources
from jaxmodpo.report.wording import percent, percent_cell
from jaxmodpo.results.reward import VALIDATION, Validation
from jaxmodpo.results.sweep import SWEEP, Sweep

_REWARD_COLUMNS = (
    Column("model", is_word=True),
    Column("held-out pairs"),
    Column("accuracy, %", detail="95% interval"),
    Column("all pairs, %"),
    Column("calibration error"),
)
_FRONT_COLUMNS = (
    Column("method", is_word=True),
    Column("hypervolume", detail="95% interval"),
)


def reward_sections(sources: Sources, gallery: Gallery) -> list[Section]:
    """Show how far every reward model can be believed."""
    validations = _validations(sources)
    if not validations:
        return []
    rows: list[list[Cell | str]] = []
    pictures: list[Block] = []
    for name, validation in validations.items():
        every_pair = validation.all_pairs
        error = validation.calibration.expected_calibration_error
        rows.append(
            [
                name,
                str(validation.pairs),
                percent_cell(validation.accuracy, validation.accuracy_interval),
                percent(every_pair.accuracy) if every_pair else "–",
                f"{error:.3f}",
            ]
        )
        caption = (
            f"{name}: how often held-out rankings agree with the model, by the probability it"
            " gives its own preference, and the rewards of the best and the worst responses."
        )
        figure = training_figures.reward_validation(validation, name)
        alternative = (
            f"{caption} Accuracy {percent(validation.accuracy)}%, expected calibration error"
            f" {error:.3f}."
        )
        pictures.append(gallery.add(f"reward-{name}", figure, caption, alternative))
    return [Section("Reward models", [Table("rewards", _REWARD_COLUMNS, rows), *pictures])]


def _validations(sources: Sources) -> dict[str, Validation]:
    """Read every reward model's validation, by the name of its run."""
    validated = list(sources.results_of("reward", VALIDATION, Validation))
    folders = {run.folder for run, _ in validated}
    validations: dict[str, Validation] = {}
    for run, validation in validated:
        # A refitted model carries the figures of the one in its subfolder: they are shown once.
        is_repeated = run.folder.name == "validation" and run.folder.parent in folders
        if not is_repeated:
            validations[run.name] = validation
    return validations


def sweep_sections(sources: Sources, gallery: Gallery) -> list[Section]:
    """Show every sweep's hypervolumes and, of two objectives, its fronts."""
    sections: list[Section] = []
    for run, sweep in sources.results_of("sweep", SWEEP, Sweep):
        sections.append(_sweep_section(run.name, sweep, gallery))
    return sections


def _sweep_section(name: str, sweep: Sweep, gallery: Gallery) -> Section:
    rows: list[list[Cell | str]] = []
    for method, volume in sweep.hypervolume.items():
        low, high = volume.interval
        rows.append([method, Cell(f"{volume.value:.4f}", f"{low:.4f}–{high:.4f}")])
    blocks: list[Block] = [Table(f"fronts-{name}", _FRONT_COLUMNS, rows)]
    if len(sweep.objectives) == 2:
        first, second = sweep.objectives
        figure = front_figure(sweep.fronts, (first, second), sweep.base)
        caption = f"{name}: fronts over a grid of weights."
        blocks.append(gallery.add(f"fronts-{name}", figure, caption))
    else:
        blocks.append(
            Paragraph(
                "The fronts are not drawn, since a figure has two axes and there are"
                f" {len(sweep.objectives)} objectives; the table has their hypervolumes.",
                "faint",
            )
        )
    return Section(f"Fronts: {name}", blocks)


def training_sections(sources: Sources, gallery: Gallery) -> list[Section]:
    """Draw the learning curves of each training that has some."""
    blocks: list[Block] = []
    without: list[str] = []
    for run in sources.runs:
        if not run.trains:
            continue
        figure = training_figures.training_curves(read_metrics(run.folder / METRICS), run.name)
        if figure is None:
            without.append(run.name)
        else:
            caption = f"{run.name} ({run.command}): learning curves."
            blocks.append(gallery.add(f"curves-{run.name}", figure, caption))
    if without:
        reason = "its metrics hold no loss, accuracy or margin yet"
        blocks.append(Paragraph(f"No curves of {', '.join(without)}: {reason}.", "faint"))
    return [Section("Training", blocks)] if blocks else []
