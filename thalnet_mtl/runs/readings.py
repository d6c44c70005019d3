"""The log of readings, ``readings.jsonl``: the mean of |R| between modules during a run.

A line holds the step, the readers whose weights have changed since the line before, and of a reader
that is new also its weights by position of each source, with which the end can be compared::

    {"step": 0, "means": {"output": {"input": 0.1}}, "starts": {"output": {"input": [0.08, 0.12]}}}

A reader that was detached is null. Runs of earlier versions have no such file.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from thalnet_mtl.errors import UserError
from thalnet_mtl.json_fields import from_fields

Means = Mapping[str, float]  # mean |R| by source
Starts = Mapping[str, Sequence[float]]  # by source: mean |R| over the context, at each position


@dataclass(frozen=True)
class ReadingLine:
    """A line of the log."""

    step: int
    means: Mapping[str, Means | None]  # by reader that has changed; None once it is detached
    starts: Mapping[str, Starts] = field(default_factory=dict)  # by reader that is new

    @classmethod
    def from_json(cls, content: Any, where: str) -> "ReadingLine":
        """Read a line; ``where`` names it in errors."""
        line = from_fields(cls, content, where)
        if not line.starts.keys() <= line.means.keys():
            raise UserError(f"{where} is damaged: a reader has a start and no means.")
        return line


@dataclass(frozen=True)
class ReadingLog:
    """The log of a run; it is empty where the run recorded none.

    >>> log = ReadingLog([ReadingLine(0, {"output": {"input": 0.5}}, {"output": {"input": [0.5]}}),
    ...                   ReadingLine(9, {"late": {"input": 0.1}}, {"late": {"input": [0.1]}})])
    >>> log.at()[-1]
    (9, {'output': {'input': 0.5}, 'late': {'input': 0.1}})
    """

    lines: Sequence[ReadingLine] = ()

    def at(self) -> list[tuple[int, dict[str, Means]]]:
        """Return mean |R| by reader and source, after each step at which one was recorded."""
        now, points = dict[str, Means](), dict[int, dict[str, Means]]()
        for line in self.lines:
            for reader, means in line.means.items():
                now.pop(reader, None)
                if means is not None:
                    now[reader] = means
            points[line.step] = dict(now)
        return list(points.items())

    def starts(self) -> dict[str, dict[str, np.ndarray]]:
        """Return, by reader and source, mean |R| over the context when the reader was new.

        Each is an array with an entry for each position of the source's slot.
        """
        starts = dict[str, dict[str, np.ndarray]]()
        for line in self.lines:
            for reader, means in line.means.items():
                if means is None:  # a module of the same name may follow
                    starts.pop(reader, None)
                    for others in starts.values():
                        others.pop(reader, None)
            for reader, sources in line.starts.items():
                starts[reader] = {name: np.array(xs, float) for name, xs in sources.items()}
        return starts


def read_reading_log(path: Path) -> ReadingLog:
    """Read ``readings.jsonl``; an incomplete last line, left by a killed run, is dropped.

    Raises:
        UserError: a line is damaged; says which.
    """
    if not path.exists():
        return ReadingLog()
    lines = []
    for number, text in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        where = f"{path}, line {number}"
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where} is damaged: {error}.") from None
        lines.append(ReadingLine.from_json(content, where))
    return ReadingLog(lines)
