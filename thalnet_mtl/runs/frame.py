"""The log of a run as a table of pandas."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from thalnet_mtl.runs.log import key_of, point_of, read_lines

COLUMNS = ("step", "seconds", "task", "split", "metric", "value")


def metrics_frame(path: Path, tasks: Collection[str]) -> Any:
    """Return a ``pandas.DataFrame`` with a row for each value that was logged.

    Its columns are ``COLUMNS``; the seconds are those of training, 0 where they were not logged.

    Args:
        path: ``metrics.jsonl``.
        tasks: of the run.

    Raises:
        UserError: a line is damaged or belongs to another task; says which.
    """
    import pandas as pd

    rows = []
    for line in read_lines(path, tasks):
        step, seconds, value = point_of(line)
        rows.append((step, seconds, *key_of(line), value))
    return pd.DataFrame(rows, columns=list(COLUMNS))
