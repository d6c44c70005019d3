"""Dataclasses filled from YAML and flags: every value checked, every mistake one clear line."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake of the user: one clear line, exit status 2, no traceback."""


class RunError(RuntimeError):
    """A run ended early, through nobody's typo: one clear line, exit status 1."""


def suggest(value: str, allowed: Iterable[str]) -> str:
    """The closest match as the end of an error line, or nothing when nothing is close."""
    close = difflib.get_close_matches(str(value), list(allowed), n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


def unknown(what: str, value: str, allowed: Iterable[str]) -> UserError:
    """The error for a name that is not among the allowed ones."""
    names = list(allowed)
    return UserError(
        f"unknown {what} '{value}'. Allowed: {', '.join(names)}.{suggest(value, names)}"
    )
