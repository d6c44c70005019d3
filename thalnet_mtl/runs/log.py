"""The log of a run, ``metrics.jsonl``, read line by line: memory does not grow with its length."""

import json
import math
from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from thalnet_mtl.errors import UserError

Curve = Float[np.ndarray, "points 3"]  # columns: step, seconds of training, value
Point = tuple[float, float, float]
Key = tuple[str, str, str]  # task, split, metric

POINTS = 1000  # a curve that is thinned keeps at least so many points, evenly spread


class ThinnedCurve:
    """The points of a curve, of which every k-th is kept once there are twice ``POINTS``.

    The last point is kept as well, and of each experience the first, the lowest and the highest.

    Args:
        ends: last steps of the experiences.
    """

    def __init__(self, ends: Sequence[float] = ()):
        self.ends = ends
        self.count, self.every = 0, 1
        self._points: list[Point] = []
        self._marked: dict[int, list[Point]] = {}  # by experience: first, lowest, highest, last

    @property
    def complete(self) -> bool:
        """True as long as every point is kept."""
        return self.every == 1

    def add(self, point: Point) -> None:
        """Add the next point."""
        if self.count % self.every == 0:
            self._points.append(point)
            if len(self._points) == 2 * POINTS:
                self._points, self.every = self._points[::2], 2 * self.every
        self.count += 1
        experience = bisect_left(self.ends, point[0]) if self.ends else 0
        marked = self._marked.get(experience)
        if marked is None:
            self._marked[experience] = [point] * 4
            return
        if not point[2] >= marked[1][2]:  # also where it is not a number
            marked[1] = point
        if point[2] > marked[2][2]:
            marked[2] = point
        marked[3] = point

    def points(self) -> Curve:
        """Return the points that are kept, in their order."""
        if self.complete:
            return np.array(self._points, dtype=float).reshape(-1, 3)
        marked = {point for points in self._marked.values() for point in points}
        return np.array(sorted(marked.union(self._points)), dtype=float)


@dataclass
class RunLog:
    """The content of a log: curves that are thinned where they are long, and how far it goes."""

    path: Path
    tasks: Collection[str]
    curves: dict[Key, ThinnedCurve] = field(default_factory=dict)
    step: float = 0  # the last one
    seconds: float = 0.0  # of training until then

    def metrics(self, task: str) -> set[str]:
        """Return the names of the metrics that were logged of a task."""
        return {metric for name, _, metric in self.curves if name == task}

    def drawn(self, task: str, split: str, metric: str) -> Curve:
        """Return a curve for a figure, thinned where it is long."""
        curve = self.curves.get((task, split, metric))
        return curve.points() if curve else np.empty((0, 3))

    def curve(self, task: str, split: str, metric: str) -> Curve:
        """Return a whole curve; one that was thinned is read from the file again."""
        key = task, split, metric
        if key not in self.curves or self.curves[key].complete:
            return self.drawn(*key)
        rows = [point_of(line) for line in read_lines(self.path, self.tasks) if key_of(line) == key]
        return np.array(rows, dtype=float)


def read_log(path: Path, tasks: Collection[str], ends: Sequence[int] = ()) -> RunLog:
    """Read a log; one that does not exist is empty.

    Args:
        path: ``metrics.jsonl``.
        tasks: of the run.
        ends: last steps of the experiences.

    Raises:
        UserError: a line is damaged or belongs to another task; says which.
    """
    log = RunLog(path, tasks)
    for line in read_lines(path, tasks):
        key, point = key_of(line), point_of(line)
        curve = log.curves.get(key)
        if curve is None:
            curve = log.curves[key] = ThinnedCurve(ends)
        curve.add(point)
        log.step, log.seconds = max(log.step, point[0]), max(log.seconds, point[1])
    return log


def key_of(line: dict[str, Any]) -> Key:
    """Return what a line of the log is about."""
    return line["task"], line["split"], line["metric"]


def point_of(line: dict[str, Any]) -> Point:
    """Return the step, the seconds of training (0 where they were not logged) and the value."""
    return line["step"], line.get("seconds", 0.0), line["value"]


def read_lines(path: Path, tasks: Collection[str]) -> Iterator[dict[str, Any]]:
    """Yield the lines of a log, measurements of some tasks; nothing if there is no file.

    An incomplete last line, left by a killed run, is dropped.

    Raises:
        UserError: a line is damaged or belongs to another task; says which.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, text in enumerate(file, start=1):
            if not text.endswith(b"\n"):
                return
            try:
                line = json.loads(text)
                _check_measurement(line, tasks)
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise UserError(f"{path}, line {number} is damaged: {error}.") from None
            yield line


def _check_measurement(line: Any, tasks: Collection[str]) -> None:
    """Raise ``ValueError``, ``TypeError`` or ``KeyError`` unless a line is a measurement."""
    step, words = line["step"], (line["task"], line["split"], line["metric"])
    numbers = step, line["value"], line.get("seconds", 0.0)
    if type(step) is not int or any(type(word) is not str for word in words):
        raise ValueError("not a measurement")
    if any(type(n) not in (int, float) or (type(n) is int and abs(n) >= 2**63) for n in numbers):
        raise ValueError("not a measurement")
    if not math.isfinite(numbers[-1]):
        raise ValueError("its seconds are not finite")
    if line["task"] not in tasks:
        raise ValueError(f"the run has no task {line['task']!r}")
