"""The command line: help, one command with its settings, and how it ends: exit codes, sentences,
signals::

    main(["questions", "--input", "posts.csv", "--output-dir", "out/questions"])

Nothing heavy is imported before a command is chosen, so that ``jaxmodpo --help`` answers at once.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import importlib.util
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxmodpo import __version__
from jaxmodpo.commands import COMMANDS, FAMILIES, load, members, overview, overview_of
from jaxmodpo.errors import INTERRUPTED, RESTART, Preempted, UserError, nearest
from jaxmodpo.interrupts import Interrupts, interrupts
from jaxmodpo.launched import refuse_further_processes
from jaxmodpo.terminal import PrintableFormatter, PrintableStream, printable

logger = logging.getLogger(__name__)


_INTERRUPTED = "jaxmodpo: interrupted; the same command goes on from here"

_HELP = ("-h", "--help", "help")
# A disk that is full, over its quota, of too large a file, read-only or not ours.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)
# A file where a folder belongs, a folder for a file, a name that cannot be, or nothing at all.
_MISPLACED = (
    errno.ENOTDIR,
    errno.EEXIST,
    errno.ENOENT,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
)


def split_command(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Split arguments into a command's name, of one or two words, and the rest."""
    words = " ".join(arguments[:2])
    if words in COMMANDS:
        return words, list(arguments[2:])
    if arguments[0] in COMMANDS:
        return arguments[0], list(arguments[1:])
    family = members(arguments[0])
    if not family:
        first_words = [*FAMILIES, *(name for name in COMMANDS if " " not in name)]
        raise UserError(f"no command '{arguments[0]}'{nearest(arguments[0], first_words)}")
    member = " ".join(arguments[1:2])
    raise UserError(f"'jaxmodpo {arguments[0]}' has no '{member}'; it has {', '.join(family)}")


def _skip_absent_tpu() -> None:
    """Keep JAX from looking for a TPU, and complaining at length, where libtpu is installed for
    ``fit`` alone.
    """
    device_patterns = ("/dev/accel*", "/dev/vfio/*", "/dev/nvidia*", "/dev/kfd")
    if importlib.util.find_spec("libtpu") is not None and not any(map(glob.glob, device_patterns)):
        os.environ.setdefault("JAX_PLATFORMS", "cpu")


def _can_user_mend(error: OSError) -> bool:
    """Return whether a file's error is the user's to mend; one without a file, or about one of
    ours, is our fault.
    """
    if error.errno in _UNWRITABLE:
        return True
    if error.errno not in _MISPLACED or not isinstance(error.filename, str | os.PathLike):
        return False
    package = Path(__file__).parent
    return not Path(error.filename).is_relative_to(package)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exit code 2 and one sentence where the user can mend it."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in _HELP:
        print(overview())
        return
    asks_for_help = len(arguments) == 1 or arguments[1] in _HELP
    if arguments[0] in FAMILIES and asks_for_help:
        print(overview_of(arguments[0]))
        return
    if arguments[0] == "--version":
        print(__version__)
        return
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(PrintableFormatter("%(message)s"))
    for noisy in ("absl", "orbax", "httpx2", "httpx", "jax", "matplotlib", "fontTools"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # transformers would say at each start that there is no PyTorch, which nothing here needs.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    _skip_absent_tpu()
    with interrupts() as state:
        _run(arguments, state)


def _run(arguments: Sequence[str], state: Interrupts) -> None:
    """Run a command; whatever a signal turned into on its way, it ends as the signal asks."""
    try:
        name, rest = split_command(arguments)
        # Imported here, since it brings tyro, which no overview needs.
        from jaxmodpo.flags.parse import parse

        settings, function = load(name)
        config = parse(settings, rest, f"jaxmodpo {name}")
        refuse_further_processes(name, processes=COMMANDS[name].processes)
        with contextlib.redirect_stdout(PrintableStream(sys.stdout)):
            result = function(config)  # type: ignore[operator]
        # Most commands return their phase, or nothing.
        ending = getattr(result, "ending", "")
        if ending:
            logger.info("%s", ending)
        exit_code = getattr(result, "exit_code", 0)
        if exit_code:
            raise SystemExit(exit_code)
    except UserError as error:
        print(printable(f"jaxmodpo: {error}"), file=sys.stderr)
        raise SystemExit(2) from None
    except Preempted as error:
        print(printable(f"jaxmodpo: {error}; the same command goes on from here"), file=sys.stderr)
        raise SystemExit(RESTART) from None
    except BrokenPipeError:
        raise SystemExit(0) from None
    except OSError as error:
        if not _can_user_mend(error):
            raise
        sentence = f"cannot read or write {error.filename or 'a file'}: {error.strerror}"
        print(printable(f"jaxmodpo: {sentence}"), file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print(_INTERRUPTED, file=sys.stderr)
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
    print(_INTERRUPTED, file=sys.stderr)
    raise SystemExit(RESTART if state.asked == signal.SIGTERM else INTERRUPTED) from None


def _is_distributed() -> bool:
    """Return whether this process belongs to a distributed run, which takes leave of the others at
    its end.
    """
    # A command that never imported JAX does not import it for this question.
    distributed = sys.modules.get("jax.distributed")
    return distributed is not None and distributed.is_initialized()


def program() -> None:
    """Run the command line as a process: what ``jaxmodpo`` starts.

    After Ctrl-C threads may still compute in XLA; the interpreter's orderly end would take their
    buffers away and crash. Everything worth keeping is on disk by then.
    """
    _open_streams()
    try:
        try:
            main()
        finally:
            # What nobody reads or no disk takes must not be found out in the interpreter's end, as
            # a traceback.
            sys.stdout.flush()
    except SystemExit as end:
        if end.code not in (INTERRUPTED, RESTART) or _is_distributed():
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
    """Open the standard streams that the shell closed, on nothing: a file opened later would take
    their numbers.
    """
    streams = [("stdin", "r"), ("stdout", "w"), ("stderr", "w")]
    for number, (name, mode) in enumerate(streams):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


if __name__ == "__main__":
    program()
