"""Rows of tables as sequences: in groups or windows, in three splits that share no target."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from thalnet_mtl.errors import UserError
from thalnet_mtl.tasks.forecasting import last_windows, next_values, windows
from thalnet_mtl.tasks.splits.sequences import SPLITS
from thalnet_mtl.topology.scaling import Scaling

MOST_BYTES = 8e9  # of all windows together


@dataclass(frozen=True)
class Form:
    """The form of sequences: whole series or windows of them, and the times of their targets.

    Args:
        window: rows of a window; 0 for the whole series.
        stride: rows from the begin of a training window to that of the next.
        horizon: next rows that are forecast; 0 for targets of the same row.
        every_step: a target at every row, or one a sequence.
        change: whether to forecast the change from the last row instead of the value.
    """

    window: int = 0
    stride: int = 1
    horizon: int = 0
    every_step: bool = False
    change: bool = False


class Span(NamedTuple):
    """Rows ``start`` to ``stop`` of a series, whose targets belong to one split."""

    split: str
    series: int
    start: int
    stop: int


class Cut(NamedTuple):
    """The sequences of a span: rows (N, steps) that they read, and targets.

    Targets and naive forecasts are (N, outputs), or (N, steps, outputs).
    """

    rows: np.ndarray
    targets: np.ndarray
    naive: np.ndarray


@dataclass
class Observations:
    """Rows of numbers in series, as they are read from tables.

    Args:
        values: (rows, inputs); NaN is missing.
        targets: (rows, outputs); NaN is missing.
        series: the rows of each series, in order.
        names: of the series, for messages.
        parts: (rows,) the split of each row, where the table says it.
        place: names the file, line and column of a value, given its row and input.
        notices: lines for people, which grow.
    """

    values: np.ndarray
    targets: np.ndarray
    series: list[np.ndarray]
    names: list[str]
    parts: np.ndarray
    place: Callable[[int, int], str]
    notices: list[str] = field(default_factory=list)

    def spans_by_time(self, fractions: Sequence[float]) -> list[Span]:
        """Cut every series at two times: its first rows train, its last rows test."""
        spans = []
        for number, rows in enumerate(self.series):
            ends = np.rint(np.cumsum([0, *fractions]) * len(rows)).astype(int).tolist()
            for split, start, stop in zip(SPLITS, ends[:-1], ends[1:], strict=True):
                spans.append(Span(split, number, start, stop))
        return spans

    def spans_by_part(self) -> list[Span]:
        """Cut every series wherever the split changes that the table says of its rows."""
        spans, parts = [], self.parts
        for number, rows in enumerate(self.series):
            changes = np.flatnonzero(parts[rows[1:]] != parts[rows[:-1]]) + 1
            ends = [0, *changes.tolist(), len(rows)]
            for start, stop in pairwise(ends):
                spans.append(Span(str(parts[rows[start]]), number, start, stop))
        return spans

    def spans_by_group(self, fractions: Sequence[float], seed: int) -> list[Span]:
        """Choose whole series for each split by chance.

        Raises:
            UserError: there are fewer series than splits.
        """
        count = len(self.series)
        if count < len(SPLITS):
            raise UserError(f"{count} sequences or groups are too few for three splits.")
        # NumPy's compatibility policy freezes RandomState: the order of a seed never changes.
        order = np.random.RandomState(seed).permutation(count)
        ends = np.rint(np.cumsum([0, *fractions]) * count).astype(int)
        ends[1] = min(max(ends[1], 1), count - 2)
        ends[2] = min(max(ends[2], ends[1] + 1), count - 1)
        return [
            Span(split, number, 0, len(self.series[number]))
            for split, start, stop in zip(SPLITS, ends[:-1], ends[1:], strict=True)
            for number in sorted(order[start:stop].tolist())
        ]

    def training_rows(self, spans: Sequence[Span]) -> np.ndarray:
        """Return the rows of the training part."""
        parts = [self.series[s.series][s.start : s.stop] for s in spans if s.split == "train"]
        return np.concatenate(parts)

    def scaling_of_changes(self, spans: Sequence[Span]) -> Scaling:
        """Return the scaling to the deviation of changes from row to row in the training part."""
        parts = [self.series[s.series][s.start : s.stop] for s in spans if s.split == "train"]
        scaling = Scaling.fit(
            np.concatenate([np.diff(self.targets[rows], axis=0) for rows in parts])
        )
        return Scaling((0.0,) * len(scaling.mean), scaling.deviation)

    def fill(self, how: str, training: np.ndarray) -> None:
        """Fill missing values: ``forward`` from the row before, or by the training ``mean``.

        Raises:
            UserError: a value is missing still.
        """
        import pandas as pd

        if how == "forward":
            for rows in self.series:
                self.values[rows] = pd.DataFrame(self.values[rows]).ffill().to_numpy()
        missing = np.isnan(self.values)
        if how == "mean" and missing.any():
            filled = self.values[training]
            empty = np.isnan(filled).all(0)
            if empty.any():
                raise UserError("fill: an input has no value in the training part.")
            self.values = np.where(missing, np.nanmean(filled, 0), self.values)
            missing = np.isnan(self.values)
        if missing.any():
            row, column = (int(k) for k in np.argwhere(missing)[0])
            advice = (
                "there is no row before it in its sequence; set fill: mean"
                if how == "forward"
                else "set fill: forward or mean to fill blank inputs"
            )
            raise UserError(f"{self.place(row, column)}: the value is missing; {advice}.")

    def cut(self, spans: Sequence[Span], form: Form) -> dict[str, Any]:
        """Return the sequences of each split, as lists of ``Cut`` by series.

        Raises:
            UserError: a split has no sequence, or all windows together are too large.
        """
        splits: dict[str, list[Cut]] = {split: [] for split in SPLITS}
        short: list[Span] = []
        needed = max(1, form.window) + form.horizon
        longest = max((len(self.series[span.series]) for span in spans), default=0)
        if 0 < longest < needed:  # before memory is taken for them
            raise UserError(
                f"the longest series has {longest} rows; a sequence needs {needed} (window "
                f"{form.window}, horizon {form.horizon})."
            )
        for span in spans:
            cut = self._cut(span, form)
            if len(cut.rows):
                splits[span.split].append(cut)
            else:
                short.append(span)
        for split, cuts in splits.items():
            if not cuts:
                longest = max((s.stop - s.start for s in spans if s.split == split), default=0)
                raise UserError(
                    f"{split}: its longest series has {longest} rows; a sequence needs {needed} "
                    f"(window {form.window}, horizon {form.horizon})."
                    if longest
                    else f"there is no row for {split}."
                )
        if short:
            span = short[0]
            self.notices.append(
                f"{len(short)} series are shorter than the {needed} rows of a sequence and left "
                f"out of their split, such as {self.names[span.series] or 'the last rows'} "
                f"({span.stop - span.start} rows, {span.split})."
            )
        size = sum(cut.rows.size for cuts in splits.values() for cut in cuts)
        if (size := 4.0 * size * self.values.shape[1]) > MOST_BYTES:
            raise UserError(
                f"all windows together take {size / 1e9:.0f} GB; a larger stride makes fewer."
            )
        return splits

    def _cut(self, span: Span, form: Form) -> Cut:
        rows, limits = self.series[span.series], (span.start, span.stop)
        if not form.window:
            rows, limits = rows[span.start : span.stop], (0, span.stop - span.start)
        targets = self.targets[rows]
        ahead = next_values(targets, form.horizon)
        naive = np.tile(targets, max(1, form.horizon))
        if form.change:
            ahead, naive = ahead - naive, np.zeros_like(naive)
        once = span.split != "train"
        if form.window and form.every_step:
            times, counts = windows(
                limits, form.window, form.horizon, stride=form.stride, once=once
            )
            ys = np.where(counts[..., None], ahead[times], np.nan)
            return Cut(rows[times], ys, naive[times])
        if form.window:
            stride = 1 if once else form.stride
            times = last_windows(limits, form.window, form.horizon, stride=stride, once=once)
        else:
            times = np.arange(max(0, len(rows) - form.horizon))[None]
            if not times.size:
                return Cut(rows[times].T, ahead[:0], naive[:0])
        if form.every_step:
            return Cut(rows[times], ahead[times], naive[times])
        if not (form.window or form.horizon):
            return Cut(rows[times], self._agreed(rows, self.names[span.series])[None], naive[:1])
        return Cut(rows[times], ahead[times[:, -1]], naive[times[:, -1]])

    def _agreed(self, rows: np.ndarray, name: str) -> np.ndarray:
        """Return the targets (outputs,) on which rows agree; blank ones aside."""
        targets = self.targets[rows]
        result = np.full(targets.shape[1], np.nan)
        for k, column in enumerate(targets.T):
            filled = np.flatnonzero(~np.isnan(column))
            if len(filled):
                result[k] = column[filled[0]]
                odd = filled[column[filled] != result[k]]
                if len(odd):
                    first, second = (self.place(int(rows[i]), -1) for i in (filled[0], odd[0]))
                    raise UserError(
                        f"{first} and {second}: different targets in {name}. For a target at "
                        f"every row set every_step: true; to forecast set horizon."
                    )
        return result


def check_fractions(fractions: Sequence[float]) -> None:
    """Raise unless they are the sizes of three splits that add up to 1."""
    if len(fractions) != len(SPLITS) or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise UserError(
            f"fractions {list(fractions)}: expected three numbers above 0 that add up to 1, for "
            f"train, validation and test."
        )
