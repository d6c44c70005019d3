"""Several runs, read from their directories."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from thalnet_mtl import markup
from thalnet_mtl.metrics.metric import list_names
from thalnet_mtl.published import local_folder
from thalnet_mtl.report import html
from thalnet_mtl.report.embedded import Report
from thalnet_mtl.report.rows import fold_runs, summary_table
from thalnet_mtl.runs.frame import metrics_frame
from thalnet_mtl.runs.names import run_folders
from thalnet_mtl.runs.records import RunRecord, read_runs

if TYPE_CHECKING:
    from thalnet_mtl.report.plots import Plots

COLUMNS = ("run", "task", "seeds", "parameters", "metric", "train", "validation", "test")
NUMBERS = ("seeds", "parameters", "train", "validation", "test")


class RunList(Sequence[RunRecord]):
    """Runs as ``load_runs`` reads them: a sequence of ``RunRecord``s, without their networks.

    A slice of it is a ``RunList`` again::

        runs = load_runs("runs/sweep")
        runs.plot.curves()
        runs[0].result.tasks["digits_rows"].test

    Args:
        runs: that have been read.
        notes: on what was left out.
    """

    def __init__(self, runs: Sequence[RunRecord], notes: Sequence[str] = ()):
        self.runs, self.notes = list(runs), list(notes)

    def __len__(self) -> int:
        return len(self.runs)

    @overload
    def __getitem__(self, place: int) -> RunRecord: ...
    @overload
    def __getitem__(self, place: slice) -> "RunList": ...
    def __getitem__(self, place: int | slice) -> "RunRecord | RunList":
        return RunList(self.runs[place]) if isinstance(place, slice) else self.runs[place]

    @property
    def plot(self) -> "Plots":
        """Figures of these runs; see ``Plots``."""
        from thalnet_mtl.report.plots import Plots

        return Plots(self.runs)

    @property
    def metrics(self) -> Any:
        """Everything that was logged, as a ``pandas.DataFrame``; see ``metrics_frame``.

        Its first columns are the name of the run and its seed.
        """
        import pandas as pd

        frames = []
        for run in self.runs:
            frame = metrics_frame(run.folder / "metrics.jsonl", run.tasks)
            frame.insert(0, "run", run.name)
            frame.insert(1, "seed", run.seed)
            frames.append(frame)
        return pd.concat(frames, ignore_index=True)

    def report(self, out: Path | str) -> Report:
        """Write a report on these runs to an HTML file, which a notebook shows.

        Raises:
            UserError: a file of a run has changed since the run finished.
            OSError: ``out`` cannot be written.
        """
        return Report(html.write([run.folder for run in self.runs], Path(out)))

    def __repr__(self) -> str:
        return f"RunList of {len(self)}: {list_names([run.name for run in self.runs])}"

    def _repr_html_(self) -> str:
        lines = [[row[name] for name in COLUMNS] for row in summary_table(fold_runs(self.runs))]
        notes = "".join(map(markup.note, self.notes))
        count = f"{len(self)} run{'s' * (len(self) != 1)}"
        return markup.heading(count) + markup.table(COLUMNS, lines, NUMBERS) + notes


def load_runs(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> RunList:
    """Read runs from their directories, finished or not; networks are not loaded.

    Args:
        paths: run directories, folders of them such as that of a sweep, and names of published
            runs: 'zoo:name', 'hub:owner/name'.

    Raises:
        UserError: there is no run, or a file of one is damaged.
    """
    several = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    folders, notes = run_folders([local_folder(path) for path in several])
    return RunList(read_runs(folders), notes)
