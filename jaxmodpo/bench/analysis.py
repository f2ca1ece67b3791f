"""``bench analysis``: time and memory of the way from votes to a report, as the votes grow.

Votes that nobody gave are put into a ledger, and each step runs in a process of its own on it,
which alone has a peak of memory of its own. The exponent says how a step grows: 1 is in proportion
to the votes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from jaxmodpo.bench.growth import fitted_exponent
from jaxmodpo.bench.judging_course import mark_now
from jaxmodpo.bench.machine import this_machine
from jaxmodpo.bench.simulated_contest import (
    CRITERIA,
    evaluation_of,
    fill_ledger,
    write_inputs,
)
from jaxmodpo.bench.table import text_table
from jaxmodpo.errors import UserError
from jaxmodpo.evaluation.head_to_head import evaluate
from jaxmodpo.evaluation.judges import read_judges
from jaxmodpo.evaluation.vote_reading import read_votes
from jaxmodpo.files import write_json
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.ranges import Count, Unestimated
from jaxmodpo.report.command import ReportConfig, report
from jaxmodpo.schema import Range

_MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class BenchAnalysisConfig(Unestimated, help_group="measurement"):
    """Fill ledgers with simulated votes, and measure what reading them, an evaluation with all of
    its resampling, and the report take.
    """

    personas: tuple[Count, ...] = (5, 16, 50)
    """Numbers of personas, one for each size: each votes on every question of every pair of models
    by two criteria."""
    models: Annotated[int, Range(least=2)] = 7
    """Number of models that are compared, each with each other."""
    questions: Count = 600
    """Number of questions that each of them answers."""
    json: Path | None = None
    """File that the measurements are written to as well, with the machine and the versions."""

    def check(self) -> None:
        super().check()
        if not self.personas:
            raise UserError("--personas needs one number at least")


class Step(NamedTuple):
    """What one step took, in a process of its own that had imported what it needs."""

    name: str
    seconds: float
    cpu_seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Size:
    """The steps on so many votes by all criteria together."""

    votes: int
    steps: Sequence[Step]


def bench_analysis(config: BenchAnalysisConfig) -> None:
    """Run ``bench analysis``.

    Raises:
        UserError: settings out of range, or a step that failed.
    """
    config.check()
    sizes: list[Size] = []
    for personas in config.personas:
        with tempfile.TemporaryDirectory() as temporary:
            sizes.append(measured(Path(temporary), config.models, config.questions, personas))
    exponents = fitted_exponents(sizes)
    print(described(sizes, exponents))
    if config.json is not None:
        measurements = {
            "machine": this_machine(),
            "models": config.models,
            "questions": config.questions,
            "criteria": len(CRITERIA),
            "sizes": [_as_mapping(size) for size in sizes],
            "exponents": exponents,
        }
        write_json(config.json, measurements)


def _as_mapping(size: Size) -> dict[str, Any]:
    return {"votes": size.votes, "steps": [step._asdict() for step in size.steps]}


def measured(folder: Path, models: int, questions: int, personas: int) -> Size:
    """Make an evaluation of one size below a folder, and measure every step of it."""
    write_inputs(folder, models, questions, personas)
    print(f"bench analysis: filling a ledger of {personas} personas' votes", file=sys.stderr)
    votes = fill_ledger(evaluation_of(folder, models))
    return Size(votes, [_in_own_process(name, folder, models) for name in STEPS])


def fitted_exponents(sizes: Sequence[Size]) -> dict[str, float | None]:
    """Return the slope of each step's logarithm of CPU seconds over that of the votes, and of its
    peak of memory; None where there are fewer than two sizes.

    CPU seconds and not those of the wall clock, which other programs lengthen.
    """
    exponents: dict[str, float | None] = {}
    votes = [size.votes for size in sizes]
    for place, name in enumerate(STEPS):
        steps = [size.steps[place] for size in sizes]
        exponents[f"{name}, time"] = fitted_exponent(votes, [step.cpu_seconds for step in steps])
        exponents[f"{name}, memory"] = fitted_exponent(votes, [step.peak_bytes for step in steps])
    return exponents


def described(sizes: Sequence[Size], exponents: Mapping[str, float | None]) -> str:
    """Return the table of all sizes: a row for each size and step, and the exponents below."""
    heads = ["votes", "step", "seconds", "CPU seconds", "peak MiB"]
    rows: list[list[str]] = []
    for size in sizes:
        for step in size.steps:
            rows.append(
                [
                    f"{size.votes:,}",
                    step.name,
                    f"{step.seconds:.1f}",
                    f"{step.cpu_seconds:.1f}",
                    f"{step.peak_bytes / _MIB:.0f}",
                ]
            )
    lines = [text_table(heads, rows), ""]
    for name, exponent in exponents.items():
        if exponent is not None:
            lines.append(f"{name}: grows with the votes to the power of {exponent:.2f}")
    return "\n".join(lines).rstrip()


# --------------------------------------------------------------------------- the steps


def _read(folder: Path, models: int) -> None:
    with Ledger(str(evaluation_of(folder, models).ledger), read_only=True) as ledger:
        read_votes([ledger])


def _judges(folder: Path, models: int) -> None:
    with Ledger(str(evaluation_of(folder, models).ledger), read_only=True) as ledger:
        read_judges([ledger])


def _evaluate(folder: Path, models: int) -> None:
    evaluate(evaluation_of(folder, models))


def _report(folder: Path, models: int) -> None:
    report(ReportConfig(inputs=(folder / "runs",), output_dir=folder / "report"))


STEPS: Mapping[str, Callable[[Path, int], None]] = {
    "votes read": _read,
    "judges": _judges,
    "evaluate": _evaluate,
    "report": _report,
}
"""by name: a function of the evaluation's folder and the number of models; in the order in which
they run"""


def _in_own_process(name: str, folder: Path, models: int) -> Step:
    command = [sys.executable, "-m", "jaxmodpo.bench.analysis", name, str(folder), str(models)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        lines = process.stderr.strip().splitlines() or ["it was killed"]
        raise UserError(f"bench analysis: the step '{name}' failed: {lines[-1]}")
    return Step(**json.loads(process.stdout.splitlines()[-1]))


def main() -> None:
    """Run the step named on the command line and print what it took, as JSON."""
    name, folder, models = sys.argv[1:]
    before = mark_now()
    STEPS[name](Path(folder), int(models))
    after = mark_now()
    used = after.cpu - before.cpu
    print(json.dumps(Step(name, after.seconds - before.seconds, used, after.peak)._asdict()))


if __name__ == "__main__":
    main()
