"""Reading weights of a run: their means while it trains, and all of them at its end."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from thalnet_mtl.files import attempt, write_text
from thalnet_mtl.models.model_folder import save_tensors
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.ops.reference import reading_matrix
from thalnet_mtl.runs.checksums import READING_LOG
from thalnet_mtl.runs.directory import RunDirectory, open_log
from thalnet_mtl.runs.readings import Means, ReadingLine, ReadingLog, Starts, read_reading_log
from thalnet_mtl.training.context import RunContext

READING_BATCH = 20  # sequences over which a dynamic reading is averaged
POINTS = 20  # validations of an experience in a row that are recorded; then of as many every other
DIGITS = 7  # significant ones, as many as float32 has


class ReadingRecorder:
    """Writes ``readings.jsonl``: what has changed since it last wrote.

    Readings of frozen modules are not computed again. A run that an earlier version began has no
    record of its start, so that nothing is recorded.

    Args:
        run: of which a body without modules has no readings.
        directory: of the run.
    """

    def __init__(self, run: RunContext, directory: RunDirectory):
        self.run, self.path = run, directory.folder / READING_LOG
        self.last: dict[str, Means] = {}

    def start(self) -> None:
        """Begin the file anew, with the readings before the first step."""
        self.last = {}
        if isinstance(self.run.network.body, ThalNet):
            write_text(self.path, "")
            self.record()

    def resume(self) -> None:
        """Drop what was recorded after the checkpoint from which the run goes on.

        A change at the step of the checkpoint may have been recorded, too. It comes again.
        """
        if not self.path.exists():
            return
        lines = read_reading_log(self.path).lines
        kept = [line for line in lines if line.step <= self.run.step]
        while kept and kept[-1].step == self.run.step and not self._is_of_this_graph(kept):
            kept.pop()
        if len(kept) < len(lines):
            texts = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            write_text(self.path, "".join(texts[: len(kept)]))
        self.last = ReadingLog(kept).at()[-1][1] if kept else {}

    def _is_of_this_graph(self, lines: Sequence[ReadingLine]) -> bool:
        """Return whether the last of some lines was written for the modules as they are."""
        last, graph = ReadingLog(lines).at()[-1][1], self.run.network.body.graph
        assert graph is not None
        active = {name for _, names in _active_modules(self.run) for name in names}
        return active <= set(last) <= set(graph) and all(
            set(last[name]) == set(graph[name].seen) for name in active
        )

    def record_validated(self) -> None:
        """Record after a validation, less and less often in a long experience.

        All of the first ``POINTS`` validations are recorded, then every second until there are
        twice as many, then every fourth, and so on: a longer run records the same.
        """
        run, experience = self.run, self.run.last_experience
        every = run.config.evaluate.every or run.steps_per_epoch(experience.tasks)
        place = -(-(run.step - experience.start) // every)
        rare = 2 ** max(0, (place - 1) // POINTS).bit_length()
        ends = run.continual and run.step == experience.stop
        if ends or (run.step % every == 0 and place % rare == 0):
            self.record()

    def record(self) -> None:
        """Record the readings that have changed."""
        if not self.path.exists():
            return
        columns = _column_means(self.run, self.last)
        means = {reader: _means(sources) for reader, sources in columns.items()}
        graph = self.run.network.body.graph
        assert graph is not None
        line = {
            "step": self.run.step,
            "means": {r: m for r, m in means.items() if self.last.get(r) != m}
            | {reader: None for reader in self.last if reader not in graph},
        }
        if starts := {reader: columns[reader] for reader in means if reader not in self.last}:
            line["starts"] = starts
        if not line["means"]:
            return
        text = json.dumps(line, separators=(",", ":")) + "\n"
        with attempt(f"write {self.path}"), open_log(self.path) as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        self.last = {r: m for r, m in (self.last | means).items() if r in graph}


def save_readings(run: RunContext, path: Path) -> None:
    """Save the reading weights of every module and the widths of the slots.

    Weights of a dynamic reading are the mean over some inputs. Modules that no task runs are left
    out, as rows and as columns.
    """
    body = run.network.body
    if not isinstance(body, ThalNet):
        return
    weights: dict[str, Tensor] = {}
    for task, active in _active_modules(run):
        if not weights.keys() >= set(active):
            weights = _matrices(run, task, active) | weights
    widths = {name: slot.stop - slot.start for name, slot in body.slots.items() if name in weights}
    columns = [k for name in widths for k in range(body.slots[name].start, body.slots[name].stop)]
    weights = {name: weights[name][:, columns] for name in widths}
    dynamic = [name for name in widths if body.cell(name).reading.dynamic]
    metadata = {"slots": json.dumps(widths), "dynamic": json.dumps(dynamic)}
    save_tensors(path, weights, metadata)


def _active_modules(run: RunContext) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the tasks that have a head, each with the modules that run for it."""
    for name in run.attached_tasks:
        yield name, run.network.active_modules(run.tasks[name].head_name)


@torch.no_grad()
def _matrices(run: RunContext, name: str, active: tuple[str, ...]) -> dict[str, Tensor]:
    """Return R over the whole center of the modules that run for a task, some inputs of it read."""
    task, body = run.tasks[name], run.network.body
    assert isinstance(body, ThalNet)
    adapter = run.network.adapter(task.head_name)
    xs = next(task.iterate("validation", READING_BATCH, READING_BATCH)).xs
    rows = adapter.encode(xs, active)
    return body.reading_weights(rows, sub_steps=adapter.spec.sub_steps, active=active)


@torch.no_grad()
def _column_means(run: RunContext, last: dict[str, Means]) -> dict[str, Starts]:
    """Return by reader and source the mean of |R| over the context, at each position.

    Args:
        run: whose modules it reads, those that some task runs.
        last: readers that are frozen and have these sources already are left out.
    """
    body = run.network.body
    assert isinstance(body, ThalNet)
    graph, vectors = body.graph, dict[str, Tensor]()
    for task, active in _active_modules(run):
        needed = {
            name
            for name in active
            if name not in vectors
            and not (graph[name].frozen and last.get(name, {}).keys() == set(graph[name].seen))
        }
        if any(body.cell(name).reading.dynamic for name in needed):
            matrices = _matrices(run, task, active)
            for name in needed:
                columns = [graph.slots[s].start + k for s, k in graph.columns(name)]
                vectors[name] = matrices[name].abs().mean(0)[columns]
        else:
            vectors |= {n: reading_matrix(body.cell(n).reading).abs().mean(0) for n in needed}
    if not vectors:
        return {}
    values = iter(torch.cat([vectors[name].float() for name in vectors]).tolist())
    return {
        name: {s: [_rounded(next(values)) for _ in range(graph[s].features)]
               for s in graph[name].seen}
        for name in vectors
    }  # fmt: skip


def _means(sources: Starts) -> dict[str, float]:
    return {name: _rounded(sum(values) / len(values)) for name, values in sources.items()}


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
