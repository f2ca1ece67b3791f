"""Texts as a terminal may show them: what servers and files say can move no cursor and turn no line
around.

The command line prints and logs through here alone.
"""

from __future__ import annotations

import io
import logging
import re
from typing import TextIO

# Controls but the end of a line and the tab (C0, DEL, C1), marks that turn the direction of
# writing, ends of lines that are none, and halves of surrogate pairs, which no stream can encode.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def printable(text: str) -> str:
    """Return a text with its control characters written out: the escape character becomes
    ``\\x1b``.
    """
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class PrintableStream(io.TextIOBase):
    """Writes to a stream what :func:`printable` shows: a command's tables hold names of files and
    people's ids.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str, /) -> int:
        self._stream.write(printable(text))
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


class PrintableFormatter(logging.Formatter):
    """Formats log messages, tracebacks too, as :func:`printable` shows them."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))
