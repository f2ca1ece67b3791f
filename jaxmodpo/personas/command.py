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
from jaxmodpo.files import write_json
from jaxmodpo.personas.anonymity import group_sizes
from jaxmodpo.personas.mapping import CANONICAL, find_mapping, load_mapping
from jaxmodpo.personas.participant import Participant
from jaxmodpo.personas.profile import profile_text, quality
from jaxmodpo.personas.rows import LeftOut
from jaxmodpo.personas.selection import groups_of, select_diverse, split_balanced
from jaxmodpo.personas.summary import STEPS, summarize
from jaxmodpo.personas.survey import participants_of, read_surveys
from jaxmodpo.personas.synthetic import survey_rows, write_rows
from jaxmodpo.phase import Phase, open_phase
from jaxmodpo.ranges import Count, CountOrZero, Incidental, Seed, Settings, Share
from jaxmodpo.schema import Range

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PersonasConfig(Settings):
    """Turn survey answers into patient personas: score, select for diversity, split, report."""

    output_dir: Incidental[Path]
    """train_personas.json, test_personas.json, all_personas.json, personas_report.html, report.json
    and figures/ are written here"""
    survey: tuple[Path, ...] = ()
    """CSV files with the answers to the survey."""
    synthesize: Count | None = None
    """Number of participants of a made-up survey, which takes the place of --survey; its answers
    are nobody's."""
    survey_output: Path | None = None
    """File that --synthesize writes its survey to; by default survey.csv in the output folder."""
    mapping: str = CANONICAL
    """YAML file that maps the survey's columns and answers to those of a persona, or the name of
    one of configs/personas/."""
    select: Annotated[int, Range(least=2)] = 150
    """Number of personas selected, at least 2, for training and testing together."""
    train: Count = 100
    """Number of the selected personas that are for collecting preferences; the others are for
    testing."""
    min_quality: Share = 0.9
    """Minimum quality of a selected persona, from 0 to 1."""
    min_group: CountOrZero = 2
    """least members that a population, gender or ethnicity has in training and in test each, where
    there are twice as many; 0 for no minimum"""
    seed: Seed = 42
    """Seed of the synthetic survey, the selection, the split and the tests."""

    def check(self) -> None:
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
        paths = {f"survey {number}": path for number, path in enumerate(self.survey, 1)}
        return paths | {"mapping": find_mapping(self.mapping)} if self.survey else paths

    def cost(self, estimator: Estimates) -> Cost:
        estimator.counts[self.output_dir / "train_personas.json"] = self.train
        estimator.counts[self.output_dir / "test_personas.json"] = self.select - self.train
        return Cost(disk=3_000.0 * self.select)


def personas(config: PersonasConfig) -> Phase:
    """Run ``personas``.

    Everything that may be wrong with the input is found before the output folder is made.

    Raises:
        UserError: unreadable surveys, a wrong mapping, or too few good profiles.
    """
    config.check()
    left_out = LeftOut()
    if config.survey:
        participants = read_surveys(config.survey, load_mapping(config.mapping), left_out)
        rows = []
    else:
        rows = survey_rows(config.synthesize or 0, seed=config.seed)
        participants = participants_of(rows)
    rated = {p.participant_id: quality(p) for p in participants}
    good = _good(participants, rated, config)
    phase = open_phase("personas", config)
    if phase.finished:
        return phase
    if rows:
        write_rows(config.survey_output or config.output_dir / "survey.csv", rows)
    sets = choose(participants, good, config)
    _write_personas(config.output_dir, sets, rated)
    summary = summarize(
        sets,
        rated,
        left_out,
        least=config.min_quality,
        seed=config.seed,
        synthetic=config.synthesize is not None,
    )
    from jaxmodpo.personas.report import write_report

    write_report(config.output_dir, summary)
    if said := left_out.words():
        logger.info("%s", said)
    _say(summary, config.output_dir)
    phase.finish(**_results(summary))
    return phase


def _good(
    participants: Sequence[Participant],
    rated: Mapping[str, Mapping[str, float]],
    config: PersonasConfig,
) -> list[Participant]:
    good = [p for p in participants if rated[p.participant_id]["quality"] >= config.min_quality]
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
    """Return the participants of each of :data:`~jaxmodpo.personas.summary.STEPS`."""
    groups = [groups_of(p) for p in good]
    # Twice the minimum, so that training and test can both have it.
    chosen = select_diverse(
        [profile_text(p) for p in good], config.select, config.seed, groups, 2 * config.min_group
    )
    selected = [good[n] for n in chosen]
    train, test = split_balanced(
        selected, config.select - config.train, config.seed, config.min_group
    )
    steps = (
        list(participants),
        list(good),
        selected,
        [selected[n] for n in train],
        [selected[n] for n in test],
    )
    return dict(zip(STEPS, steps, strict=True))


def _write_personas(
    folder: Path,
    sets: Mapping[str, Sequence[Participant]],
    rated: Mapping[str, Mapping[str, float]],
) -> None:
    split: dict[str, str] = {}
    for name in ("train", "test"):
        write_json(
            folder / f"{name}_personas.json",
            {p.participant_id: profile_text(p) for p in sets[name]},
            private=True,
        )
        split |= {p.participant_id: name for p in sets[name]}
    sizes = group_sizes(sets["selected"])
    everyone = [
        {
            "persona_id": p.participant_id,
            **p.texts,
            **{name: list(items) for name, items in p.lists.items()},
            **p.ratings,
            **rated[p.participant_id],
            "split": split.get(p.participant_id),
            "group_size": sizes.get(p.participant_id),
        }
        for p in sets["participants"]
    ]
    write_json(folder / "all_personas.json", everyone, private=True)


def _say(summary: Mapping[str, Any], folder: Path) -> None:
    """Log counts, and a warning where a persona is unique; never who that is."""
    counts, found = summary["counts"], summary["quality"]["sets"]["participants"]
    logger.info(
        "%d participants, quality %.3f (SD %.3f); %d good enough, %d selected: %d to train, %d to"
        " test; report: %s",
        counts["participants"],
        found["mean"],
        found["std"],
        *(counts[step] for step in STEPS[1:]),
        folder / "personas_report.html",
    )
    said = summary["anonymity"]["sets"]["selected"]
    if said["unique"]:
        logger.warning(
            "%d of %d selected personas are the only one with their %s (k = %d)%s",
            said["unique"],
            said["personas"],
            ", ".join(said["identifiers"]),
            said["k"],
            "" if summary["synthetic"] else ": treat the persona files as personal data",
        )


def _results(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest's counts."""
    found, said = (
        summary["quality"]["sets"]["participants"],
        summary["anonymity"]["sets"]["selected"],
    )
    return {
        **({"survey": summary["survey"]} if summary["survey"] else {}),
        "participants": summary["counts"]["participants"],
        "good": summary["counts"]["above_quality"],
        "quality_mean": round(found["mean"], 4),
        "quality_std": round(found["std"], 4),
        "k": said["k"],
        "unique": said["unique"],
        **{
            name: {
                "personas": summary["counts"][name],
                **{
                    d: summary["composition"][d][name]
                    for d in ("population", "gender", "ethnicity", "age")
                },
            }
            for name in ("train", "test")
        },
    }
