"""An adapter that was trained on another base is refused, naming both, by every command that takes
one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jax
import pytest

from jaxmodpo.errors import UserError
from jaxmodpo.methods.modpo import MODPOConfig, modpo
from jaxmodpo.methods.score import ScorePolicyConfig, score_policy
from jaxmodpo.methods.score_kl import ScoreKLConfig, score_kl
from jaxmodpo.methods.soup import SoupConfig, soup
from jaxmodpo.models.adapters import load_adapter, save_adapter
from jaxmodpo.models.decoder import parameter_table
from jaxmodpo.models.decoder_config import DecoderConfig, read_decoder_config
from jaxmodpo.models.export import ExportConfig, export
from jaxmodpo.models.lora import LoraConfig, adapter_table
from jaxmodpo.models.parameters import initialize
from jaxmodpo.records import Candidate, Pair, Question, write_pairs, write_questions
from jaxmodpo.sampling.command import ResponsesConfig, responses
from jaxmodpo.search.sweep import sweep
from jaxmodpo.search.sweep_settings import SweepConfig

OTHER = "somebody/a-wider-base"


@pytest.fixture(scope="module")
def base(tiny_world: Path) -> Path:
    return tiny_world / "mistral"


@pytest.fixture(scope="module")
def work(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``wider`` is an adapter of a model with more hidden states, ``same`` one of this shape with
    that name.
    """
    folder = tmp_path_factory.mktemp("other")
    settings = json.loads((base / "config.json").read_text())
    wider = DecoderConfig.from_mapping(
        settings | {"hidden_size": 2 * settings["hidden_size"]}, "wider"
    )
    for name, shape in (("wider", wider), ("same", read_decoder_config(base))):
        lora = LoraConfig(rank=2, alpha=4.0)
        adapter = initialize(adapter_table(parameter_table(shape), lora), jax.random.key(0))
        save_adapter(folder / name, adapter, lora, shape, OTHER)
    pairs = [
        Pair(f"q{n}", "I feel low", Candidate("a", "I hear you."), Candidate("b", "No."))
        for n in range(8)
    ]
    write_pairs(folder / "pairs.json", pairs)
    write_questions(folder / "questions.csv", [Question("q", "I feel low")])
    return folder


COMMANDS: dict[str, Callable[[Path, Path, Path], object]] = {
    "responses": lambda base, work, out: responses(
        ResponsesConfig(
            questions=work / "questions.csv", model=base, adapter=work / "wider", output_dir=out
        )
    ),
    "score policy": lambda base, work, out: score_policy(
        ScorePolicyConfig(
            model=base,
            pairs=work / "pairs.json",
            adapter=work / "wider",
            output=out / "scores.jsonl",
        )
    ),
    "score kl": lambda base, work, out: score_kl(
        ScoreKLConfig(
            model=base, adapter=work / "wider", questions=work / "questions.csv", output_dir=out
        )
    ),
    "soup": lambda base, work, out: soup(
        SoupConfig(
            adapters=(work / "wider", work / "same"), weights=(0.5, 0.5), model=base, output_dir=out
        )
    ),
    "export": lambda base, work, out: export(
        ExportConfig(model=base, adapter=work / "wider", output_dir=out)
    ),
    "align modpo": lambda base, work, out: modpo(
        MODPOConfig(
            model=base,
            pairs=work / "pairs.json",
            margin=(f"safety=adapter:{work / 'wider'}",),
            weights=(0.5, 0.5),
            output_dir=out,
            cache_dir=out / "cache",
        )
    ),
    "sweep": lambda base, work, out: sweep(
        SweepConfig(
            model=base,
            pairs=work / "pairs.json",
            margin=("safety=column:margin",),
            soup=(f"empathy={work / 'wider'}", f"safety={work / 'same'}"),
            score=("empathy=rubric", "safety=rubric"),
            questions=work / "questions.csv",
            output_dir=out,
        )
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_an_adapter_for_another_base_is_refused_by_the_names_of_both(base, work, tmp_path, name):
    with pytest.raises(UserError) as refused:
        COMMANDS[name](base, work, tmp_path)
    message = str(refused.value)
    assert message.removeprefix("--soup empathy: ").startswith(
        f"{work / 'wider'} was trained on {OTHER} and does not fit {base}: "
    )
    assert not (tmp_path / "responses.csv").exists() and not (tmp_path / "metrics.jsonl").exists()


def test_an_adapter_that_fits_and_names_another_base_is_warned_of(base, work, caplog):
    load_adapter(work / "same", read_decoder_config(base), base)
    assert f"{work / 'same'} was trained on {OTHER} and is used with {base}" in caplog.text
