"""Series of numbers out of the rows of a table: in long form, by groups, or in wide form."""

import numpy as np

from thalnet_mtl.errors import UserError
from thalnet_mtl.tasks.files.columns import Rows
from thalnet_mtl.tasks.files.observations import Observations
from thalnet_mtl.tasks.files.times import describe_step, gaps_of, steps_of
from thalnet_mtl.tasks.splits.sequences import SPLITS


def set_parts(rows: Rows, column: str) -> None:
    """Take the part of every row from a column."""
    rows.parts = rows.words(column)
    wrong = ~np.isin(rows.parts, SPLITS)
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(
            f"{rows.place(row, column)}: '{rows.parts[row]}' is no split. Allowed: "
            f"{', '.join(SPLITS)}."
        )


def read_targets(rows: Rows, columns: list[str], target: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return targets (rows, outputs), NaN where they are missing, and the names of classes."""
    if target == "class":
        codes, names = rows.codes(columns[0])
        return codes[:, None], names
    targets = rows.numbers(columns)
    if target == "labels":
        wrong = ~np.isin(targets, (0, 1)) & ~np.isnan(targets)
        if wrong.any():
            row, k = (int(index) for index in np.argwhere(wrong)[0])
            raise UserError(
                f"{rows.place(row, columns[k])}: label {targets[row, k]:g} is not allowed; a label "
                f"is 0 or 1, or blank if it is missing."
            )
    return targets, ()


def read_long(
    rows: Rows, inputs: list[str], targets: np.ndarray, group: str, time: str, window: int = 0
) -> Observations:
    """Return rows in the series of their groups, in the order of time."""
    keys = rows.words(group) if group else np.full(len(rows), "")
    if group and (keys == "").any():
        raise UserError(f"{rows.place(int((keys == '').argmax()), group)}: the group is missing.")
    times = rows.times(time) if time else np.zeros(len(rows))
    # Groups of different files are different, even if they have the same name.
    places: dict[tuple[int, str], list[int]] = {}
    for row, name in enumerate(zip(rows.files().tolist(), keys.tolist(), strict=True)):
        places.setdefault(name, []).append(row)
    indices = [np.array(members) for members in places.values()]
    series = [index[np.argsort(times[index], kind="stable")] for index in indices]
    notices = _time_notices(rows, times, series, group, time, window) if time else []
    labels = [f"{group} '{name}'" if group else "" for _, name in places]
    return Observations(
        rows.numbers(inputs),
        targets,
        series,
        labels,
        rows.parts,
        lambda row, k: rows.place(row, inputs[k] if k >= 0 else ""),
        notices,
    )


def _time_notices(
    rows: Rows, times: np.ndarray, series: list[np.ndarray], group: str, time: str, window: int
) -> list[str]:
    """Return what is odd about the times of series: rows of the same time, and gaps."""
    notices = []
    steps = [steps_of(times[index]) for index in series]
    same = [(i, k) for i, part in enumerate(steps) for k in np.flatnonzero(part == 0)]
    if same:
        index, k = series[same[0][0]], same[0][1]
        first, second = rows.place(int(index[k])), rows.line(int(index[k + 1]))
        count = f" ({len(same)} such pairs)" if len(same) > 1 else ""
        hint = "" if group else "; if the file holds several series, set group"
        notices.append(f"{first} and {second} have the same {time}{count}{hint}.")
    gaps = [(part[k], i, k) for i, part in enumerate(steps) for k in np.flatnonzero(gaps_of(part))]
    if gaps:
        longest, i, k = max(gaps, key=lambda gap: gap[0])
        step = describe_step(float(longest), times.dtype.kind == "M")
        counted = f"{len(gaps)} gap{'s' * (len(gaps) > 1)} in {time}, the longest {step}, at "
        advice = (
            "windows cross them; give each stretch a 'group' with split: time"
            if window
            else "sequences cross them; give each stretch a group of its own"
        )
        notices.append(f"{counted}{rows.place(int(series[i][k + 1]))}; {advice}.")
    return notices


def read_wide(rows: Rows, inputs: list[str], targets: np.ndarray) -> Observations:
    """Return the cells of each row as the steps of a series."""
    cells = rows.numbers(inputs)
    filled = ~np.isnan(cells)
    lengths = np.where(filled.any(1), cells.shape[1] - filled[:, ::-1].argmax(1), 0)
    if (lengths == 0).any():
        row = int((lengths == 0).argmax())
        raise UserError(f"{rows.place(row)}: all inputs are missing.")
    within = np.arange(cells.shape[1]) < lengths[:, None]
    row_of, column_of = np.nonzero(within)
    ends = np.cumsum(lengths)
    notices: list[str] = []
    if count := int((lengths < cells.shape[1]).sum()):
        notices.append(f"{count} rows end with blank cells and are read as shorter sequences.")
    return Observations(
        cells[within][:, None],
        targets[row_of],
        np.split(np.arange(len(row_of)), ends[:-1]),
        [rows.place(row) for row in range(len(rows))],
        rows.parts[row_of],
        lambda step, k: rows.place(int(row_of[step]), inputs[column_of[step]]),
        notices,
    )
