"""Columns of CSV files as numbers or as categories; what does not fit is named by line and column.

Lines are counted from 1, as editors do, and the first line holds the names of the columns.
"""

import csv
import fnmatch
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from thalnet_mtl.errors import UserError, suggest

if TYPE_CHECKING:
    import pandas as pd

FIRST_LINE = 2  # that of the first row
# Numbers that are missing. A category may be called NA or None: there only the empty cell is.
BLANKS = ("", "NA", "N/A", "n/a", "<NA>", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None")


class Table:
    """The rows of one CSV file, or of several whose rows follow one another.

    Args:
        files: paths by part, such as ``{"train": "a.csv", …}``, or one path under ''.
        separator: character between two cells.

    Raises:
        UserError: a file cannot be read as a table, or two differ in their columns.
    """

    def __init__(self, files: Mapping[str, str], separator: str = ","):
        if len(separator) != 1:
            raise UserError(f"separator {separator!r}: expected one character, such as ',' or ';'.")
        self.files = {part: Path(path).expanduser() for part, path in files.items()}
        self.separator = separator
        headers = {path: _header(path, separator) for path in self.files.values()}
        self.columns = next(iter(headers.values()))
        for path, columns in headers.items():
            if set(columns) != set(self.columns):
                odd = sorted(set(columns) ^ set(self.columns))[0]
                first = next(iter(headers))
                raise UserError(f"{path} and {first} differ in their columns: '{odd}' is in one.")

    def find(self, columns: Sequence[str], option: str) -> list[str]:
        """Return the names of the columns of an option; ``x*`` stands for all that match.

        Raises:
            UserError: there is no such column, or one is named twice.
        """
        names: list[str] = []
        for name in columns:
            matches = [name] if name in self.columns else fnmatch.filter(self.columns, name)
            if not matches:
                raise UserError(f"{option}: {self._no_column(name)}")
            names += matches
        if twice := [name for name in names if names.count(name) > 1]:
            raise UserError(f"{option}: column '{twice[0]}' is named twice.")
        return names

    def read(
        self, numbers: Sequence[str], words: Sequence[str], hints: Mapping[str, str]
    ) -> "Rows":
        """Read columns: some whose cells must be numbers, others whose cells may be any words.

        ``hints`` say by column what to do if a cell is no number.
        """
        import pandas as pd

        frames = [self._read(path, [*numbers, *words], set(words)) for path in self.files.values()]
        starts = np.cumsum([0, *(len(frame) for frame in frames)])
        frame = pd.concat(frames, ignore_index=True)
        rows = Rows(frame, list(self.files.values()), starts, words)
        rows.parts = np.repeat(list(self.files), np.diff(starts))
        for column in numbers:
            rows.check_numbers(column, hints.get(column, ""))
        return rows

    def _read(self, path: Path, columns: Sequence[str], words: set[str]) -> "pd.DataFrame":
        import pandas as pd

        blanks = {name: [""] if name in words else list(BLANKS) for name in columns}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)
                frame = pd.read_csv(
                    path,
                    sep=self.separator,
                    names=_header(path, self.separator),
                    header=0,
                    index_col=False,
                    dtype=dict.fromkeys(words, str),
                    na_values=blanks,
                    keep_default_na=False,
                    skipinitialspace=True,
                    skip_blank_lines=False,
                    encoding="utf-8-sig",
                    low_memory=False,
                )
        except (ValueError, pd.errors.ParserWarning) as error:
            raise UserError(f"{path}: {' '.join(str(error).split())}.") from error
        frame = frame[list(dict.fromkeys(columns))]
        if frame.empty:
            raise UserError(f"{path} holds no rows.")
        while len(frame) and frame.iloc[-1].isna().all():  # blank lines at the end
            frame = frame.iloc[:-1]
        return frame

    def _no_column(self, name: str) -> str:
        files = ", ".join(map(str, self.files.values()))
        if len(self.columns) == 1:
            return (
                f"{files} has a single column, '{self.columns[0]}'. If its cells are not separated "
                f"by {self.separator!r}, set separator."
            )
        hint = suggest(name, self.columns)
        shown = self.columns if len(self.columns) <= 20 else [*self.columns[:20], "…"]
        return f"{files} has no column '{name}'. Its columns: {', '.join(shown)}.{hint}"


class Rows:
    """Rows of a table, in the order of its files.

    Attributes:
        parts: (rows,) the part whose file a row is from.
    """

    def __init__(
        self,
        frame: "pd.DataFrame",
        paths: Sequence[Path],
        starts: np.ndarray,
        words: Sequence[str] = (),
    ):
        self.frame, self.paths, self.starts = frame, paths, starts
        self._text = frame[list(words)].copy()  # ``check_numbers`` changes the frame
        self.parts = np.full(len(frame), "")

    def __len__(self) -> int:
        return len(self.frame)

    def place(self, row: int, column: str = "") -> str:
        """Return file, line and column of a cell, for errors."""
        file = int(np.searchsorted(self.starts, row, "right")) - 1
        line = row - self.starts[file] + FIRST_LINE
        return f"{self.paths[file]}, line {line}" + (f", column '{column}'" if column else "")

    def line(self, row: int) -> str:
        """Return the line of a row, for errors that name its file already."""
        return self.place(row).rpartition(", ")[2]

    def files(self) -> np.ndarray:
        """Return the number of the file of each row: (rows,)."""
        return np.searchsorted(self.starts, np.arange(len(self)), "right") - 1

    def numbers(self, columns: Sequence[str]) -> np.ndarray:
        """Return columns of numbers, NaN where a cell is blank: (rows, columns)."""
        return self.frame[list(columns)].to_numpy(float, copy=True, na_value=np.nan)

    def words(self, column: str) -> np.ndarray:
        """Return the cells of a column as text; '' where one is blank: (rows,)."""
        return self._text[column].fillna("").to_numpy(str)

    def check_numbers(self, column: str, hint: str = "") -> None:
        """Make a column one of numbers; a UserError names the first cell that holds none."""
        import pandas as pd

        cells = self.frame[column]
        numbers = pd.to_numeric(cells, errors="coerce").astype(float)
        wrong = (numbers.isna() & cells.notna()).to_numpy() | np.isinf(numbers.to_numpy())
        if wrong.any():
            row = int(wrong.argmax())
            raise UserError(
                f"{self.place(row, column)}: {str(cells.iloc[row])!r} is no finite number.{hint}"
            )
        self.frame[column] = numbers

    def codes(self, column: str) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return the categories of a column: codes (rows,), NaN where blank, and their names.

        Categories are in the order of their values, as numbers if all are numbers. Whole numbers
        from 0 without gaps are their own codes.
        """
        words = self.words(column)
        names = sorted(set(words) - {""})
        values = [_as_number(name) for name in names]
        if all(value is not None for value in values):
            names = [name for _, name in sorted(zip(values, names, strict=True))]
        code = {name: float(k) for k, name in enumerate(names)} | {"": np.nan}
        return np.array([code[word] for word in words]), tuple(names)

    def order(self, column: str) -> np.ndarray:
        """Return the keys (rows,) that order rows by a column of numbers, dates or times."""
        import pandas as pd

        words = self._text[column]
        if words.isna().any():
            row = int(words.isna().to_numpy().argmax())
            raise UserError(f"{self.place(row, column)}: the time is missing.")
        numbers = pd.to_numeric(words, errors="coerce")
        if numbers.notna().all():
            return numbers.to_numpy(float)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that each cell is parsed by itself
            dates: Any = pd.to_datetime(words, errors="coerce", utc=True)
        if dates.isna().any():
            row = int(dates.isna().to_numpy().argmax())
            raise UserError(
                f"{self.place(row, column)}: {str(words.iloc[row])!r} is neither a number nor a "
                f"date."
            )
        return dates.to_numpy("datetime64[ns]").astype(np.int64)


def _header(path: Path, separator: str) -> list[str]:
    """Return the names of the columns of a file."""
    if not path.is_file():
        near = [file.name for file in path.parent.glob("*")] if path.parent.is_dir() else []
        raise UserError(f"no file {path} in {Path.cwd()}.{suggest(path.name, near)}")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file, delimiter=separator), [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
        raise UserError(f"{path}: {reason}.") from error
    columns = [name.strip() for name in header]
    if not columns:
        raise UserError(f"{path} is empty.")
    if twice := [name for name in columns if name and columns.count(name) > 1]:
        raise UserError(f"{path} has two columns '{twice[0]}'.")
    return [name or f"column {k}" for k, name in enumerate(columns, 1)]


def _as_number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None
