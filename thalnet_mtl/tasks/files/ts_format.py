"""Reader of the ``.ts`` files of the UCR, UEA and Monash archives of time series.

A file begins with lines ``@name value``, the last of which is ``@data``. Each line after it is a
case: its channels separated by colons, then its class or its number::

    @dimensions 2
    @classLabel true left right
    @data
    0.1,0.2,0.3:7,8,?:left
    0.4,0.5:9,9:right

Lines that begin with ``#`` are comments. Names are read in any case.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thalnet_mtl.errors import UserError, unknown

# The names of a header; a file needs @data, and either @classLabel or @targetLabel.
_NAMES = (
    *("problemName", "timeStamps", "missing", "univariate", "dimensions", "dimension"),
    *("equalLength", "seriesLength", "classLabel", "targetLabel", "data"),
)


@dataclass(frozen=True)
class TsCases:
    """The N cases of a ``.ts`` file.

    ``series`` has an array of (time, channels) floats for each case; missing values are NaN.
    ``targets`` has an index into ``classes`` for each case (int64), or its number (float64, a
    missing one NaN) if ``classes`` is empty.
    """

    series: list[np.ndarray]
    targets: np.ndarray
    classes: tuple[str, ...]


def read_ts(path: Path | str) -> TsCases:
    """Read a ``.ts`` file.

    All channels of a case have the same length; cases may differ in length. A value ``?`` is
    missing. Time stamps are not supported.

    Raises:
        UserError: the file cannot be read, or a line does not follow the format; says which line.
    """
    lines = _lines(Path(path))
    header = _read_header(Path(path), lines)
    series: list[np.ndarray] = []
    targets: list[float] = []
    for where, line in lines:
        *channels, target = line.split(":")
        case = _read_case(channels, where, header, series)
        series.append(case)
        targets.append(_read_target(target.strip(), where, header))
    if not series:
        raise UserError(f"{path}: no case follows @data.")
    return TsCases(series, np.array(targets, np.int64 if header.classes else float), header.classes)


@dataclass
class _Header:
    """Values of the lines before ``@data``; 0 or empty where the file leaves one out."""

    channels: int = 0
    length: int = 0
    equal_length: bool = False
    classes: tuple[str, ...] = ()
    has_number: bool = False


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the lines of a file that are no comments, each after a description of its place."""
    if path.exists() and not path.is_file():  # a device may have no end
        raise UserError(f"{path} is not a file.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text in UTF-8: {error.reason}.") from error
    for number, line in enumerate(text.splitlines(), 1):
        if (line := line.strip()) and not line.startswith("#"):
            yield f"{path}, line {number}", line


def _read_header(path: Path, lines: Iterator[tuple[str, str]]) -> _Header:
    """Read the lines up to and including ``@data``."""
    header = _Header()
    names = {name.lower() for name in _NAMES}
    for where, line in lines:
        if not line.startswith("@"):
            raise UserError(f"{where}: a case before @data.")
        name, *values = line[1:].split()
        if name.lower() not in names:
            raise UserError(f"{where}: {unknown('name', name, _NAMES)}")
        if name.lower() == "data":
            break
        _read_name(header, name, values, where)
    else:
        raise UserError(f"{path}: no line @data.")
    if bool(header.classes) == header.has_number:
        raise UserError(f"{path}: needs either '@classLabel true …' or '@targetLabel true'.")
    return header


def _read_name(header: _Header, name: str, values: list[str], where: str) -> None:
    """Read one line of a header."""
    key, value = name.lower(), values[0] if values else ""
    if key == "problemname":
        return
    if key in ("dimensions", "dimension", "serieslength"):
        if not value.isdecimal() or int(value) < 1:
            raise UserError(f"{where}: @{name} is '{value}', expected a number from 1.")
        if key == "serieslength":
            header.length = int(value)
        else:
            header.channels = int(value)
        return
    if value.lower() not in ("true", "false"):
        raise UserError(f"{where}: @{name} is '{value}', expected true or false.")
    is_true = value.lower() == "true"
    if key == "timestamps" and is_true:
        raise UserError(f"{where}: time stamps are not supported.")
    if key == "univariate" and is_true:
        header.channels = 1
    elif key == "equallength":
        header.equal_length = is_true
    elif key == "targetlabel":
        header.has_number = is_true
    elif key == "classlabel" and is_true:
        header.classes = tuple(values[1:])
        if len(set(header.classes)) < max(1, len(header.classes)):
            raise UserError(f"{where}: @{name} needs the classes, each of them once.")


def _read_case(
    channels: list[str], where: str, header: _Header, before: list[np.ndarray]
) -> np.ndarray:
    """Return the (time, channels) values of a case after checking its shape."""
    expected = header.channels or (before[0].shape[1] if before else len(channels))
    if not channels or len(channels) != expected:
        raise UserError(
            f"{where}: {len(channels)} channels and a target, expected {expected or 1}. Colons "
            f"separate them."
        )
    columns = [_read_values(channel, where) for channel in channels]
    lengths = sorted({len(column) for column in columns})
    if len(lengths) > 1:
        raise UserError(f"{where}: the channels have different lengths, {lengths}.")
    length = header.length or (len(before[0]) if header.equal_length and before else 0)
    if length and lengths[0] != length:
        raise UserError(f"{where}: a case of {lengths[0]} steps, expected {length}.")
    return np.stack(columns, axis=1)


def _read_values(channel: str, where: str) -> np.ndarray:
    """Return the values of one channel, NaN for a question mark."""
    try:
        values = np.array(channel.replace("?", "nan").split(","), dtype=float)
    except ValueError as error:
        raise UserError(f"{where}: {error}.") from error
    if np.isinf(values).any():
        raise UserError(f"{where}: an infinite value.")
    return values


def _read_target(target: str, where: str, header: _Header) -> float:
    """Return the class of a case as an index, or its number."""
    if header.classes:
        if target not in header.classes:
            raise UserError(f"{where}: {unknown('class', target, header.classes)}")
        return header.classes.index(target)
    try:
        number = float(target.replace("?", "nan"))
    except ValueError:
        raise UserError(f"{where}: the target is '{target}', expected a number.") from None
    if np.isinf(number):
        raise UserError(f"{where}: the target is infinite.")
    return number
