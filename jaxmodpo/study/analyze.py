"""``jaxmodpo study analyze``: what people said of two models, and how far a judge agrees with them.

The paper's Figures 5, 16, 17 and 18, and win rates that people's labels correct::

    config = StudyAnalyzeConfig(
        study=Path("study/study.json"),
        annotations=Path("study/annotations.csv"),
        outcomes=Path("out/evaluation/outcomes.csv"),
        output_dir=Path("out/human_study"),
    )
    study_analyze(config)       # human_study.json, human_study.html, figures and tables
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.errors import UserError
from jaxmodpo.files import atomic_path, write_text
from jaxmodpo.fingerprints import fingerprint
from jaxmodpo.flags.help_groups import HelpGroup
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.ranges import CommandSettings, Count, CountOrZero, Incidental, Seed
from jaxmodpo.report.blocks import Section, tables_of
from jaxmodpo.report.gallery import Gallery
from jaxmodpo.report.human_study import human_study_blocks
from jaxmodpo.report.page import lay_out
from jaxmodpo.results.human_study import (
    EXAMPLES,
    HUMAN_STUDY,
    ExampleTexts,
    HumanStudyResults,
    RaterCounts,
    StudyExamples,
)
from jaxmodpo.results.manifest import MANIFEST, read_manifest
from jaxmodpo.results.versioned import write_result
from jaxmodpo.study.annotation_files import read_annotations
from jaxmodpo.study.annotations import Annotation
from jaxmodpo.study.answer_table import answer_table
from jaxmodpo.study.findings import Resampling, findings_of
from jaxmodpo.study.judged import read_judged
from jaxmodpo.study.study_file import StudyFile, read_study

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StudyAnalyzeConfig(CommandSettings, help_group="data"):
    """Analyze a human study: what people prefer, how far they and a judge agree, and win rates
    corrected by people's labels."""

    study: Path
    """The study file that raters answered."""
    annotations: Path
    """Their answers, as the study's export writes them: annotations.csv."""
    outcomes: Path
    """The judge's outcomes on all questions: outcomes.csv of the evaluation, or that of another
    judge of the same replies."""
    output_dir: Annotated[Incidental[Path], HelpGroup("output")]
    """Folder for human_study.json, a page, figures (SVG, PDF) and tables (CSV, LaTeX)."""
    bootstrap: Annotated[Count, HelpGroup("measurement")] = 1000
    """How many times the questions are resampled for the 95% intervals."""
    examples: Annotated[CountOrZero, HelpGroup("output")] = 2
    """How many questions to name of each cell of the confusion tables, at most."""
    include_texts: Annotated[bool, HelpGroup("output")] = False
    """Write the examples' posts and replies, and show them on the page. They are people's words:
    give such a page only to those who may read them."""
    seed: Annotated[Seed, HelpGroup("measurement")] = 0
    """Seed of the draws of questions."""

    def cost(self, estimator: Estimates) -> Cost:
        return Cost()  # takes seconds, and leaves little behind


@in_phase("study analyze")
def study_analyze(config: StudyAnalyzeConfig, phase: Phase) -> None:
    """Write what the answers say.

    Raises:
        UserError: a file cannot be read or is of another study, or no rater counts.
    """
    study = read_study(config.study)
    annotations = read_annotations(config.annotations, study)
    results = analyze(config, study, annotations)
    write_result(config.output_dir / HUMAN_STUDY, results)
    examples = _example_texts(study, results) if config.include_texts else None
    if examples is not None:
        write_result(config.output_dir / EXAMPLES, examples, private=True)
    _write_page(config.output_dir, results, examples)
    phase.finish(
        raters=results.raters.counted,
        excluded=dict(results.raters.excluded),
        questions=results.questions,
        answers={name: findings.answers for name, findings in results.criteria.items()},
    )
    for line in _in_words(results):
        logger.info("study analyze: %s", line)


def analyze(
    config: StudyAnalyzeConfig, study: StudyFile, annotations: Sequence[Annotation]
) -> HumanStudyResults:
    """Return what a study's answers say.

    Raises:
        UserError: as :func:`study_analyze`.
    """
    judged = read_judged(config.outcomes, study.models)
    included = [answer for answer in annotations if not answer.excluded]
    questions = [item for item in study.items if item.kind == "question"]
    if not any(answer.kind == "question" for answer in included):
        raise UserError(
            f"{config.annotations} holds no answer to a question by a rater who is not excluded"
        )
    resampling = Resampling(config.bootstrap, config.seed)
    criteria = {}
    for criterion in study.criteria:
        table = answer_table(criterion.name, questions, included, judged)
        criteria[criterion.name] = findings_of(
            criterion.name, table, judged, config.examples, resampling
        )
    return HumanStudyResults(
        title=study.title,
        models=study.models,
        questions=len({item.question_id for item in questions}),
        raters=_rater_counts(annotations),
        criteria=criteria,
        # The sample was drawn by one judge's outcomes; another judge may be analyzed on it too,
        # and the page then says so.
        judge_is_samples=fingerprint(config.outcomes) == study.evaluation_sha256,
        bootstrap=config.bootstrap,
        is_simulated=_is_simulated(config.annotations),
    )


def _rater_counts(annotations: Sequence[Annotation]) -> RaterCounts:
    """Count the raters, and the items' seconds of those who count."""
    reason_of_rater: dict[str, str] = {}
    answering: set[str] = set()
    seconds_of_item: dict[tuple[str, str], float] = {}
    for answer in annotations:
        # Every answer of a rater has the same reason.
        reason_of_rater[answer.rater] = answer.excluded
        if answer.kind == "question" and not answer.excluded:
            answering.add(answer.rater)
            if answer.seconds >= 0:
                # Each criterion of an item has the same seconds.
                seconds_of_item[answer.rater, answer.item_id] = answer.seconds
    reasons = Counter(reason for reason in reason_of_rater.values() if reason)
    seconds = list(seconds_of_item.values())
    return RaterCounts(
        counted=len(answering),
        excluded=dict(sorted(reasons.items())),
        median_seconds=round(float(median(seconds)), 1) if seconds else None,
    )


def _is_simulated(annotations: Path) -> bool:
    """Return whether the annotations' folder says that nobody gave them."""
    manifest = annotations.parent / MANIFEST
    return manifest.is_file() and read_manifest(manifest).identity.command == "study simulate"


def _example_texts(study: StudyFile, results: HumanStudyResults) -> StudyExamples:
    """Return the posts and replies of all examples."""
    texts: dict[str, ExampleTexts] = {}
    for findings in results.criteria.values():
        for example in findings.examples:
            item = study.item(example.item_id)
            texts[item.item_id] = ExampleTexts(
                post=item.post, reply_a=item.reply_a, reply_b=item.reply_b
            )
    return StudyExamples(texts=texts)


def _write_page(folder: Path, results: HumanStudyResults, examples: StudyExamples | None) -> None:
    """Write the section that a report has too as a page of its own, with its figures and tables."""
    gallery = Gallery()
    blocks = human_study_blocks("human-study", results, examples, gallery)
    for table in tables_of(blocks):
        gallery.add_table(table)
    for name, content in gallery.files.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(content)
    # People's words only on a page that its owner alone may read.
    page = lay_out(f"Human study: {results.title}", [Section("Human study", blocks)])
    write_text(folder / "human_study.html", page, private=examples is not None)


def _in_words(results: HumanStudyResults) -> list[str]:
    """Return a line for each criterion: what people prefer, and how often the judge agrees."""
    first, second = results.models
    lines: list[str] = []
    for name, findings in results.criteria.items():
        people = findings.corrected.people.value
        accuracy = findings.two_class.accuracy.value
        if people is None:
            lines.append(f"{name}: {findings.corrected.people.undefined}")
            continue
        agrees = "is not compared" if accuracy is None else f"agrees on {100 * accuracy:.1f}%"
        lines.append(
            f"{name}: people prefer {first} over {second} on {100 * people:.1f}% of"
            f" {findings.questions} questions (ties half); where both decide, the judge {agrees}"
        )
    return lines
