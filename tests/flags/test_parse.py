"""One dataclass from flags, from YAML, or from both."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import tyro

from jaxmodpo.config import load_yaml
from jaxmodpo.errors import UserError
from jaxmodpo.flags.parse import from_mapping, parse
from jaxmodpo.ranges import Seed


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a command can be told."""

    output_dir: Path
    """a folder"""
    learning_rate: float = 1e-3
    """peak"""
    weights: tuple[float, ...] = (1.0,)
    """of objectives"""
    margin: tuple[str, ...] = ()
    """NAME=FOLDER"""
    remat: bool = True
    """slower"""
    seed: Seed | None = None
    """of draws"""


def yaml(folder: Path, text: str) -> str:
    (folder / "s.yaml").write_text(text)
    return str(folder / "s.yaml")


def test_a_file_and_flags_give_the_same_settings(tmp_path):
    flags = parse(
        Settings,
        [
            "--output-dir",
            "o",
            "--learning-rate",
            "2e-5",
            "--weights",
            "0.5",
            "0.5",
            "--margin",
            "a=b",
            "c=d",
            "--no-remat",
            "--seed",
            "3",
        ],
        "x",
    )
    text = """\
output_dir: o
learning-rate: 2e-5
weights: [0.5, 0.5]
margin: {a: b, c: d}
remat: false
seed: 3
"""
    assert parse(Settings, ["--config", yaml(tmp_path, text)], "x") == flags
    assert from_mapping(Settings, load_yaml(tmp_path / "s.yaml"), "x") == flags
    assert flags == Settings(
        output_dir=Path("o"),
        learning_rate=2e-5,
        weights=(0.5, 0.5),
        margin=("a=b", "c=d"),
        remat=False,
        seed=3,
    )


@pytest.mark.parametrize("order", [0, 1])
def test_flags_override_the_file_wherever_it_stands(tmp_path, order):
    config = [
        "--config",
        yaml(tmp_path, "output_dir: o\nseed: 3\nremat: false\nweights: [0.2, 0.8]\n"),
    ]
    flags = ["--seed=4", "--remat", "--weights", "1"]
    parsed = parse(Settings, config + flags if order else flags + config, "x")
    assert (parsed.seed, parsed.remat, parsed.weights, parsed.output_dir) == (
        4,
        True,
        (1.0,),
        Path("o"),
    )


@pytest.mark.parametrize("attached", [False, True])
def test_a_file_is_named_apart_or_attached(tmp_path, attached):
    file = yaml(tmp_path, "output_dir: o\nseed: 3\n")
    parsed = parse(Settings, [f"--config={file}"] if attached else ["--config", file], "x")
    assert (parsed.output_dir, parsed.seed) == (Path("o"), 3)


def test_a_value_that_is_a_settings_name_does_not_count_as_its_flag(tmp_path):
    file = yaml(tmp_path, "output_dir: o\nseed: 3\n")
    parsed = parse(Settings, ["--output-dir", "seed", "--config", file], "x")
    assert (parsed.output_dir, parsed.seed) == (Path("seed"), 3)


def test_an_unknown_key_names_the_nearest(tmp_path):
    with pytest.raises(
        UserError, match=r"s\.yaml: unknown setting 'learning_rte'; did you mean 'learning_rate'\?"
    ):
        parse(Settings, ["--config", yaml(tmp_path, "output_dir: o\nlearning_rte: 1\n")], "x")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"output_dir": "o", "learning_rate": "fast"}, "fast"),
        ({}, "output-dir"),
        ({"output_dir": "o", "x": 1}, "'x'"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused_with_its_source(settings, message):
    with pytest.raises(UserError, match=message) as caught:
        from_mapping(Settings, settings, "demo.yaml, phase dpo")
    assert str(caught.value).startswith("demo.yaml, phase dpo: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--output-dri", "o"], "x: unknown flag '--output-dri'; did you mean '--output-dir'?"),
        (
            ["--output-dir", "o", "--no-remta"],
            "x: unknown flag '--no-remta'; did you mean '--no-remat'?",
        ),
        (["--seed", "3"], "x: --output-dir must be given"),
        (
            ["--output-dir", "o", "--learning-rate", "fast"],
            "x: --learning-rate must be a number, not 'fast'",
        ),
        (["--output-dir", "o", "--seed"], "--seed"),
        (["o", "--output-dir", "o"], "o"),
        (["--output-dir", "o", "--config="], "--config needs a YAML file"),
        (["--output-dir", "o", "--config"], "--config needs a YAML file"),
    ],
)
def test_flags_that_do_not_fit_are_refused_in_one_sentence(flags, message):
    with pytest.raises(UserError) as caught:
        parse(Settings, flags, "x")
    assert message in str(caught.value)
    assert (
        "\n" not in str(caught.value)
        and "──" not in str(caught.value)
        and "---" not in str(caught.value)
    )


def test_what_other_trainers_call_a_setting_names_ours(tmp_path):
    for arguments in (["--lr", "1"], ["--config", yaml(tmp_path, "lr: 1\n")]):
        with pytest.raises(UserError, match=r"did you mean '(--)?learning[-_]rate'\?"):
            parse(Settings, ["--output-dir", "o", *arguments], "x")


def test_help_lists_every_setting(capsys):
    with pytest.raises(SystemExit) as left:
        parse(Settings, ["--seed", "3", "--help"], "x")
    help_text = capsys.readouterr().out
    assert left.value.code == 0
    assert all(
        text in help_text
        for text in ("--output-dir", "peak", "(default: None)", "--config", "What a command")
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--learning-rate", "inf"], "--learning-rate must be a finite number, not inf"),
        (["--weights", "0.5", "nan"], "--weights must be a finite number, not nan"),
        (["--seed", "-1"], "--seed must be from 0 to 4294967295, not -1"),
    ],
)
def test_numbers_that_no_setting_can_be_are_refused_in_a_sentence(flags, message):
    with pytest.raises(UserError, match=message):
        parse(Settings, ["--output-dir", "o", *flags], "x")


def test_a_list_given_in_several_flags_is_one_list():
    flags = [
        "--margin",
        "a=1",
        "--output-dir",
        "o",
        "--margin=b=2",
        "--weights=1",
        "--margin",
        "c=3",
        "d=4",
        "--weights",
        "2",
    ]
    parsed = parse(Settings, flags, "x")
    assert parsed.margin == ("a=1", "b=2", "c=3", "d=4") and parsed.weights == (1.0, 2.0)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seed", "1", "--seed", "2"], "x: --seed is given twice; it takes one value"),
        (["--seed=1", "--seed", "1"], "--seed is given twice"),
        (["--remat", "--no-remat"], "--no-remat is given twice"),
        (["--output_dir", "p"], "--output_dir is given twice"),
    ],
)
def test_a_flag_for_one_value_given_twice_is_refused(flags, message):
    with pytest.raises(UserError, match=message):
        parse(Settings, ["--output-dir", "o", *flags], "x")


def test_a_setting_in_two_spellings_or_two_files_is_refused(tmp_path):
    with pytest.raises(UserError, match="'learning_rate' stands there twice"):
        from_mapping(Settings, {"output_dir": "o", "learning_rate": 1, "learning-rate": 2}, "x")
    file = yaml(tmp_path, "output_dir: o\n")
    with pytest.raises(
        UserError, match="an earlier --config gives the setting 'output_dir' as well"
    ):
        parse(Settings, ["--config", file, "--config", file], "x")
    with pytest.raises(
        UserError, match=r"s\.yaml is not YAML that can be read: the key 'seed' stands twice"
    ):
        load_yaml(Path(yaml(tmp_path, "seed: 1\nseed: 2\n")))


def test_settings_from_a_store_are_refused_by_its_name():
    with pytest.raises(
        UserError, match=r"^x: --config is gs://bucket/s.yaml, and gs:// is not supported"
    ):
        parse(Settings, ["--output-dir", "o", "--config", "gs://bucket/s.yaml"], "x")


@pytest.mark.parametrize("address", ["gs://bucket/out", "s3://bucket//out/", "gs:/bucket/out"])
def test_a_path_in_a_store_is_refused_as_it_was_written(address, tmp_path):
    sentence = f"--output-dir is {address}, and {address[:2]}:// is not supported; copy it here"
    file = yaml(tmp_path, f"output_dir: {address}\n")
    for flags in (
        ["--output-dir", address],
        [f"--output-dir={address}"],
        ["--output_dir", address],
        ["--config", file],
    ):
        with pytest.raises(UserError, match=f"^x: {re.escape(sentence)}"):
            parse(Settings, flags, "x")


@pytest.mark.parametrize("flags", [["--output-dir", ""], ["--output-dir="]])
def test_an_empty_path_is_refused_and_not_taken_for_the_current_folder(flags):
    with pytest.raises(
        UserError, match=r"^x: --output-dir is empty; give a path, or \. for the current folder$"
    ):
        parse(Settings, flags, "x")


def test_an_empty_path_among_several_and_one_without_a_flag_are_refused():
    @dataclass(frozen=True)
    class Several:
        folders: tyro.conf.Positional[tuple[Path, ...]]
        inputs: tuple[Path, ...] = ()
        cache_dir: Path | None = None
        name: str = "n"

    for flags, told in [
        (["a", ""], "a path"),
        (["a", "--inputs", "b", ""], "--inputs"),
        (["a", "--cache-dir", ""], "--cache-dir"),
    ]:
        with pytest.raises(UserError, match=f"^x: {told} is empty; give a path"):
            parse(Several, flags, "x")
    assert parse(Several, ["a", "--name", ""], "x") == Several((Path("a"),), name="")


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A command such as ``verify FOLDER…``."""

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """given by their place"""
    names: tuple[str, ...] = ()
    """given by a flag"""


def test_a_file_gives_what_a_command_line_gives_by_its_place():
    mapping = {"names": ["n", "m"], "folders": ["a", "b"]}
    expected = Placed(folders=(Path("a"), Path("b")), names=("n", "m"))
    assert from_mapping(Placed, mapping, "e.yaml") == expected


def test_words_before_the_first_flag_take_the_place_of_a_files(tmp_path):
    config = ["--config", yaml(tmp_path, "folders: [a, b]\nnames: [n]")]
    assert parse(Placed, config, "x").folders == (Path("a"), Path("b"))
    assert parse(Placed, ["c", *config], "x") == Placed(folders=(Path("c"),), names=("n",))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--count", "a"], "x: --count must be a whole number, not 'a'"),
        (["--seed", "a"], "x: --seed must be {None}|INT, not 'a'"),
        (["--learning-rate", "1e"], "x: --learning-rate must be a number, not '1e'"),
        (["--seed"], "x: --seed needs a value"),
        (["--seed", "1", "2"], "x: 2 belongs to no flag; leave it out, or put its flag before it"),
        (["--rate", "1"], "x: unknown flag '--rate'; did you mean '--learning-rate'?"),
    ],
)
def test_what_python_says_of_a_flag_is_said_as_a_sentence(flags, message):
    @dataclass(frozen=True)
    class Counted(Settings):
        count: int = 1

    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        parse(Counted, ["--output-dir", "o", *flags], "x")


def test_the_last_word_of_a_setting_names_it_in_flags_and_files():
    from jaxmodpo.methods.dpo import DPOConfig

    with pytest.raises(UserError, match=r"unknown flag '--rank'; did you mean '--lora-rank'\?$"):
        parse(DPOConfig, ["--rank", "4"], "x")
    with pytest.raises(UserError, match=r"unknown setting 'rank'; did you mean 'lora_rank'\?$"):
        from_mapping(DPOConfig, {"rank": 4}, "x")
