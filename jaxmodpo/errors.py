"""The exceptions that end a command in good order.

:class:`UserError` means "the user can fix this": the command line prints its message as one
sentence and exits with code 2. :class:`Preempted` means "run me again". Every other exception is a
fault of ours and keeps its traceback.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path


class UserError(Exception):
    """Bad input: the message says what was wrong, where (file, row, field), and what to do."""


class Preempted(BaseException):
    """Asked to end (SIGTERM): everything is saved, and the same command goes on; see
    :data:`RESTART`.

    Like Ctrl-C it may come anywhere, and nothing that handles failures takes it for one.
    """


RESTART = 75
"""The exit code of :class:`Preempted` (``EX_TEMPFAIL``): launchers run the same command again."""

INTERRUPTED = 130
"""The exit code after Ctrl-C."""


@contextlib.contextmanager
def read_errors_of(path: Path) -> Iterator[None]:
    """Turn what makes a text file unreadable into a sentence for the user::

        with read_errors_of(path):
            text = path.read_text(encoding="utf-8")

    Raises:
        UserError: the file is not there, may not be read, or is not UTF-8.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from error


_MOST_NAMES = 20


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean X?"`` for the closest of ``known``, or a list of them."""
    names = sorted(map(str, known))
    matches = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if matches:
        return f"; did you mean '{matches[0]}'?"
    # A sentence of a hundred names is no sentence any more.
    listed = names[:_MOST_NAMES]
    others = len(names) - len(listed)
    return f"; known: {', '.join(listed)}" + (f" and {others} others" if others else "")
