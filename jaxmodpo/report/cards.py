"""``MODEL_CARD.md`` and ``DATASHEET.md``: what was trained on what, judged by whom, with which
results, and what it is not for.

Markdown for people, with Hugging Face's metadata block for the Hub. They hold no times, so that
equal runs give equal cards; and names of the user's are escaped, since a model may be called
``| <b>``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from jaxmodpo.files import write_text
from jaxmodpo.report.card_facts import UNKNOWN, CardFacts, Evaluation, gather_facts
from jaxmodpo.report.probe_section import rate_in_words
from jaxmodpo.report.run_folders import Run
from jaxmodpo.report.toxicity_section import mean_in_words, share_in_words
from jaxmodpo.report.wording import NO_INTERVAL, percent, percent_range

MODEL_CARD = "MODEL_CARD.md"
DATASHEET = "DATASHEET.md"

_TEMPLATES = Path(__file__).parent / "templates"


def write_cards(folder: Path, title: str, runs: Sequence[Run]) -> None:
    """Write both cards of a set of runs.

    Raises:
        UserError: a result file is not as its command writes it.
    """
    facts = gather_facts(runs)
    for name in (MODEL_CARD, DATASHEET):
        write_text(folder / name, render_card(name, title, facts))


def render_card(name: str, title: str, facts: CardFacts) -> str:
    """Return a card's text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Every value that a template prints goes through it, so that none can be forgotten.
        finalize=escaped,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "win_rate": _win_rate,
        "rate": rate_in_words,
        "share": share_in_words,
        "mean": mean_in_words,
        "short": _short,
    }
    card = environment.get_template(name).render(title=title, facts=facts)
    return metadata_block(title, facts) + card if name == MODEL_CARD else card


def escaped(value: Any) -> str:
    """Return a value as Markdown that shows it as it is, in a sentence or in a table's cell.

    Example: ``escaped("a|<b>")`` is ``a\\|&lt;b&gt;``.
    """
    text = " ".join(str(value).split())
    for character in "\\`*_[]|#":
        text = text.replace(character, f"\\{character}")
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def metadata_block(title: str, facts: CardFacts) -> str:
    """Return Hugging Face's metadata: base models, tags, license, and win rates as a model index.

    A license is unknown unless all that the models were made of names the same one.
    """
    # It takes half a second to import, which no other command needs.
    from huggingface_hub import ModelCardData

    bases = sorted({model.base for model in facts.trained if model.base})
    methods = sorted({model.method.split()[-1] for model in facts.trained})
    licenses = {license.license for license in facts.licenses}
    data = ModelCardData(
        base_model=bases or None,
        library_name="peft",
        license=licenses.pop() if len(licenses) == 1 else UNKNOWN,
        pipeline_tag="text-generation",
        tags=["jaxmodpo", "lora", *methods],
    ).to_dict()
    index = [entry for evaluation in facts.evaluations for entry in _model_index(evaluation)]
    if index:
        data["model-index"] = index
    # YAML, since JSON is part of it, and quotes every text: a title may hold anything.
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in data.items()]
    return "\n".join(["---", *lines, "---", "", ""])


def _model_index(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return the win rates of each model as entries of Hugging Face's model index."""
    from huggingface_hub import EvalResult, ModelCardData

    results = evaluation.results
    entries: list[dict[str, Any]] = []
    for name, rates in results.models.items():
        model_results: list[EvalResult] = []
        for criterion in results.criteria:
            interval = results.intervals[name][criterion]
            details = {
                "criterion": criterion,
                "interval_95": list(interval) if interval else None,
                "questions": results.questions,
                "judge": results.judge,
            }
            model_results.append(
                EvalResult(
                    task_type="text-generation",
                    task_name="replies to help-seeking posts, head to head",
                    dataset_type="held-out-questions",
                    dataset_name=f"test questions of {evaluation.name}",
                    metric_type="win_rate",
                    metric_name=f"average win rate, {criterion}",
                    metric_value=rates[criterion],
                    metric_args=details,
                )
            )
        data = ModelCardData(model_name=name, eval_results=model_results)
        entries += data.to_dict()["model-index"]
    return entries


def _win_rate(evaluation: Evaluation, model: str, criterion: str) -> str:
    """Return a model's win rate with its interval in percent."""
    rate = percent(evaluation.results.models[model][criterion])
    interval = evaluation.results.intervals[model][criterion]
    ends = NO_INTERVAL if interval is None else percent_range(interval)
    return f"{rate}% ({ends})"


def _short(values: Mapping[str, Any]) -> str:
    """Return settings or figures in one line."""
    words: list[str] = []
    for name, value in values.items():
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
        if isinstance(value, list | tuple):
            text = ", ".join(map(str, value))
        words.append(f"{name.replace('_', ' ')}: {text}")
    return "; ".join(words)
