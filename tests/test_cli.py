"""The command line from outside: help at once, one sentence and exit code 2 for bad input."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, is_dataclass
from pathlib import Path

import pytest

from jaxmodpo import __version__, cli
from jaxmodpo.cli import main, split_command
from jaxmodpo.commands import COMMANDS, FAMILIES, load, members
from jaxmodpo.flags.parse import parse

README = Path(__file__).parent.parent / "README.md"
DOCS = README.parent / "docs"


def called(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jaxmodpo.cli", *arguments], capture_output=True, text=True
    )


def test_help_names_every_command_and_imports_nothing_heavy():
    code = (
        "import sys; from jaxmodpo.cli import main; main(['--help']);"
        " print('\\n'.join(sys.modules))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    for name, command in COMMANDS.items():
        family, _, member = name.partition(" ")
        line = next(line for line in process.stdout.splitlines() if line.startswith(f"  {family} "))
        assert (
            line.endswith(command.about) if not member else re.search(rf"[:,] {member}(,|$)", line)
        )
    loaded = {line.split(".")[0] for line in process.stdout.splitlines()}
    assert not loaded & {
        "jax",
        "flax",
        "transformers",
        "pandas",
        "torch",
        "numpy",
        "tyro",
        "openai",
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_lists_its_members(family, capsys):
    main([family])
    alone = capsys.readouterr().out
    main([family, "--help"])
    assert alone == capsys.readouterr().out
    names = members(family)
    assert names and all(
        f"  {family} {member} " in alone and member_command.about in alone
        for member, member_command in names.items()
    )


def test_every_command_of_two_words_belongs_to_a_family():
    assert {name.partition(" ")[0] for name in COMMANDS if " " in name} == set(FAMILIES)
    assert not set(FAMILIES) & set(COMMANDS)


def test_commands_that_tests_start_find_no_torch():
    code = "import importlib.util as u; print(u.find_spec('torch'), u.find_spec('jax') is None)"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout.split() == ["None", "False"]


def test_a_command_says_when_it_is_finished_and_when_it_was_before(tmp_path):
    (tmp_path / "posts.csv").write_text(
        "sp_id,seeker_post\n" + "".join(f"p{n},I feel low {n}\n" for n in range(12))
    )
    arguments = [
        "questions",
        "--input",
        str(tmp_path / "posts.csv"),
        "--test-size",
        "4",
        "--min-words",
        "1",
    ]
    arguments += ["--output-dir", str(tmp_path / "out")]
    first, again = called(*arguments), called(*arguments)
    assert first.returncode == again.returncode == 0, first.stderr
    assert first.stderr.endswith(
        f"finished: {tmp_path / 'out'}; training questions 8, test questions 4\n"
    )
    assert again.stderr.endswith(
        f"{tmp_path / 'out'} was finished before; there is nothing to do\n"
    )


def test_an_interrupted_process_ends_at_once_with_what_it_said_and_130():
    """No orderly end: it takes buffers from threads that still compute in XLA."""
    code = """
import atexit, jaxmodpo.cli as cli
atexit.register(print, "torn down")
def interrupted(): raise KeyboardInterrupt
cli.split_command = lambda arguments: interrupted()
print("said before")
cli.sys.argv = ["jaxmodpo", "anything"]
cli.program()
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (process.returncode, process.stdout) == (130, "said before\n")
    assert process.stderr == "jaxmodpo: interrupted; the same command goes on from here\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_settings_and_a_function(name):
    settings, function = load(name)
    assert is_dataclass(settings) and settings.__doc__ and callable(function)


def test_version(capsys):
    main(["--version"])
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["question"], "no command 'question'; did you mean 'questions'?"),
        (["algn"], "no command 'algn'; did you mean 'align'?"),
        (["align", "dpoo"], "'jaxmodpo align' has no 'dpoo'; it has sft, dpo, modpo, joint"),
        (["run", "nothing.yaml"], "nothing.yaml"),
        (
            ["questions", "--input", "nowhere.csv", "--output-dir", "o"],
            "no such file or folder: nowhere.csv",
        ),
    ],
)
def test_what_a_user_can_mend_is_one_sentence_and_exit_code_2(
    capsys, monkeypatch, tmp_path, arguments, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_error:
        main(arguments)
    errors = capsys.readouterr().err
    assert exit_error.value.code == 2
    assert message in errors and "Traceback" not in errors and len(errors.strip().splitlines()) == 1


@dataclass(frozen=True)
class Misplaced:
    """Settings of a command whose files are not where they should be."""

    cache_dir: Path


def ended(monkeypatch, function, *arguments: str) -> None:
    monkeypatch.setattr(cli, "load", lambda name: (Misplaced, function))
    main(["questions", *arguments])


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (lambda path: path.mkdir(parents=True, exist_ok=True), "file: File exists"),
        (lambda path: (path / "below").mkdir(parents=True), "file/below: Not a directory"),
        (lambda path: path.with_name("nothing").read_text(), "nothing: No such file or directory"),
    ],
)
def test_a_file_in_a_folders_place_is_a_sentence(monkeypatch, capsys, tmp_path, use, said):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as exit_error:
        ended(
            monkeypatch, lambda config: use(config.cache_dir), "--cache-dir", str(tmp_path / "file")
        )
    assert exit_error.value.code == 2
    assert capsys.readouterr().err == f"jaxmodpo: cannot read or write {tmp_path}/{said}\n"


@pytest.mark.parametrize(
    "ours", [FileNotFoundError(2, "no name"), FileNotFoundError(2, "", f"{cli.__file__}.j2")]
)
def test_a_missing_file_of_ours_is_a_fault_of_ours(monkeypatch, ours):
    def function(config: Misplaced) -> None:
        raise ours

    with pytest.raises(FileNotFoundError):
        ended(monkeypatch, function, "--cache-dir", "x")


def test_an_unknown_flag_is_exit_code_2_without_a_traceback():
    process = called("soup", "--adapters", "a", "b", "--weights", "0.5", "0.5", "--output-dri", "o")
    assert process.returncode == 2
    assert "--output-dir" in process.stdout + process.stderr and "Traceback" not in process.stderr


def commands_shown_in(page: Path) -> list[list[str]]:
    """Return the words of every command that a page shows whole."""
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", page.read_text(), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    commands: list[list[str]] = []
    for line in lines:
        words = shlex.split(line.strip(), comments=True)
        # Without the file of --config, what it would hold is missing.
        if words and words[0] == "jaxmodpo" and not {"…", "--config"} & set(words):
            commands.append(words[1:])
    return commands


# docs/extending.md adds a command of its own, which another test runs.
PAGES = [README, *sorted(path for path in DOCS.glob("*.md") if path.name != "extending.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_shows_is_understood(page: Path):
    for words in commands_shown_in(page):
        name, rest = split_command(words)
        settings, _ = load(name)
        assert isinstance(parse(settings, rest, name), settings)


def test_the_readme_shows_the_whole_flow():
    shown = {words[0] for words in commands_shown_in(README)}
    assert {"questions", "personas", "preferences", "reward", "align", "evaluate"} <= shown


@pytest.mark.parametrize(("devices", "expected"), [([], "cpu"), (["/dev/accel0"], None)])
def test_where_libtpu_is_installed_without_a_tpu_jax_is_told_to_use_the_cpu(
    monkeypatch, devices, expected
):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr("jaxmodpo.cli.importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr(
        "jaxmodpo.cli.glob.glob", lambda place: [d for d in devices if place.startswith(d[:8])]
    )
    cli._skip_absent_tpu()
    assert os.environ.pop("JAX_PLATFORMS", None) == expected


OUTPUTS_THAT_END = [
    (">&-", 0, ""),
    ("2>&- | true", 0, ""),
    ("| true", 0, ""),
    ("> /dev/full", 2, "jaxmodpo: cannot .*write .*: No space left on device"),
]
"""redirections of a shell, the exit code, and what is told"""


@pytest.mark.parametrize(("redirection", "code", "told"), OUTPUTS_THAT_END)
@pytest.mark.parametrize("arguments", ["--help", "questions --help"])
def test_an_output_that_is_closed_or_full_ends_without_a_traceback(
    arguments, redirection, code, told
):
    command = f"set -o pipefail; {sys.executable} -m jaxmodpo.cli {arguments} {redirection}"
    process = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert process.returncode == code and "Traceback" not in process.stderr
    assert re.search(told, process.stderr)


REDIRECTED = """
import os, sys
redirection = sys.argv.pop(1)
if redirection.startswith("2>&-"):
    os.close(2)
    sys.stderr = None
if redirection.startswith(">&-"):
    os.close(1)
    sys.stdout = None
if redirection.endswith("| true"):
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)
if redirection == "> /dev/full":
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
from jaxmodpo import cli
cli.program()
"""
"""does to itself what the shell would have done, and is then ``jaxmodpo``"""


@pytest.mark.slow(seconds=5)
@pytest.mark.parametrize(("redirection", "code", "told"), OUTPUTS_THAT_END)
def test_so_does_that_of_a_command_that_works_before_it_prints(
    forked_programs, redirection, code, told
):
    program = forked_programs.start(REDIRECTED, [redirection, "run", "demo", "--dry-run"])
    ((ended_with, output),) = forked_programs.endings([program])
    assert ended_with == code and "Traceback" not in output
    assert re.search(told, output)


def test_a_command_without_its_file_says_what_it_needs():
    process = called("run")
    assert (
        process.returncode == 2
        and "jaxmodpo: run: it needs a YAML file, or the name of one" in process.stderr
    )
