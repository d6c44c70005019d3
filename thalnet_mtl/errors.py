"""Errors with one clear line, and the closest match to a name that does not exist."""

import difflib
import errno
from collections.abc import Iterable

# Errors of the operating system that a path of the user causes, wherever it is used.
USER_ERRNOS = {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP}


class UserError(ValueError):
    """A mistake that the user can correct: printed as one line, exit status 2, no traceback."""


class UnknownName(UserError):
    """A name that is not among the allowed ones."""


class RunError(RuntimeError):
    """A run that ended early for another reason: printed as one line, exit status 1."""


class Interrupted(RunError):
    """The user asked to stop, and the run stopped after a step; ``saved`` if it can be resumed."""

    def __init__(self, step: int, total_steps: int, saved: bool):
        end = f"step {step:,} of {total_steps:,}"
        super().__init__(f"saved at {end}" if saved else f"stopped at {end}, not saved")
        self.saved = saved


def describe_os_error(error: OSError) -> str:
    """Return a line on what the operating system refused, with the file if it is known.

    The first note of the error says what could not be done, as ``files.attempt`` adds it.

    >>> describe_os_error(PermissionError(13, "Permission denied", "runs/a/config.yaml"))
    'runs/a/config.yaml: Permission denied.'
    """
    if error.strerror is None:
        return " ".join(str(error).split()) or type(error).__name__
    what, *hints = getattr(error, "__notes__", None) or [error.filename or "", ""]
    line = f"{what}: {error.strerror}. {hints[0]}" if what else f"{error.strerror}."
    return line.strip()


def suggest(value: str, allowed: Iterable[str]) -> str:
    """Return the closest allowed value as the end of an error line, or '' if none is close.

    >>> suggest("adamm", ["adam", "sgd"])
    " Did you mean 'adam'?"
    """
    close = difflib.get_close_matches(str(value), list(allowed), n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


def unknown(kind: str, value: str, allowed: Iterable[str]) -> UnknownName:
    """Build the error for a name that is not among the allowed ones.

    >>> print(unknown("optimizer", "adamm", ["adam", "sgd"]))
    unknown optimizer 'adamm'. Allowed: adam, sgd. Did you mean 'adam'?
    """
    names = list(allowed)
    return UnknownName(
        f"unknown {kind} '{value}'. Allowed: {', '.join(names)}.{suggest(value, names)}"
    )


def one_line(text: str) -> str:
    r"""Return a text with its control characters written out: it is one line and moves no cursor.

    >>> one_line("runs/a\nb \x1b[2J")
    'runs/a\\nb \\x1b[2J'
    """
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def printable(text: str) -> str:
    """Return a text with its control characters written out, but for the ends of its lines."""
    return "\n".join(map(one_line, text.split("\n")))
