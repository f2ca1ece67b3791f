"""Every command on one screen: its name, its settings, its function, one line about it.

Nothing heavy is imported before a command is chosen, so that ``jaxmodpo --help`` answers at once.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import importlib
import importlib.util
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jaxmodpo import __version__
from jaxmodpo.errors import INTERRUPTED, RESTART, Preempted, UserError, nearest
from jaxmodpo.interrupts import Interrupts, interrupts
from jaxmodpo.terminal import PrintableFormatter, PrintableStream, printable

log = logging.getLogger(__name__)


class Command(NamedTuple):
    """Where a command lives: ``module:Dataclass`` and, in the same module, its function."""

    module: str
    settings: str
    function: str
    about: str


COMMANDS = {
    "questions": Command("data.questions", "QuestionsConfig", "questions", "clean and split help-seeking posts"),
    "personas": Command("personas.command", "PersonasConfig", "personas", "turn a survey into patient personas"),
    "responses": Command("sampling.command", "ResponsesConfig", "responses", "sample replies from a model"),
    "preferences": Command(
        "judging.preferences",
        "PreferencesConfig",
        "preferences",
        "personas rank replies into preference pairs",
    ),
    "pairs": Command("data.scored", "PairsConfig", "pairs", "preference pairs from scored answers, such as upvotes"),
    "reward": Command("methods.reward", "RewardConfig", "reward", "train a reward model on preference pairs"),
    "align sft": Command("methods.sft", "SFTConfig", "sft", "fine-tune on chosen replies"),
    "align dpo": Command("methods.dpo", "DPOConfig", "dpo", "align to one objective"),
    "align modpo": Command("methods.modpo", "MODPOConfig", "modpo", "align to several, reward models as margins"),
    "align joint": Command("methods.joint", "JointConfig", "joint", "align to several, one loss over their pairs"),
    "soup": Command("methods.soup", "SoupConfig", "soup", "average adapters"),
    "tune reward": Command("search.tune", "TuneRewardConfig", "tune_reward", "search a reward model's settings"),
    "tune sft": Command("search.tune", "TuneSFTConfig", "tune_sft", "search SFT's settings"),
    "tune dpo": Command("search.tune", "TuneDPOConfig", "tune_dpo", "search DPO's settings"),
    "tune modpo": Command("search.tune", "TuneMODPOConfig", "tune_modpo", "search MODPO's settings"),
    "tune joint": Command("search.tune", "TuneJointConfig", "tune_joint", "search Joint-Loss DPO's settings"),
    "sweep": Command("search.sweep", "SweepConfig", "sweep", "MODPO and soups over a grid of weights: their fronts"),
    "export": Command("models.export", "ExportConfig", "export", "merge an adapter into a full model folder"),
    "score policy": Command("methods.score", "ScorePolicyConfig", "score_policy", "log-probabilities of pairs"),
    "score reward": Command("methods.score", "ScoreRewardConfig", "score_reward", "rewards of pairs"),
    "score kl": Command("methods.score", "ScoreKLConfig", "score_kl", "how far a policy moved from its base"),
    "evaluate": Command("evaluation.head_to_head", "EvaluateConfig", "evaluate", "blinded head-to-head judging"),
    "votes": Command("judging.export", "VotesConfig", "votes", "write a ledger's votes to Parquet or JSON Lines"),
    "judges": Command("evaluation.judges", "JudgesConfig", "judges", "how far judges' votes can be believed"),
    "report": Command("evaluation.report", "ReportConfig", "report", "one HTML file about finished runs, with figures"),
    "run": Command("experiment", "RunConfig", "run", "run an experiment file, skipping finished phases"),
    "verify": Command("verify", "VerifyConfig", "verify", "finished folders against their manifests, byte for byte"),
    "sandbox world": Command("sandbox.world", "WorldConfig", "world", "make synthetic posts, a survey and tiny models"),
    "sandbox check": Command("sandbox.check", "CheckConfig", "check", "count replies that the sandbox cannot parse"),
    "fit": Command("bench.fit", "FitConfig", "fit", "whether a step fits a TPU or GPU topology, and its cost"),
    "bench injection": Command(
        "bench.injection", "BenchInjectionConfig", "bench_injection", "whether replies that give orders win by it"
    ),
    "bench judge": Command("bench.judge", "BenchJudgeConfig", "bench_judge", "calls a second, and memory, of judging"),
    "bench load": Command("bench.load", "BenchLoadConfig", "bench_load", "host memory and time of loading a model"),
    "bench logps": Command("bench.logps", "BenchLogpsConfig", "bench_logps", "memory of log-probabilities, chunked"),
    "bench parity": Command("bench.parity", "BenchParityConfig", "bench_parity", "our models against transformers'"),
    "bench step": Command("bench.step", "BenchStepConfig", "bench_step", "training speed, also against TRL"),
    "bench resume": Command("bench.resume", "BenchResumeConfig", "bench_resume", "kill a run often, compare its end"),
    "sandbox fronts": Command("sandbox.fronts", "FrontsConfig", "fronts", "MODPO against soups with known rewards"),
    "sandbox tune": Command("sandbox.tuning", "TuneConfig", "tune", "how the demo's settings were chosen"),
    "bench real": Command("bench.real", "BenchRealConfig", "bench_real", "small models on real preferences"),
    "demo": Command("sandbox.demo", "DemoConfig", "demo", "the whole flow in a small synthetic world"),
}


# A disk that is full, over its quota, of too large a file, read-only or not ours.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)
# A file where a folder belongs, a folder for a file, a name that cannot be, or nothing at all.
_MISPLACED = (errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.about}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: jaxmodpo COMMAND [--config FILE.yaml] [--setting value …]",
            "",
            "Align a language model to several objectives at once, and measure whether it worked.",
            "",
            *lines,
            "",
            "jaxmodpo COMMAND --help lists a command's settings; jaxmodpo --version the version.",
        ]
    )


def find(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Split arguments into a command's name, of one or two words, and the rest."""
    words = " ".join(arguments[:2])
    if words in COMMANDS:
        return words, list(arguments[2:])
    if arguments[0] in COMMANDS:
        return arguments[0], list(arguments[1:])
    group = [name for name in COMMANDS if name.startswith(arguments[0] + " ")]
    if group:
        kind = ", ".join(name.split()[1] for name in group)
        raise UserError(f"'jaxmodpo {arguments[0]}' needs one of: {kind}")
    raise UserError(f"no command '{arguments[0]}'{nearest(arguments[0], COMMANDS)}")


def load(name: str) -> tuple[type, object]:
    """Import a command and return its settings dataclass and its function."""
    command = COMMANDS[name]
    module = importlib.import_module(f"jaxmodpo.{command.module}")
    return getattr(module, command.settings), getattr(module, command.function)


def _look_for_devices() -> None:
    """Keep JAX from looking for a TPU, and complaining at length, where libtpu is installed for ``fit`` alone."""
    places = ("/dev/accel*", "/dev/vfio/*", "/dev/nvidia*", "/dev/kfd")
    if importlib.util.find_spec("libtpu") is not None and not any(map(glob.glob, places)):
        os.environ.setdefault("JAX_PLATFORMS", "cpu")


def _users(error: OSError) -> bool:
    """Whether a file's error is the user's to mend; one without a file, or about one of ours, is our fault."""
    if error.errno in _UNWRITABLE:
        return True
    named = isinstance(error.filename, str | os.PathLike)
    return error.errno in _MISPLACED and named and not Path(error.filename).is_relative_to(Path(__file__).parent)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exit code 2 and one sentence where the user can mend it."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return
    if arguments[0] == "--version":
        print(__version__)
        return
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(PrintableFormatter("%(message)s"))
    for noisy in ("absl", "orbax", "httpx2", "httpx", "jax", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # transformers would say at each start that there is no PyTorch, which nothing here needs.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    _look_for_devices()
    with interrupts() as state:
        _run(arguments, state)


def _run(arguments: Sequence[str], state: Interrupts) -> None:
    """Run a command; whatever a signal turned into on its way, it ends as the signal asks."""
    try:
        name, rest = find(arguments)
        from jaxmodpo.config import parse

        settings, function = load(name)
        config = parse(settings, rest, f"jaxmodpo {name}")
        with contextlib.redirect_stdout(PrintableStream(sys.stdout)):
            done = function(config)  # type: ignore[operator]
        if said := getattr(done, "ending", ""):
            log.info("%s", said)
        if code := getattr(done, "exit_code", 0):
            raise SystemExit(code)
    except UserError as error:
        print(printable(f"jaxmodpo: {error}"), file=sys.stderr)
        raise SystemExit(2) from None
    except Preempted as error:
        print(printable(f"jaxmodpo: {error}; the same command goes on from here"), file=sys.stderr)
        raise SystemExit(RESTART) from None
    except BrokenPipeError:
        raise SystemExit(0) from None
    except OSError as error:
        if not _users(error):
            raise
        told = f"jaxmodpo: cannot read or write {error.filename or 'a file'}: {error.strerror}"
        print(printable(told), file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("jaxmodpo: interrupted; the same command goes on from here", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    except BaseException as error:
        # Libraries wrap what interrupts them, an import most of all.
        if state.asked is None or isinstance(error, SystemExit):
            raise
        _end(state)


def _end(state: Interrupts) -> None:
    """Say that the command was interrupted, and end.

    Raises:
        SystemExit: always.
    """
    print("jaxmodpo: interrupted; the same command goes on from here", file=sys.stderr)
    raise SystemExit(RESTART if state.asked == signal.SIGTERM else INTERRUPTED) from None


def _several() -> bool:
    """Whether this process belongs to a distributed run, which takes leave of the others at its end."""
    distributed = sys.modules.get("jax.distributed")
    return distributed is not None and distributed.is_initialized()


def program() -> None:
    """Run the command line as a process: what ``jaxmodpo`` starts.

    After Ctrl-C threads may still compute in XLA; the interpreter's orderly end would take their buffers away and
    crash. Everything worth keeping is on disk by then.
    """
    _open_streams()
    try:
        try:
            main()
        finally:
            # What nobody reads or no disk takes must not be found out in the interpreter's end, as a traceback.
            sys.stdout.flush()
    except SystemExit as end:
        if end.code not in (INTERRUPTED, RESTART) or _several():
            raise
        sys.stderr.flush()
        os._exit(int(end.code))
    except OSError as error:
        # Its buffer still holds the text, which would be written again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise SystemExit(0) from None
        if error.errno not in _UNWRITABLE:
            raise
        print(f"jaxmodpo: cannot write what was to be shown: {error.strerror}", file=sys.stderr)
        raise SystemExit(2) from None


def _open_streams() -> None:
    """Open the standard streams that the shell closed, on nothing: a file opened later would take their numbers."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


if __name__ == "__main__":
    program()
