"""The times of rows: dates in one form for a whole column, and the holes between them.

A date is never read by itself, since 05.03.2024 or 05/03/2024 alone does not say what its month is.
"""

import itertools
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from thalnet_mtl.errors import UserError

# Three numbers between the same two signs, as in 2024-03-05, 05.03.2024 and 3/5/24.
DATE = re.compile(r"(?<!\d)(\d{1,4})( ?[./-] ?| )(\d{1,2})\2(\d{4}|\d{1,2})(?!\d)")
# Dates that look like numbers: 20240305, 20240305143000 and 03.2024.
COMPACT = re.compile(r"((?:19|20)\d\d)(\d\d)(\d\d)(?:(\d\d)(\d\d)(\d\d)?)?")
MONTH = re.compile(r"(0[1-9]|1[0-2])\.((?:19|20)\d\d)")
GAP = 1.5  # a step that is larger than so many usual ones
UNITS = (("days", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0))
ISO = "write dates as yyyy-mm-dd, such as 2024-03-05"


def read_times(words: Sequence[str], place: Callable[[int], str]) -> np.ndarray:
    """Return numbers as floats, or dates and times as ``datetime64``: (rows,).

    All dates of a column have the same form. Between dots the day comes first; between other signs
    the only order in which every cell is a date.

    Args:
        words: the cells, none of them blank.
        place: names the file, line and column of a row, for errors.

    Raises:
        UserError: a cell is neither a number nor a date, or the order of day and month is unclear.
    """
    import pandas as pd

    numbers = pd.to_numeric(pd.Series(words), errors="coerce").to_numpy(float)
    if np.isfinite(numbers).all():
        dates = _dates_like_numbers(words)
        return numbers if dates is None or np.isnat(dates).any() else dates
    matches = [DATE.search(word) for word in words]
    forms = [_form(match) for match in matches]
    if row := next((row for row, form in enumerate(forms) if form != forms[0]), 0):
        _refuse_missing(words, _parse(words, "mixed"), place)
        raise UserError(
            f"{place(0)} and {place(row)}: {words[0]!r} and {words[row]!r} are dates of "
            f"different forms; {ISO}."
        )
    readings = {
        order: _parse(
            [_as_iso(*cell, order) for cell in zip(words, matches, strict=True)],
            "mixed" if order else None,
        )
        for order in _orders(forms[0])
    }
    complete = [times for times in readings.values() if not np.isnat(times).any()]
    if not complete:
        _refuse_missing(words, next(iter(readings.values())), place)
    for first, second in itertools.pairwise(complete):
        if (differs := first != second).any():
            row = int(differs.argmax())
            days = " or ".join(str(times[row].astype("datetime64[D]")) for times in (first, second))
            raise UserError(f"{place(row)}: {words[row]!r} may be {days}; {ISO}.")
    return complete[0]


def steps_of(times: np.ndarray) -> np.ndarray:
    """Return the steps between times in order: seconds between dates, or numbers."""
    steps = np.diff(times)
    return steps / np.timedelta64(1, "s") if steps.dtype.kind == "m" else steps


def gaps_of(steps: np.ndarray) -> np.ndarray:
    """Return which steps of a series are gaps: larger than 1.5 usual ones, (steps,).

    The usual step is the median of those above 0, so that months of 28 to 31 days have no gap.
    """
    positive = steps[steps > 0]
    if not len(positive):
        return np.zeros(len(steps), bool)
    return steps > GAP * np.quantile(positive, 0.5, method="lower")


def describe_step(step: float, is_date: bool) -> str:
    """Return a step with its unit, if it has one: ``51 h``."""
    if not is_date:
        return f"{step:g}"
    unit, seconds = next((u for u in UNITS if step >= 3 * u[1]), UNITS[-1])
    return f"{step / seconds:.3g} {unit}"


def _dates_like_numbers(words: Sequence[str]) -> np.ndarray | None:
    """Return dates without signs, or months such as 03.2024; None if they are mere numbers."""
    if all(matches := [COMPACT.fullmatch(word) for word in words]):
        parts = [match.groups("00") for match in matches if match]
        return _parse([f"{y}-{m}-{d} {hour}:{mn}:{s}" for y, m, d, hour, mn, s in parts])
    months = [MONTH.fullmatch(word) for word in words]
    if all(months) and any(word.startswith("0") for word in words):
        return _parse([f"{match[2]}-{match[1]}-01" for match in months if match])
    return None


def _form(match: "re.Match[str] | None") -> str:
    """Return the form of a date: ``ymd``, a sign, or that with ``yy`` for years of two digits."""
    if match is None:
        return ""
    first, sign, _, last = match.groups()
    sign = sign.strip() or " "
    if len(first) > 2:
        return "ymd"
    return sign if len(last) == 4 else f"{sign}yy"


def _orders(form: str) -> tuple[str, ...]:
    """Return the orders of day, month and year that a form may have; '' leaves it to pandas."""
    if form in ("", "ymd"):
        return (form,)
    if form.startswith("."):
        return ("dmy",)
    return ("dmy", "mdy", "ymd") if form.endswith("yy") else ("dmy", "mdy")


def _as_iso(word: str, match: "re.Match[str] | None", order: str) -> str:
    """Return a cell with its date as yyyy-mm-dd."""
    if match is None:
        return word
    parts = dict(zip(order, match.group(1, 3, 4), strict=True))
    year = int(parts["y"])
    if len(parts["y"]) <= 2:
        year += 2000 if year < 69 else 1900  # as POSIX does
    before, after = word[: match.start()], word[match.end() :].lstrip(".,")
    return f"{before}{year:04d}-{int(parts['m']):02d}-{int(parts['d']):02d}{after}"


def _parse(words: Sequence[str], form: str | None = "mixed") -> np.ndarray:
    """Return dates as ``datetime64``, not a time where a cell is none.

    ``form`` is ``mixed`` for years, months and days in this order, whatever time follows; with None
    all cells have the format of the first.
    """
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that each cell is parsed by itself
        dates: Any = pd.to_datetime(pd.Series(words), errors="coerce", utc=True, format=form)
    return dates.to_numpy("datetime64[ns]")


def _refuse_missing(words: Sequence[str], times: np.ndarray, place: Callable[[int], str]) -> None:
    """Raise if a cell is not a time."""
    if np.isnat(times).any():
        row = int(np.isnat(times).argmax())
        raise UserError(f"{place(row)}: {words[row]!r} is neither a number nor a date; {ISO}.")
