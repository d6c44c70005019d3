"""Changes of reading weights by training: |R| at the end against the start, by source.

Training moves every weight a little. For a change to say something about a source, it must stand
out from the changes that the same reader's weights have everywhere. That is its reference:

    s = sqrt(σ² / n · (N − n) / (N − 1))

the standard error of the mean change of n positions that are drawn at random from all N positions
that the module reads, where σ is the deviation of the changes of those N.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from thalnet_mtl.runs.records import RunRecord
from thalnet_mtl.runs.run_files import ReadingWeights

BEYOND = 3.0  # standard errors by which a change stands out

Blocks = Float[np.ndarray, "reader source"]  # NaN where the module does not read the source


@dataclass(frozen=True)
class ReadingChange:
    """Means of |R| by reader and source, at the start and at the end of a run or of several."""

    readers: Sequence[str]
    sources: Sequence[str]
    end: Blocks
    start: Blocks | None = None  # None for runs that have not recorded it
    common: Float[np.ndarray, " reader"] = field(default_factory=lambda: np.zeros(0))
    error: Blocks = field(default_factory=lambda: np.zeros((0, 0)))  # s

    @property
    def change(self) -> Blocks:
        """Mean |R| at the end minus that at the start."""
        assert self.start is not None
        return self.end - self.start

    @cached_property
    def beyond(self) -> np.ndarray:
        """Mask of the changes that differ from the mean change of its reader by more than 3 s."""
        difference = np.abs(self.change - self.common[:, None])
        # Rounding of the file and of float32 is no change.
        return difference > BEYOND * self.error + 1e-6 * np.nanmax(self.end, initial=0)

    @property
    def limit(self) -> float:
        """End of a scale on which random changes are pale: the largest change, or 3 s."""
        values = [np.abs(self.change), BEYOND * self.error]
        return float(max((np.nanmax(v, initial=0) for v in values), default=0))


def reading_change(run: RunRecord) -> ReadingChange:
    """Return the change of the readings of a run that has saved them."""
    readers, sources = list(run.reading_weights), list(run.slot_widths)
    starts, columns = run.readings.starts(), _columns(run.reading_weights, run.slot_widths)
    end, start, error = (np.full((len(readers), len(sources)), np.nan) for _ in range(3))
    common = np.full(len(readers), np.nan)
    known = all(reader in starts for reader in readers)
    for row, reader in enumerate(readers):
        ends = columns[reader]
        before = starts.get(reader, {})
        read = [k for k, name in enumerate(sources) if ends[k].any() or name in before]
        for k in read:
            end[row, k] = ends[k].mean()
        if not known or not read:
            continue
        # A slot that was opened later had weights of zero.
        firsts = {k: before.get(sources[k], np.zeros(len(ends[k]))) for k in read}
        changes = {k: ends[k] - firsts[k] for k in read}
        every = np.concatenate(list(changes.values()))
        common[row] = every.mean()
        for k in read:
            start[row, k] = firsts[k].mean()
            error[row, k] = standard_error(every, len(changes[k]))
    if not known:
        return ReadingChange(readers, sources, end)
    return ReadingChange(readers, sources, end, start, common, error)


def standard_error(values: Float[np.ndarray, " values"], count: int) -> float:
    """Return that of the mean of so many values, drawn without replacement; 0 for all of them.

    >>> standard_error(np.array([0.0, 0.0, 1.0, 1.0]), 4)
    0.0
    """
    total = len(values)
    if count == total:
        return 0.0
    return float(np.sqrt(values.var() / count * (total - count) / (total - 1)))


def slot_means(
    weights: Mapping[str, ReadingWeights], slots: Mapping[str, int]
) -> Float[np.ndarray, "reader slot"]:
    """Return the mean |R| of every module over every slot; ``slots`` are their widths, in order."""
    columns = _columns(weights, slots)
    return np.array([[block.mean() for block in row] for row in columns.values()], dtype=float)


def mean_change(changes: Sequence[ReadingChange]) -> ReadingChange:
    """Return the mean of runs with the same modules, all of which have recorded their start."""
    first, count = changes[0], len(changes)
    starts = [change.start for change in changes if change.start is not None]
    ends = np.mean([change.end for change in changes], axis=0)
    if len(starts) < count:
        return ReadingChange(first.readers, first.sources, ends)
    errors = np.array([change.error for change in changes])
    return ReadingChange(
        first.readers,
        first.sources,
        ends,
        np.mean(starts, axis=0),
        np.mean([change.common for change in changes], axis=0),
        np.sqrt((errors**2).sum(0)) / count,
    )


def _columns(
    weights: Mapping[str, ReadingWeights], slots: Mapping[str, int]
) -> dict[str, list[np.ndarray]]:
    """Return by reader, and for each slot, the mean of |R| over the context by position."""
    edges = np.cumsum([0, *slots.values()]).tolist()
    means = {name: np.abs(matrix).mean(0) for name, matrix in weights.items()}
    return {name: [mean[a:b] for a, b in pairwise(edges)] for name, mean in means.items()}
