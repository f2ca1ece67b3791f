"""Settings of a run of ``responses`` that samples thirty short replies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_models import WORDS

from jaxmodpo.records import Question, write_questions
from jaxmodpo.sampling.settings import ResponsesConfig


def responses_config(model: Path, tmp_path: Path, **changes: Any) -> ResponsesConfig:
    """Write ten questions, and return settings that ask for three replies to each."""
    questions = [Question(f"q{number}", WORDS[number % 8]) for number in range(10)]
    write_questions(tmp_path / "questions.csv", questions)
    settings: dict[str, Any] = {
        "model": model,
        "questions": tmp_path / "questions.csv",
        "output_dir": tmp_path / "out",
        "samples": 3,
        "max_new_tokens": 8,
        "batch_size": 4,
        "base_dtype": "float32",
    }
    return ResponsesConfig(**(settings | changes))
