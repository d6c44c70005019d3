"""Errors with one clear line, and the closest match to a name that does not exist."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake that the user can correct: printed as one line, exit status 2, no traceback."""


class RunError(RuntimeError):
    """A run that ended early for another reason: printed as one line, exit status 1."""


def suggest(value: str, allowed: Iterable[str]) -> str:
    """Return the closest allowed value as the end of an error line, or '' if none is close.

    >>> suggest("adamm", ["adam", "sgd"])
    " Did you mean 'adam'?"
    """
    close = difflib.get_close_matches(str(value), list(allowed), n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


def unknown(kind: str, value: str, allowed: Iterable[str]) -> UserError:
    """Build the error for a name that is not among the allowed ones.

    >>> print(unknown("optimizer", "adamm", ["adam", "sgd"]))
    unknown optimizer 'adamm'. Allowed: adam, sgd. Did you mean 'adam'?
    """
    names = list(allowed)
    return UserError(
        f"unknown {kind} '{value}'. Allowed: {', '.join(names)}.{suggest(value, names)}"
    )
