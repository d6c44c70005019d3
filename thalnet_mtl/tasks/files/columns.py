"""Columns of CSV files as numbers or as categories; what does not fit is named by line and column.

Lines are counted from 1, as editors do, and the first line holds the names of the columns.
"""

import csv
import fnmatch
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from thalnet_mtl.errors import UserError, suggest
from thalnet_mtl.tasks.files.times import read_times

if TYPE_CHECKING:
    import pandas as pd

FIRST_LINE = 2  # that of the first row
# Numbers that are missing. A category may be called NA or None: there only the empty cell is.
# Words of labels in several languages: 0 and 1.
PAIRS = (
    "no/yes n/y false/true f/t off/on nein/ja n/j falsch/wahr non/oui n/o faux/vrai f/v no/si "
    "no/sí n/s falso/verdadero não/sim nao/sim nee/ja nej/ja nie/tak ne/ano не/да нет/да "
    "negative/positive absent/present"
)
DECIMAL_COMMA = re.compile(r"[-+]?[\d.]*\d,\d+")  # 35,19
BLANKS = ("", "NA", "N/A", "n/a", "<NA>", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None")


class Table:
    """The rows of one CSV file, or of several whose rows follow one another.

    Args:
        files: paths by part, such as ``{"train": "a.csv", …}``, or one path under ''.
        separator: character between two cells.
        decimal: character before the decimals of a number.

    Raises:
        UserError: a file cannot be read as a table, or two differ in their columns.
    """

    def __init__(self, files: Mapping[str, str], separator: str = ",", decimal: str = "."):
        if len(separator) != 1:
            raise UserError(f"separator {separator!r}: expected one character, such as ',' or ';'.")
        self.files = {part: Path(path).expanduser() for part, path in files.items()}
        if len(decimal) != 1 or decimal == separator or decimal.isalnum():
            raise UserError(
                f"decimal {decimal!r}: expected one sign other than the separator, such as '.' or "
                f"',' (with separator: ';')."
            )
        self.separator, self.decimal = separator, decimal
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
        self,
        numbers: Sequence[str],
        words: Sequence[str],
        hints: Mapping[str, str],
        labels: Sequence[str] = (),
    ) -> "Rows":
        """Read columns: some whose cells must be numbers, others whose cells may be any words.

        Args:
            numbers: columns of numbers.
            words: columns of any words.
            hints: what to do if a cell is no number, by column.
            labels: the columns of numbers in which no and yes stand for 0 and 1.
        """
        import pandas as pd

        frames = [self._read(path, [*numbers, *words], set(words)) for path in self.files.values()]
        starts = np.cumsum([0, *(len(frame) for frame in frames)])
        frame = pd.concat(frames, ignore_index=True)
        rows = Rows(frame, list(self.files.values()), starts, words, self.decimal)
        rows.parts = np.repeat(list(self.files), np.diff(starts))
        for column in labels:
            rows.read_labels(column)
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
                    decimal=self.decimal,
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
        decimal: str = ".",
    ):
        self.frame, self.paths, self.starts = frame, paths, starts
        self._text = frame[list(words)].copy()  # ``check_numbers`` changes the frame
        self.decimal = decimal
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
        points = cells
        if self.decimal != "." and not pd.api.types.is_numeric_dtype(cells):
            # One cell that is no number makes all of them text.
            points = cells.astype(str).str.replace(".", "no number").str.replace(self.decimal, ".")
        numbers = pd.to_numeric(points, errors="coerce").astype(float)
        wrong = (numbers.isna() & cells.notna()).to_numpy() | np.isinf(numbers.to_numpy())
        if wrong.any():
            row = int(wrong.argmax())
            cell = str(cells.iloc[row])
            if self.decimal == "." and DECIMAL_COMMA.fullmatch(cell):
                hint = " If it is a decimal comma, set decimal: ','."
            elif self.decimal != "." and _as_number(cell) is not None:
                hint = f" The decimal sign is {self.decimal!r}; write thousands without a sign."
            raise UserError(f"{self.place(row, column)}: {cell!r} is no finite number.{hint}")
        self.frame[column] = numbers

    def read_labels(self, column: str) -> None:
        """Make a column of two words such as no and yes, in any case, one of 0 and 1."""
        words = self.frame[column].astype("string").str.strip().str.lower()
        seen = set(words.dropna())
        for pair in (words_of.split("/") for words_of in PAIRS.split()):
            if seen and seen <= set(pair):
                self.frame[column] = words.map(dict(zip(pair, (0.0, 1.0), strict=True)))

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

    def times(self, column: str) -> np.ndarray:
        """Return a column of numbers, or of dates and times as ``datetime64``: (rows,)."""
        words = self._text[column]
        if words.isna().any():
            row = int(words.isna().to_numpy().argmax())
            raise UserError(f"{self.place(row, column)}: the time is missing.")
        cells = [self._with_point(word) for word in words.str.strip()]
        return read_times(cells, lambda row: self.place(row, column))

    def _with_point(self, word: str) -> str:
        """Return a number with a decimal point; other words as they are."""
        if self.decimal != "." and "." not in word and word.count(self.decimal) == 1:
            changed = word.replace(self.decimal, ".")
            return word if _as_number(changed) is None else changed
        return word


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
