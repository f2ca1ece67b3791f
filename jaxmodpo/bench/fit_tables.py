"""What ``fit`` prints: a table of one configuration, and one of the meshes that a search tried."""

from __future__ import annotations

from collections.abc import Sequence

from jaxmodpo.bench.table import text_table
from jaxmodpo.training.fit import GIB, Answer


def compared(answers: Sequence[Answer]) -> str:
    """Return a table of what a search found on each mesh, under each policy that it tried."""
    rows: list[list[str]] = []
    for answer in answers:
        # An answer that does not fit is of the smallest batch that was tried.
        batch_size = str(answer.batch_size) if answer.fits else "none"
        rows.append(
            [
                " ".join(map(str, answer.mesh)),
                answer.remat or "",
                batch_size,
                f"{answer.peak_bytes / GIB:.2f}",
                f"{answer.questions_per_second:.1f}",
                answer.bound or "",
            ]
        )
    return text_table(
        ["mesh", "remat", "largest batch", "peak GiB", "questions/s at the roofline", "bound"], rows
    )


def described(answer: Answer, examples: int, epochs: int) -> str:
    """Return what is known of a configuration, as text; the experiment has so many
    ``examples``, which are questions, and ``epochs``.
    """
    data, fsdp, tensor = answer.mesh
    examples_per_update = answer.batch_size * answer.gradient_accumulation
    rows = [*_memory_rows(answer), *_work_rows(answer), *_time_rows(answer, examples, epochs)]
    if answer.remat is not None:
        rows.insert(0, ["remat", answer.remat])
    rows.append(["compiled here in", f"{answer.compile_seconds:.0f} s"])
    lines = [
        f"{answer.model}: {answer.method} step on {answer.topology}, {answer.chips} ×"
        f" {answer.chip}, mesh data {data} × fsdp {fsdp} × tensor {tensor}",
        f"update of {examples_per_update} questions:"
        f" {answer.gradient_accumulation} × {answer.rows} rows of {answer.row_length:,} tokens,"
        f" {answer.padding_waste:.1%} padding",
        "",
        text_table(["for one chip and update", ""], rows),
    ]
    if answer.advice:
        lines += ["", "To make it fit, try: " + "; ".join(answer.advice) + "."]
    return "\n".join(lines)


def _memory_rows(answer: Answer) -> list[list[str]]:
    """Return the rows about a chip's memory."""
    memory = _gib(answer.peak_bytes)
    # A chip that is not in the table of chips has a memory that nobody here knows.
    if answer.hbm_bytes:
        memory = f"{answer.peak_bytes / GIB:.2f} of {_gib(answer.hbm_bytes)}"
    if answer.fits:
        verdict = "fits"
    elif answer.over_bytes:
        verdict = f"does not fit: at least {answer.over_bytes / GIB:.2f} GiB too much"
    else:
        verdict = "does not fit"
    return [
        ["peak memory", f"{memory}: {verdict}"],
        ["arguments", _gib(answer.argument_bytes) if answer.argument_bytes else ""],
        ["temporaries", _gib(answer.temporary_bytes) if answer.temporary_bytes else ""],
    ]


def _gib(number_of_bytes: float) -> str:
    return f"{number_of_bytes / GIB:.2f} GiB"


def _work_rows(answer: Answer) -> list[list[str]]:
    """Return the rows about what an update asks of a chip."""
    return [
        ["useful arithmetic", f"{answer.useful_flops / 1e12:.2f} TFLOP"],
        ["executed arithmetic", f"{answer.executed_flops / 1e12:.2f} TFLOP"],
        ["memory traffic", f"{answer.moved_bytes / 1e9:.1f} GB"],
        ["received from other chips", f"{answer.network_bytes / 1e9:.1f} GB"],
    ]


def _time_rows(answer: Answer, examples: int, epochs: int) -> list[list[str]]:
    """Return the rows about times; none for an unknown chip."""
    if answer.roofline_seconds is None or answer.half_mfu_seconds is None:
        return []
    # Scoring goes over the examples once, whatever the training does.
    passes = 1 if answer.step == "score" else epochs
    run = (
        f"{answer.updates} updates: {answer.roofline_chip_hours:.2f} chip-hours at the roofline,"
        f" {answer.half_mfu_chip_hours:.2f} at 50% MFU"
    )
    # The roofline is what no program can beat. Half of the peak arithmetic is what a good one
    # reaches: the truth lies near the slower of the two.
    return [
        ["update at the roofline", f"{answer.roofline_seconds:.3f} s, bound by {answer.bound}"],
        ["update at 50% MFU", f"{answer.half_mfu_seconds:.3f} s"],
        [f"{examples:,} questions × {passes}", run],
    ]
