"""What a search may vary: the paper's ranges, and what makes no sense."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from jaxmodpo.errors import UserError
from jaxmodpo.methods.dpo import DPOConfig
from jaxmodpo.methods.reward_settings import RewardConfig
from jaxmodpo.methods.sft import SFTConfig
from jaxmodpo.search.settings import TuneDPOConfig
from jaxmodpo.search.space import Dimension, as_rows, load_space


def test_the_papers_space_is_its_codes():
    """The ranges of the paper's official code, from its search."""
    shared = {
        "batch_size": Dimension((2, 4, 8)), "gradient_accumulation": Dimension((2, 4, 8)),
        "epochs": Dimension((), 1, 5), "lora_rank": Dimension((32, 64, 128)), "lora_alpha": Dimension((64, 128, 256)),
        "lora_dropout": Dimension((), 0.01, 0.1),
    }  # fmt: skip
    beta = Dimension((), 0.05, 0.5)
    assert load_space("paper", "sft", SFTConfig) == shared | {
        "learning_rate": Dimension((), 1e-6, 5e-5, True)
    }
    rate = Dimension((), 1e-7, 1e-5, True)
    assert load_space("paper", "preference", DPOConfig) == shared | {
        "learning_rate": rate,
        "beta": beta,
    }
    assert load_space("paper", "reward", RewardConfig) == {
        "learning_rate": Dimension((), 5e-7, 2e-5, True), "weight_decay": Dimension((), 0.01, 0.15, True),
        "dropout": Dimension((), 0.1, 0.4), "batch_size": Dimension((8, 16)), "max_length": Dimension((256, 512)),
        "epochs": Dimension((), 3, 7),
    }  # fmt: skip


def test_the_papers_space_holds_the_papers_defaults():
    for part, settings in (("preference", DPOConfig), ("reward", RewardConfig)):
        space = load_space("paper", part, settings)
        for name, dimension in space.items():
            default = next(
                f.default for f in settings.__dataclass_fields__.values() if f.name == name
            )
            if default is not None and (part, name) not in {("reward", "batch_size")}:
                assert dimension.holds(default), (part, name)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("preference: {betta: [1]}", "unknown setting"),
        ("preference: {beta: {low: 2, high: 1}}", "low the smaller one"),
        ("preference: {beta: {low: 0.0, high: 1.0, log: true}}", "above 0 where log"),
        ("preference: {beta: 3}", "a list of choices, or low, high"),
        ("preference: {beta: {low: 1, hihg: 2}}", "a list of choices, or low, high"),
        ("sft: {epochs: [1]}", "no space for 'preference'"),
        ("preference: {output_dir: [a, b]}", "output_dir: this setting cannot vary in a search"),
        ("preference: {lora_targets: [q_proj]}", "lora_targets: this setting cannot vary"),
        ("preference: {pairs: {low: 1, high: 2}}", "pairs: this setting cannot vary"),
        ("preference: {beta: [small]}", "beta: this setting does not take 'small'"),
        ("preference: {beta: {low: .nan, high: 1.0}}", "does not take nan"),
        ("preference: {epochs: {low: 1.5, high: 3}}", "epochs: this setting does not take 1.5"),
        ("preference: {remat: [dots, al]}", "remat: this setting does not take 'al'"),
        ("preference: {remat: {low: 0, high: 1}}", "give a list of choices"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(tmp_path, text, said):
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(UserError, match=said):
        load_space(str(tmp_path / "s.yaml"), "preference", DPOConfig)


def test_numbers_without_a_point_which_yaml_takes_for_texts_are_numbers(tmp_path):
    text = """preference:
  learning_rate: {low: 1e-6, high: 5e-5, log: true}
  epochs: {low: '1', high: 1e1}
  lora_alpha: ['64', 1e2]
  remat: [dots, full]
  lora_rslora: [true, false]
"""
    (tmp_path / "s.yaml").write_text(text)
    space = load_space(str(tmp_path / "s.yaml"), "preference", DPOConfig)
    assert space["learning_rate"] == Dimension((), 1e-6, 5e-5, True)
    assert space["epochs"] == Dimension((), 1, 10) and isinstance(space["epochs"].high, int)
    assert space["lora_alpha"].choices == (64, 100.0) and space["remat"].choices == ("dots", "full")


def test_whole_ends_make_whole_numbers():
    trial = optuna.trial.FixedTrial({"a": 2, "b": 0.5, "c": "x"})
    assert Dimension(low=1, high=3).suggest(trial, "a") == 2  # type: ignore[arg-type]
    assert Dimension(low=0.0, high=1.0).suggest(trial, "b") == 0.5  # type: ignore[arg-type]
    assert Dimension(choices=("x", "y")).suggest(trial, "c") == "x"  # type: ignore[arg-type]
    # So a trial's folder is the same for settings given as 2.0 and for those that come back from
    # the storage.
    given = optuna.trial.FixedTrial({"d": 2.0})
    assert isinstance(Dimension(choices=(2, 4)).suggest(given, "d"), int)  # type: ignore[arg-type]


def test_a_search_reads_its_space_once(tmp_path):
    """What was checked is what is recorded and searched, even if the file changes meanwhile."""
    path = tmp_path / "space.yaml"
    path.write_text("preference: {lora_alpha: [4, 8]}")
    config = TuneDPOConfig(
        model=Path("base"), pairs=Path("pairs.json"), output_dir=tmp_path, space=str(path)
    )
    config.check()
    path.write_text("preference: {lora_alpha: [16, 32]}")
    assert config.recorded().space == as_rows(config.loaded_space) == {"lora_alpha": [4, 8]}
