"""The ``personas`` command: survey rows in, personas for collecting preferences and for testing
out.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.errors import UserError
from jaxmodpo.files import Row, write_json
from jaxmodpo.flags.help_groups import HelpGroup
from jaxmodpo.personas.anonymity import group_sizes
from jaxmodpo.personas.mapping import CANONICAL, find_mapping, load_mapping
from jaxmodpo.personas.participant import Participant
from jaxmodpo.personas.profile import profile_text, quality
from jaxmodpo.personas.rows import LeftOut
from jaxmodpo.personas.selection import groups_of, select_diverse, split_balanced
from jaxmodpo.personas.summary import STEPS, summarize
from jaxmodpo.personas.survey import participants_of, read_surveys
from jaxmodpo.personas.synthetic import survey_rows, write_rows
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.ranges import CommandSettings, Count, CountOrZero, FractionUpToOne, Incidental, Seed
from jaxmodpo.schema import Range

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PersonasConfig(CommandSettings, help_group="selection"):
    """Turn survey answers into patient personas: score, select for diversity, split, report."""

    output_dir: Incidental[Path]
    """Folder for the results: train_personas.json, test_personas.json, all_personas.json,
    personas_report.html, report.json and figures/."""
    survey: Annotated[tuple[Path, ...], HelpGroup("data")] = ()
    """CSV files with the answers to the survey."""
    synthesize: Annotated[Count | None, HelpGroup("data")] = None
    """Number of participants of a synthetic survey, which takes the place of --survey. Nobody gave
    its answers; use it to try the pipeline out."""
    survey_output: Annotated[Path | None, HelpGroup("data")] = None
    """CSV file that --synthesize writes its survey to; by default survey.csv in the output
    folder."""
    mapping: Annotated[str, HelpGroup("data")] = CANONICAL
    """YAML file that maps the survey's columns and answers to those of a persona, or the name of
    one of configs/personas/."""
    select: Annotated[int, Range(least=2)] = 150
    """Number of personas selected, at least 2, for training and testing together."""
    train: Count = 100
    """Number of the selected personas that collect preferences for training; it must be below
    --select. The others are kept for testing."""
    min_quality: FractionUpToOne = 0.9
    """Minimum quality of a selected persona's profile, from 0 to 1. Lower it when too few
    participants remain."""
    min_group: CountOrZero = 2
    """Minimum members of each population, gender and ethnicity in training and in test each, for
    groups with at least twice as many selected; 0 sets no minimum."""
    seed: Seed = 42
    """Seed of the synthetic survey, the selection, the split and the statistical tests."""

    def check(self) -> None:
        """Refuse settings that leave it open which survey is read, or nobody to test with."""
        super().check()
        if bool(self.survey) == (self.synthesize is not None):
            both = "not both" if self.survey else "one of the two"
            raise UserError(f"give --survey FILES or --synthesize N, {both}")
        if self.synthesize is not None and self.mapping != CANONICAL:
            raise UserError("--synthesize makes a survey of our own layout; leave --mapping out")
        if self.synthesize is None and self.survey_output is not None:
            raise UserError(
                "--survey-output says where --synthesize writes; leave it out with --survey"
            )
        if self.train >= self.select:
            raise UserError(
                f"--train must be below --select, since the others are to test; got {self.train} of"
                f" {self.select}"
            )

    def input_paths(self) -> dict[str, Path]:
        if not self.survey:
            return {}  # a synthetic survey reads no file, and our own layout needs no mapping
        paths = {f"survey {number}": path for number, path in enumerate(self.survey, 1)}
        return paths | {"mapping": find_mapping(self.mapping)}

    def cost(self, estimator: Estimates) -> Cost:
        # Later phases of a dry run ask how many personas these files will hold.
        estimator.counts[self.output_dir / "train_personas.json"] = self.train
        estimator.counts[self.output_dir / "test_personas.json"] = self.select - self.train
        return Cost(disk=3_000.0 * self.select)


@dataclass(frozen=True)
class Survey:
    """A survey that was read.

    Attributes:
        participants: all of them.
        good: those whose profiles are good enough.
        qualities: of the profiles, by participant.
        left_out: rows of which no participant could be made.
        synthetic_rows: the answers, where nobody gave them; otherwise empty.
    """

    participants: list[Participant]
    good: list[Participant]
    qualities: Mapping[str, Mapping[str, float]]
    left_out: LeftOut
    synthetic_rows: list[dict[str, str]]


def personas(config: PersonasConfig) -> Phase:
    """Run ``personas``.

    Everything that may be wrong with the input is found before the output folder is made.

    Raises:
        UserError: unreadable surveys, a wrong mapping, or too few good profiles.
    """
    config.check()
    left_out = LeftOut()
    synthetic_rows: list[dict[str, str]] = []
    if config.synthesize is None:
        participants = read_surveys(config.survey, load_mapping(config.mapping), left_out)
    else:
        synthetic_rows = survey_rows(config.synthesize, seed=config.seed)
        participants = participants_of(synthetic_rows)
    qualities = {p.participant_id: quality(p) for p in participants}
    good = _good_enough(participants, qualities, config)
    survey = Survey(participants, good, qualities, left_out, synthetic_rows)
    return _select_and_write(config, survey)


@in_phase("personas")
def _select_and_write(config: PersonasConfig, phase: Phase, survey: Survey) -> None:
    """Select the personas, split them, and write them with their report."""
    if survey.synthetic_rows:
        survey_path = config.survey_output or config.output_dir / "survey.csv"
        write_rows(survey_path, survey.synthetic_rows)
    sets = choose(survey.participants, survey.good, config)
    _write_personas(config.output_dir, sets, survey.qualities)
    summary = summarize(
        sets,
        survey.qualities,
        survey.left_out,
        minimum_quality=config.min_quality,
        seed=config.seed,
        synthetic=config.synthesize is not None,
    )
    # matplotlib takes a second to import, and a run that is refused before needs none of it.
    from jaxmodpo.personas.report import write_report

    write_report(config.output_dir, summary)
    left_out_sentence = survey.left_out.words()
    if left_out_sentence:
        logger.info("%s", left_out_sentence)
    _log_summary(summary, config.output_dir)
    phase.finish(**_results(summary))


def _good_enough(
    participants: Sequence[Participant],
    qualities: Mapping[str, Mapping[str, float]],
    config: PersonasConfig,
) -> list[Participant]:
    """Return the participants whose profiles are good enough to be played by a judge.

    Raises:
        UserError: they are fewer than are to be selected.
    """
    good: list[Participant] = []
    for participant in participants:
        components = qualities[participant.participant_id]
        if components["quality"] >= config.min_quality:
            good.append(participant)
    if len(good) < config.select:
        raise UserError(
            f"{len(good)} of {len(participants)} participants have a quality of"
            f" {config.min_quality} or more, but --select asks for {config.select}; give more"
            " participants, or lower --select (and --train) or --min-quality"
        )
    return good


def choose(
    participants: Sequence[Participant], good: Sequence[Participant], config: PersonasConfig
) -> dict[str, list[Participant]]:
    """Return the participants of each of :data:`jaxmodpo.personas.summary.STEPS`."""
    texts = [profile_text(participant) for participant in good]
    groups = [groups_of(participant) for participant in good]
    selected_numbers = select_diverse(
        texts,
        config.select,
        config.seed,
        groups,
        # Twice the minimum, so that training and test can both have it.
        minimum=2 * config.min_group,
    )
    selected = [good[number] for number in selected_numbers]
    test_count = config.select - config.train
    train_numbers, test_numbers = split_balanced(
        selected, test_count, config.seed, config.min_group
    )
    sets = {
        "participants": list(participants),
        "above_quality": list(good),
        "selected": selected,
        "train": [selected[number] for number in train_numbers],
        "test": [selected[number] for number in test_numbers],
    }
    assert tuple(sets) == STEPS
    return sets


def _write_personas(
    folder: Path,
    sets: Mapping[str, Sequence[Participant]],
    qualities: Mapping[str, Mapping[str, float]],
) -> None:
    """Write both sets' profiles, and one file of everybody for those who look into the data.

    All three hold what people said about their health, so only their owner may read them.
    """
    split: dict[str, str] = {}
    for name in ("train", "test"):
        profiles = {p.participant_id: profile_text(p) for p in sets[name]}
        write_json(folder / f"{name}_personas.json", profiles, private=True)
        split |= dict.fromkeys(profiles, name)
    sizes = group_sizes(sets["selected"])
    everyone: list[Row] = []
    for participant in sets["participants"]:
        persona_id = participant.participant_id
        row: Row = {"persona_id": persona_id, **participant.texts}
        row |= {name: list(entries) for name, entries in participant.lists.items()}
        row |= participant.ratings
        row |= qualities[persona_id]
        # Both are none for whoever was not selected.
        row["split"] = split.get(persona_id)
        row["group_size"] = sizes.get(persona_id)
        everyone.append(row)
    write_json(folder / "all_personas.json", everyone, private=True)


def _log_summary(summary: Mapping[str, Any], folder: Path) -> None:
    """Log counts, and a warning where a persona is unique; never who that is."""
    counts = summary["counts"]
    all_qualities = summary["quality"]["sets"]["participants"]
    logger.info(
        "%d participants, quality %.3f (SD %.3f); %d good enough, %d selected: %d to train, %d to"
        " test; report: %s",
        counts["participants"],
        all_qualities["mean"],
        all_qualities["std"],
        *(counts[step] for step in STEPS[1:]),
        folder / "personas_report.html",
    )
    anonymity = summary["anonymity"]["sets"]["selected"]
    if anonymity["unique"]:
        logger.warning(
            "%d of %d selected personas are the only one with their %s (k = %d)%s",
            anonymity["unique"],
            anonymity["personas"],
            ", ".join(anonymity["identifiers"]),
            anonymity["k"],
            "" if summary["synthetic"] else ": treat the persona files as personal data",
        )


def _results(summary: Mapping[str, Any]) -> Row:
    """Return the manifest's counts."""
    all_qualities = summary["quality"]["sets"]["participants"]
    anonymity = summary["anonymity"]["sets"]["selected"]
    results: Row = {}
    if summary["survey"]:
        results["survey"] = summary["survey"]
    results |= {
        "participants": summary["counts"]["participants"],
        "good": summary["counts"]["above_quality"],
        "quality_mean": round(all_qualities["mean"], 4),
        "quality_std": round(all_qualities["std"], 4),
        "k": anonymity["k"],
        "unique": anonymity["unique"],
    }
    for name in ("train", "test"):
        results[name] = {"personas": summary["counts"][name]}
        for dimension in ("population", "gender", "ethnicity", "age"):
            results[name][dimension] = summary["composition"][dimension][name]
    return results
