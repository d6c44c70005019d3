"""Standard output and error that may be closed, full, left by their reader, or short of letters."""

import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

# Letters of this package's own texts, for encodings that do not have them.
_SIMILAR = str.maketrans({"–": "-", "−": "-", "…": "~", "×": "x", "·": "*", "∝": "~", "Δ": "D",
                          "²": "2", "→": ">", "½": "1/2"})  # fmt: skip


class Nowhere(io.TextIOBase):
    """A text stream that discards everything."""

    def write(self, text: str) -> int:
        """Discard a text."""
        return len(text)


class PatientStream:
    """A text stream that replaces letters it cannot encode, and does not end the program.

    Once something cannot be written, because the disk is full or the reader of a pipe has left, it
    discards all that follows, and ``problem`` holds the error. A training goes on without its
    output.

    Args:
        stream: None if it is closed, as Python has it; then everything is discarded.
    """

    def __init__(self, stream: TextIO | None):
        self.stream = Nowhere() if stream is None else stream
        self.problem: OSError | None = None

    def write(self, text: str) -> int:
        """Write a text, or discard it after a problem."""
        if self.problem is None:
            try:
                try:
                    self.stream.write(text)
                except UnicodeEncodeError:
                    self.stream.write(replace_letters(text, self.stream.encoding or "utf-8"))
            except OSError as problem:
                self._discard(problem)
        return len(text)

    def flush(self) -> None:
        """Flush the stream, or discard what it holds after a problem."""
        if self.problem is None:
            try:
                self.stream.flush()
            except OSError as problem:
                self._discard(problem)

    def _discard(self, problem: OSError) -> None:
        """Remember a problem, and let the last flush of Python go nowhere."""
        self.problem = problem
        with suppress(OSError):  # a stream in memory has no descriptor
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.stream.fileno())
            os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def replace_letters(text: str, encoding: str) -> str:
    """Replace the letters of a text that an encoding lacks, by similar ones where there are some.

    >>> replace_letters("2 – 3 of β", "ascii")
    '2 - 3 of ?'
    """

    def replace(letter: str) -> str:
        try:
            letter.encode(encoding)
        except UnicodeEncodeError:
            return letter.translate(_SIMILAR).encode(encoding, "replace").decode(encoding)
        return letter

    return "".join(map(replace, text))


@contextmanager
def patient_output() -> Iterator[PatientStream]:
    """Make standard output and error patient while the context lasts, and yield the output."""
    while (null := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # takes the place of a closed descriptor, before a file of a run does
    os.close(null)
    for name in ("COLUMNS", "LINES"):  # what is no size of a terminal would end rich
        if not re.fullmatch("[1-9][0-9]{0,4}", os.environ.get(name, "1")):
            del os.environ[name]
    before = sys.stdout, sys.stderr
    output, errors = map(PatientStream, before)
    sys.stdout, sys.stderr = output, errors
    try:
        yield output
    finally:
        output.flush()
        errors.flush()
        sys.stdout, sys.stderr = before
