"""Tasks on CSV files: which columns go in and out, what a sequence is, and how it is split."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

from thalnet_mtl.errors import UserError
from thalnet_mtl.registry import register
from thalnet_mtl.tasks.evaluation import Evaluation
from thalnet_mtl.tasks.files.columns import Table
from thalnet_mtl.tasks.files.observations import Cut, Form, Observations, check_fractions
from thalnet_mtl.tasks.files.series import read_long, read_targets, read_wide, set_parts
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.tasks.splits.sequences import SPLITS
from thalnet_mtl.tasks.targets import MISSING_CLASS
from thalnet_mtl.topology.scaling import Scaling
from thalnet_mtl.topology.spec import TaskSpec

FEW_NUMBERS = 10  # so few different whole numbers are classes more often than amounts


class TableTask(SequenceTask):
    """A task on the columns of a table; its scores are in the units of the table.

    Args:
        name, splits, spec, options: as in ``SequenceTask``; inputs and numbers are scaled.
        columns: names of the columns of inputs, and of those of outputs.
        scalings: of the inputs and of the targets; None for what is as in the table.
        naive: by split, the scaled forecast of every sequence that repeats the last value, in the
            shape of its targets; {} if there is no such forecast.
    """

    def __init__(
        self,
        name: str,
        splits: Mapping[str, Any],
        spec: TaskSpec,
        columns: tuple[list[str], list[str]],
        scalings: tuple[Scaling | None, Scaling | None] = (None, None),
        naive: Mapping[str, list[np.ndarray]] | None = None,
        **options: Any,
    ):
        super().__init__(name, splits, spec, **options)
        self._inferred = True  # from all splits, so that the sequences of one may be shorter
        self.input_columns, self.output_columns = columns
        self._scalings = scalings
        self.naive = naive or {}

    def naive_scores(
        self, split: str, size: int = 500, evaluation: Evaluation | None = None
    ) -> dict[str, float]:
        """Return what the forecast scores that repeats the last value; {} if there is none."""
        if split not in self.naive:
            return {}
        evaluation, first = evaluation or Evaluation(self), 0
        for batch in self.iterate(split, size, 0):
            parts = [torch.tensor(y).float() for y in self.naive[split][first : first + size]]
            outputs = torch.zeros(batch.ys.shape)
            for row, part in zip(outputs, parts, strict=True):
                row[tuple(map(slice, part.shape))] = part
            evaluation.update(outputs.to(self.device), batch)
            first += size
        return evaluation.compute()


@register("task", "csv")
def csv(
    path: str | dict[str, str],
    inputs: list[str],
    outputs: list[str],
    target: Literal["numbers", "class", "labels"] = "numbers",
    every_step: bool = False,
    group: str = "",
    time: str = "",
    window: int = 0,
    wide: bool = False,
    stride: int = 1,
    horizon: int = 0,
    change: bool = False,
    split: Literal["", "time", "group"] = "",
    split_column: str = "",
    split_seed: int = 0,
    fractions: tuple[float, ...] = (0.7, 0.15, 0.15),
    standardize: bool = True,
    fill: Literal["", "forward", "mean"] = "",
    separator: str = ",",
    decimal: str = ".",
) -> TableTask:
    """Columns of a CSV file of your own, in and out: classes, labels, numbers or forecasts.

    A sequence is the rows of a group, a window of rows, or a single row (``group``, ``window`` or
    ``wide``). A row whose output is blank has a missing target.

    Args:
        path: the file, or files by split: ``{train: a.csv, validation: b.csv, test: c.csv}``.
        inputs: columns of numbers that the network reads; ``x*`` stands for all that match.
        outputs: columns of targets.
        target: ``numbers``; ``class``, one column of any words; ``labels``, columns of 0 and 1,
            or of two words such as no and yes.
        every_step: a target at every row, instead of one at the last row of a sequence.
        group: column whose value says which sequence, or which series, a row belongs to.
        time: column of numbers or dates that orders rows; by default their order in the file. In
            a date with dots the day comes first; 05/03/2024 is refused where both orders are dates.
        window: number of rows of a window; 0 for the whole group.
        wide: each row is a sequence, whose input columns are its steps, of one number each. Blank
            cells at the end of a row make its sequence shorter.
        stride: rows from the begin of a training window to that of the next.
        horizon: number of next rows whose outputs are forecast; 0 for the outputs of the same row.
        change: forecast how far the outputs will be from those of the last row that is read, for
            series with a trend. The errors of a change are those of the value.
        split: ``time``, first rows for training and last rows for the test, the default of windows
            without a group; or ``group``, whole groups or wide rows, chosen by chance.
        split_column: column that says of every row: train, validation or test.
        split_seed: seed of the choice of groups.
        fractions: sizes of train, validation and test.
        standardize: scale inputs, and targets that are numbers, to mean 0 and deviation 1 of the
            training part. Scores are in the units of the file nevertheless.
        fill: how to fill blank inputs: ``forward``, from the row before in the group; ``mean``,
            that of the training part; by default they are refused.
        separator: between two cells.
        decimal: sign before the decimals of numbers, such as ',' in 35,19.

    Raises:
        UserError: a file, a column or a cell does not fit; the message names it.
    """
    form = Form(window, stride, horizon, every_step, change)
    files = {"": path} if isinstance(path, str) else dict(path)
    _check_split(files, split, split_column, window, fractions)
    table = Table(files, separator, decimal)
    columns = table.find(inputs, "inputs"), table.find(outputs, "outputs")
    _check_form(form, target, group, time, wide)
    if target == "class" and len(columns[1]) != 1:
        raise UserError("outputs: a class is one column; for several set target: labels.")
    if not horizon and (both := set(columns[0]) & set(columns[1])):
        raise UserError(
            f"column '{min(both)}' is in inputs and in outputs, so that its answer would be read. "
            f"To forecast it set horizon."
        )
    words = [
        name
        for option, column in (("group", group), ("time", time), ("split_column", split_column))
        for name in (table.find([column], option) if column else ())
    ]
    numbers = [*columns[0], *(columns[1] if target != "class" else ())]
    hint = {
        "numbers": " If words stand for classes, set target: class.",
        "labels": " A label is 0 or 1, or no and yes."
        + (" For other words in one column set target: class." if len(columns[1]) == 1 else ""),
    }.get(target, "")
    classes_of = columns[1] if target == "class" else ()
    labels = columns[1] if target == "labels" else ()
    texts = list(dict.fromkeys([*words, *classes_of]))  # the class may be the group
    rows = table.read(numbers, texts, dict.fromkeys(columns[1], hint), labels)
    if split_column:
        set_parts(rows, split_column)

    targets, classes = read_targets(rows, columns[1], target)
    if wide:
        data = read_wide(rows, columns[0], targets)
    else:
        data = read_long(rows, columns[0], targets, group, time, window)
    if split_column or len(files) > 1:
        spans = data.spans_by_part()
    elif split == "time" or (window and not group and not split):
        spans = data.spans_by_time(fractions)
    else:
        spans = data.spans_by_group(fractions, split_seed)
    training = data.training_rows(spans)
    data.fill(fill, training)
    _note_few_numbers(data, columns[1], target)

    if not standardize:
        return _make_task(data, data.cut(spans, form), form, target, columns, classes)
    of_inputs, of_targets = Scaling.fit(data.values[training]), None
    data.values = of_inputs.apply(data.values)
    if target == "numbers":
        of_targets = data.scaling_of_changes(spans) if change else Scaling.fit(targets[training])
        data.targets = of_targets.apply(data.targets)
    scalings = of_inputs, of_targets
    return _make_task(data, data.cut(spans, form), form, target, columns, classes, scalings)


def _make_task(
    data: Observations,
    cuts: Mapping[str, list[Cut]],
    form: Form,
    target: str,
    columns: tuple[list[str], list[str]],
    classes: tuple[str, ...],
    scalings: tuple[Scaling | None, Scaling | None] = (None, None),
) -> TableTask:
    """Return the task on the sequences of each split; ``scalings`` are those of its data."""
    outputs = len(columns[1]) * max(1, form.horizon)
    spec = TaskSpec(
        data.values.shape[1],
        max(1, len(classes)) if target == "class" else outputs,
        every_step=form.every_step,
        steps=max(cut.rows.shape[1] for part in cuts.values() for cut in part),
    )
    naive = {}
    if form.horizon and target == "numbers":
        naive = {name: [y for cut in part for y in cut.naive] for name, part in cuts.items()}
    names = [f"change of {name}" for name in columns[1]] if form.change else columns[1]
    return TableTask(
        "csv",
        {name: _arrays(data, part, form, target) for name, part in cuts.items()},
        spec,
        (columns[0], names),
        (scalings[0], scalings[1] and scalings[1].repeat(max(1, form.horizon))),
        naive,
        target=target,
        class_names=classes,
        notices=data.notices,
    )


def _check_form(form: Form, target: str, group: str, time: str, wide: bool) -> None:
    """Raise unless options say what a sequence is."""
    window, horizon = form.window, form.horizon
    if not (group or window or wide):
        raise UserError(
            "say what a sequence is: group: COLUMN (the rows with the same value in it), window: "
            "N (N rows in a row), or wide: true (every row, whose input columns are its steps)."
        )
    options = {"group": group, "time": time, "window": window, "horizon": horizon}
    for name, value in (options | {"every_step": form.every_step}).items():
        if wide and value:
            raise UserError(f"wide and {name}: a wide row is a sequence with one target.")
    if window < 0 or window == 1:
        raise UserError(f"window {window}: expected at least 2 rows.")
    if form.stride < 1 or horizon < 0:
        raise UserError(f"stride {form.stride}, horizon {horizon}: expected at least 1 and 0.")
    if form.change and not (horizon and target == "numbers"):
        raise UserError("change is that of numbers that are forecast: set horizon, at least 1.")
    if form.stride > 1 and not window:
        raise UserError("stride is that of windows: give window as well.")
    if target == "class" and horizon > 1:
        raise UserError(f"horizon {horizon}: a class is forecast one row ahead. Allowed: 0, 1.")


def _check_split(
    files: Mapping[str, str], split: str, column: str, window: int, fractions: Sequence[float]
) -> None:
    """Raise unless options say once how to split."""
    if "" not in files and set(files) != set(SPLITS):
        raise UserError(f"path: expected files for {', '.join(SPLITS)}, got {', '.join(files)}.")
    if sum(map(bool, (split, column, len(files) > 1))) > 1:
        raise UserError("split, split_column and files by split: give one of them.")
    if split == "time" and not window:
        raise UserError("split: time is for windows: give window, or split: group.")
    check_fractions(fractions)


def _arrays(data: Observations, cuts: list[Cut], form: Form, target: str) -> tuple[Any, Any]:
    """Return the inputs and targets of a split; lists of sequences where lengths may differ."""
    xs = [data.values[cut.rows].astype(np.float32) for cut in cuts]
    ys: list[np.ndarray] = [cut.targets.astype(np.float32) for cut in cuts]
    if target == "class":
        ys = [np.where(np.isnan(y), MISSING_CLASS, y).astype(np.int64)[..., 0] for y in ys]
    if form.window:
        return np.concatenate(xs), np.concatenate(ys)
    listed = [x for part in xs for x in part]
    return listed, [y for part in ys for y in part] if form.every_step else np.concatenate(ys)


def _note_few_numbers(data: Observations, columns: list[str], target: str) -> None:
    """Note outputs that are read as numbers and look like classes."""
    for column, values in zip(columns, data.targets.T, strict=True):
        seen = np.unique(values[~np.isnan(values)])
        if target == "numbers" and len(seen) <= FEW_NUMBERS and (seen == seen.round()).all():
            data.notices.append(
                f"output '{column}' has only {len(seen)} different whole numbers and is read as "
                f"an amount; if they are classes, set target: class."
            )
