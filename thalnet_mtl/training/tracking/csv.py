"""The tracker that writes a CSV file."""

import csv
from collections.abc import Mapping

from thalnet_mtl.files import write_text
from thalnet_mtl.registry import register
from thalnet_mtl.runs.results import RunResult
from thalnet_mtl.training.tracking.tracker import TrackedRun, Tracker

HEADER = "step,name,value"


@register("tracker", "csv")
class Csv(Tracker):
    """A file ``metrics.csv`` in the run directory, with a line for each value: step, name, value.

    ``pandas.read_csv(path).pivot_table(index="step", columns="name", values="value")`` is a table
    with a column for each name. It holds no text.
    """

    rewinds = True

    def start(self, run: TrackedRun) -> None:
        """Open the file, without what came after the step at which the run resumes."""
        path = run.folder / "metrics.csv"
        lines = [HEADER]
        if run.step and path.exists():
            rows = path.read_text(encoding="utf-8").splitlines(keepends=True)[1:]
            whole = (row.strip() for row in rows if row.endswith("\n"))
            lines += [row for row in whole if int(row.partition(",")[0]) <= run.step]
        write_text(path, "\n".join(lines) + "\n")
        self._file = path.open("a", encoding="utf-8", newline="")
        self._rows = csv.writer(self._file, lineterminator="\n")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write a line for each value."""
        self._rows.writerows((step, name, value) for name, value in values.items())
        self._file.flush()

    def finish(self, result: RunResult | None) -> None:
        """Close the file."""
        self._file.close()
