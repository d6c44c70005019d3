"""The data of a task in lines of at most 80 columns, to be read before anything is trained."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from thalnet_mtl.metrics.metric import format_scores
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.evaluation import Evaluation, guess_scores
from thalnet_mtl.tasks.files.table import TableTask
from thalnet_mtl.tasks.metrics import UndefinedScore
from thalnet_mtl.tasks.splits.sequences import SPLITS

WIDTH = 80
ENDS = 3  # of many columns: how many of the first and of the last are scored one by one
EXAMPLES, MOST_ROWS, MOST_COLUMNS, MOST_STEPS, BATCH = 3, 20, 8, 5, 500


@dataclass
class Range:
    """The range and mean of columns of numbers, over batches."""

    low: Tensor | None = None
    high: Tensor | None = None
    total: Any = 0.0
    count: Any = 0

    def update(self, rows: Tensor) -> None:
        """Add rows (n, columns); NaN is missing."""
        rows = rows.double()
        low = rows.nan_to_num(torch.inf).amin(0)
        high = rows.nan_to_num(-torch.inf).amax(0)
        self.low = low if self.low is None else torch.minimum(self.low, low)
        self.high = high if self.high is None else torch.maximum(self.high, high)
        self.total = self.total + rows.nansum(0)
        self.count = self.count + (~rows.isnan()).sum(0)

    def cells(self, column: int) -> list[str]:
        """Return least value, mean and greatest value of a column as text."""
        if self.low is None or self.high is None or not int(self.count[column]):
            return ["-", "-", "-"]
        mean = self.total[column] / self.count[column]
        return [f"{float(value):.4g}" for value in (self.low[column], mean, self.high[column])]


@dataclass
class SplitStatistics:
    """Counts and ranges of one split."""

    sequences: int = 0
    targets: int = 0
    missing: int = 0
    steps: list[Tensor] = field(default_factory=list)
    inputs: dict[str, Range] = field(default_factory=dict)
    outputs: Range = field(default_factory=Range)
    classes: Tensor | None = None


def describe_task(task: Task, chunk: int) -> Iterator[str]:
    """Yield lines on a task whose data is loaded.

    Args:
        task: after its ``load``.
        chunk: steps of a text in a batch.
    """
    statistics = {name: _statistics(task, name, chunk) for name in SPLITS}
    spec, kind = task.spec, task.target.name
    every = "at every step" if spec.every_step else "after the last step"
    outputs = {"class": "classes", "labels": "labels", "numbers": "numbers"}[kind]
    width = spec.inputs if not spec.input_names else dict(spec.inputs)  # type: ignore[arg-type]
    inputs = f"tokens of {width}" if spec.tokens else f"inputs: {width}"
    yield f"{task.name}: {inputs}; {spec.outputs} {outputs} {every}"
    rows = [["split", "sequences", "targets", "without", "steps: least", "median", "most"]]
    for name, split in statistics.items():
        steps = torch.cat(split.steps)
        lengths = [f"{int(value):,}" for value in (steps.min(), steps.median(), steps.max())]
        sequences = "-" if task.carries_state else f"{split.sequences:,}"
        lengths = ["-", "-", "-"] if task.carries_state else lengths
        rows.append([name, sequences, f"{split.targets:,}", f"{split.missing:,}", *lengths])
    yield from _table(rows)
    yield from _inputs(task, statistics["train"])
    yield from _outputs(task, statistics)
    yield ""
    yield from _guesses(task, chunk)
    for notice in task.notices:
        yield f"note: {notice}"
    yield ""
    yield from _examples(task, chunk)


def _statistics(task: Task, split: str, chunk: int) -> SplitStatistics:
    """Return what is counted in all batches of a split."""
    result = SplitStatistics()
    for batch in task.iterate(split, BATCH, chunk):
        past_end = batch.past_end()
        present = task.target.present(batch.ys)
        read = batch.ys.numel()
        if past_end is not None and task.spec.every_step:
            read -= int(past_end.sum()) * (batch.ys[0, 0].numel())
        result.sequences += len(batch.ys)
        result.targets += int(present.sum())
        result.missing += read - int(present.sum())
        first = next(iter(batch.xs.values())) if isinstance(batch.xs, dict) else batch.xs
        full = torch.full((len(first),), first.shape[1])
        result.steps.append(full if batch.lengths is None else batch.lengths.cpu())
        for name, xs in batch.xs.items() if isinstance(batch.xs, dict) else [("", batch.xs)]:
            rows = xs[..., None] if task.spec.tokens else xs
            rows = rows.flatten(0, 1) if past_end is None else rows[~past_end]
            result.inputs.setdefault(name, Range()).update(_input_units(task, rows))
        if task.target.name == "class":
            counts = torch.bincount(batch.ys[present], minlength=task.spec.outputs)
            result.classes = counts if result.classes is None else result.classes + counts
        else:
            result.outputs.update(task.in_units(batch.ys).reshape(-1, task.spec.outputs))
    return result


def _inputs(task: Task, training: SplitStatistics) -> Iterator[str]:
    """Yield the range of every input in the training part."""
    rows = [["input, training part", "least", "mean", "most"]]
    for name, ranges in training.inputs.items():
        width = 1 if task.spec.tokens else task.spec.input_width(name)
        names = input_names(task, width)
        labels = [f"{name} {label}".strip() for label in names]
        rows += [[label, *ranges.cells(k)] for k, label in enumerate(labels)]
    yield from _table(rows)


def _outputs(task: Task, statistics: dict[str, SplitStatistics]) -> Iterator[str]:
    """Yield the counts of classes, or the range of every output, by split."""
    if task.target.name == "class":
        rows = [["class", *statistics]]
        counts = [split.classes for split in statistics.values()]
        for k, name in enumerate(class_names(task)):
            rows.append([name, *(f"{int(c[k]) if c is not None else 0:,}" for c in counts)])
    else:
        rows = [["target", "split", "least", "mean", "most"]]
        for k, name in enumerate(output_names(task)):
            rows += [[name, split, *part.outputs.cells(k)] for split, part in statistics.items()]
    yield from _table(rows)


def _guesses(task: Task, chunk: int) -> Iterator[str]:
    """Yield what simple answers score."""
    for split in ("validation", "test"):
        evaluation = Evaluation(task, shown_columns(task))
        try:
            scores = format_scores(
                task.metrics, guess_scores(task, split, BATCH, chunk, 0, evaluation)
            )
        except UndefinedScore as error:
            scores = f"not defined ({error})"
        yield f"guessing scores on {split}: {scores}"
        yield from column_scores(task, evaluation, task.guesses)
        evaluation = Evaluation(task, shown_columns(task))
        if isinstance(task, TableTask) and (naive := task.naive_scores(split, BATCH, evaluation)):
            yield f"repeating the last value, on {split}: {format_scores(task.metrics, naive)}"
            yield from column_scores(task, evaluation)


def shown_columns(task: Task) -> list[int]:
    """Return the outputs whose scores are shown one by one: named numbers, the ends of many."""
    count = task.spec.outputs
    if not isinstance(task, TableTask) or task.target.name != "numbers" or count == 1:
        return []
    columns = list(range(count))
    return columns if count <= 2 * ENDS else [*columns[:ENDS], *columns[-ENDS:]]


def column_scores(
    task: Task, evaluation: Evaluation, fixed: Mapping[str, float | None] | None = None
) -> Iterator[str]:
    """Yield a line of scores for every column of an evaluation, which may differ in their units."""
    names = output_names(task)
    for place, (column, scorer) in enumerate(evaluation.columns.items()):
        if place == ENDS and len(names) > len(evaluation.columns):
            yield f"  … {len(names) - len(evaluation.columns):,} more …"
        try:
            scores = format_scores(task.metrics, scorer.compute(fixed))
        except UndefinedScore as error:
            scores = f"not defined ({error})"
        yield f"  {names[column]}: {scores}"


def _examples(task: Task, chunk: int) -> Iterator[str]:
    """Yield the first sequences of the training part."""
    batch = next(task.iterate("train", EXAMPLES, chunk))
    for k in range(min(EXAMPLES, len(batch.ys))):
        length = int(batch.lengths[k]) if batch.lengths is not None else None
        yield _clip(f"example {k + 1} of train:")
        for name, rows in batch.xs.items() if isinstance(batch.xs, dict) else [("", batch.xs)]:
            xs = rows[k, :length]
            if task.spec.tokens:
                yield _clip(f"  {name} {_tokens(xs, task.spec.input_width(name))}".rstrip())
                continue
            columns = _input_units(task, xs).T
            labels = input_names(task, len(columns))
            for label, values in list(zip(labels, columns, strict=True))[:MOST_COLUMNS]:
                yield _clip(f"  {name} {label}: {_numbers(values)}".replace("   ", "  "))
            if len(labels) > MOST_COLUMNS:
                yield f"  … and {len(labels) - MOST_COLUMNS:,} more"
        yield from _targets_of(task, batch.ys[k], length)


def _targets_of(task: Task, ys: Tensor, length: int | None) -> Iterator[str]:
    """Yield the targets of an example."""
    ys = ys[:length] if task.spec.every_step else ys
    if task.target.name == "class":
        names = class_names(task)
        labels = [names[int(y)] if y >= 0 else "missing" for y in ys.flatten()[: MOST_STEPS + 1]]
        ending = ", …" if ys.numel() > MOST_STEPS else ""
        if task.spec.tokens and task.spec.every_step:
            yield _clip(f"  → {_tokens(ys, task.spec.outputs)}")
        else:
            yield _clip(f"  → {', '.join(labels[:MOST_STEPS])}{ending}")
        return
    columns = task.in_units(ys).reshape(-1, task.spec.outputs).T
    for label, values in list(zip(output_names(task), columns, strict=True))[:MOST_COLUMNS]:
        yield _clip(f"  → {label}: {_numbers(values)}")
    if len(columns) > MOST_COLUMNS:
        yield f"  → … and {len(columns) - MOST_COLUMNS:,} more"


def _input_units(task: Task, rows: Tensor) -> Tensor:
    """Return inputs (…, inputs) in the units of their source."""
    scaling = task.scalings[0]
    return scaling.invert(rows) if scaling else rows


def input_names(task: Task, width: int) -> list[str]:
    if isinstance(task, TableTask) and len(task.input_columns) == width:
        return task.input_columns
    return (
        ["token" if task.spec.tokens else str(k) for k in range(width)]
        if width > 1
        else ["token" if task.spec.tokens else "0"]
    )


def output_names(task: Task) -> list[str]:
    names = task.output_columns if isinstance(task, TableTask) else []
    repeats = task.spec.outputs // len(names) if names else 1
    if repeats > 1:
        return [f"{name} +{k}" for k in range(1, repeats + 1) for name in names]
    return names or [str(k) for k in range(task.spec.outputs)]


def class_names(task: Task) -> Sequence[str]:
    names = getattr(task, "class_names", ())
    return names or [str(k) for k in range(task.spec.outputs)]


def _numbers(values: Tensor) -> str:
    """Return the first and last values as text."""
    words = ["missing" if bool(v.isnan()) else f"{float(v):.4g}" for v in values]
    if len(words) > 2 * MOST_STEPS:
        words = [*words[:MOST_STEPS], "…", *words[-2:]]
    return ", ".join(words) + (f" ({len(values)} steps)" if len(values) > 1 else "")


def _tokens(xs: Tensor, vocabulary: int) -> str:
    """Return tokens as text if they are bytes, else as numbers."""
    if vocabulary == 256:
        return repr(bytes(xs.tolist()[:WIDTH]).decode("utf-8", "replace"))
    return ", ".join(map(str, xs.tolist()[: WIDTH // 3]))


def _table(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield a blank line and a table: first column left, others right; long ones are shortened."""
    head, *body = (list(row) for row in rows)
    if len(body) > MOST_ROWS:
        ending = len(body) - MOST_ROWS
        body = [*body[:MOST_ROWS], [f"… and {ending:,} more", *[""] * (len(head) - 1)]]
    table = [head, *body]
    widths = [max(len(row[k]) for row in table) for k in range(len(head))]
    widths[0] = min(widths[0], max(8, WIDTH - sum(width + 2 for width in widths[1:])))
    yield ""
    for first, *cells in table:
        first = first if len(first) <= widths[0] else first[: widths[0] - 1] + "…"
        line = f"{first:<{widths[0]}}" + "".join(
            f"  {cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True)
        )
        yield line.rstrip()


def _clip(line: str) -> str:
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"
