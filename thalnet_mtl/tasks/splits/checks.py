"""Checks of the values and shapes of a split against the shape of its task."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from thalnet_mtl.errors import UserError
from thalnet_mtl.ops.inputs import inputs_by_name
from thalnet_mtl.ops.lengths import past_end
from thalnet_mtl.tasks.splits.sequences import Split, StoredSequences, fill
from thalnet_mtl.tasks.targets import Target
from thalnet_mtl.topology.spec import TaskSpec

BLOCK_BYTES = 64 * 2**20  # of inputs that are checked at once


class InputSummary(NamedTuple):
    """The shape of a sequence, and the range of the inputs with its rows.

    The lowest or the highest is NaN if some input is.
    """

    shape: tuple[int, ...]
    floating: bool
    low: float
    low_row: int
    high: float
    high_row: int


def summarize(data: Split, where: str) -> dict[str, InputSummary]:
    """Return summaries of the inputs by name; the data is read once, in blocks."""
    if isinstance(data, StoredSequences) and data.summaries:
        return data.summaries
    rows = max(1, BLOCK_BYTES // max(1, data.bytes_per_sequence()))
    summaries: dict[str, InputSummary] = {}
    for number, block in enumerate(data.split(rows)):
        add_summaries(summaries, block.xs, number * rows, where)
    if isinstance(data, StoredSequences):
        data.summaries = summaries
    return summaries


def add_summaries(summaries: dict[str, InputSummary], xs: Any, start: int, where: str) -> None:
    """Add the summaries of a block of inputs, whose first row has the number ``start``.

    Raises:
        UserError: the block has other inputs, or sequences of another shape, than those before.
    """
    named = inputs_by_name(xs)
    other_names = bool(summaries) and set(summaries) != set(named)
    for name, part in named.items():
        before = summaries[name].shape[1:] if name in summaries else part.shape[2:]
        if other_names or part.shape[2:] != before:
            raise UserError(
                f"{where}: row {start} has inputs of another shape than those before; only time "
                f"may differ."
            )
        later = _summary(part, start, f"{where}, input '{name}'" if name else where)
        summaries[name] = _merged(summaries[name], later) if name in summaries else later


def check_inputs(
    summaries: Mapping[str, InputSummary], count: int, spec: TaskSpec, where: str
) -> None:
    """Raise unless inputs have the shape of a task, finite values, and tokens within range.

    Args:
        summaries: summaries by name of the input.
        count: number of sequences.
        spec: shape of the task.
        where: task and split, for errors.
    """
    widths: Mapping[str, int] = spec.inputs if isinstance(spec.inputs, Mapping) else {}
    widths = widths or {"": spec.input_width()}
    if set(summaries) != set(widths):
        names = [", ".join(filter(None, some)) or "a single one" for some in (summaries, widths)]
        raise UserError(f"{where}: the inputs are {names[0]}; expected {names[1]}.")
    times = {part.shape[0] for part in summaries.values()}
    if len(times) > 1:
        raise UserError(f"{where}: the inputs of a sequence have {_listed(times)} steps.")
    for name, part in summaries.items():
        place, width = f"{where}, input '{name}'" if name else where, widths[name]
        shape = (spec.steps or part.shape[0], *([] if spec.tokens else [width]))
        rank = len(part.shape) == len(shape)
        if not rank or part.shape[0] > shape[0] or part.shape[1:] != shape[1:]:
            raise UserError(
                f"{place}: sequences have shape {(count, *part.shape)}; expected {(count, *shape)}."
            )
        for value, row in ((part.low, part.low_row), (part.high, part.high_row)):
            if not math.isfinite(value):
                raise UserError(f"{place}: the input of row {row} holds NaN or an infinite number.")
        if spec.tokens and part.floating:
            raise UserError(f"{place}: tokens must be whole numbers, not floating-point.")
        if spec.tokens and not 0 <= part.low <= part.high < width:
            value, row = (part.low, part.low_row) if part.low < 0 else (part.high, part.high_row)
            raise UserError(
                f"{place}: token {value} of row {row} is not allowed; tokens must lie in 0 … "
                f"{width - 1}."
            )


def check_targets(
    ys: Tensor, lengths: Tensor | None, time: int, spec: TaskSpec, target: Target, where: str
) -> Tensor:
    """Return targets as they are stored, those after the end of a sequence as missing ones.

    Args:
        ys: numbers, (N,), (N, time), (N, outputs) or (N, time, outputs).
        lengths: (N,), or None.
        time: steps of the longest sequence.
        spec: shape of the task.
        target: kind of target.
        where: task and split, for errors.

    Raises:
        UserError: a shape or a value does not fit; the message names the row.
    """
    ys = target.shaped(ys, spec.outputs, spec.every_step, where)
    axes = 1 + spec.every_step + (target.name != "class")
    if ys.ndim != axes or (spec.every_step and ys.shape[1] != time):
        expected = [len(ys), *([time] if spec.every_step else [])]
        expected += [] if target.name == "class" else [spec.outputs]
        each = "a target at every step" if spec.every_step else "one target a sequence"
        several = target.name == "class" and ys.ndim == 2
        hint = " For several numbers or labels a sequence set target: numbers or labels."
        raise UserError(
            f"{where}: targets have shape {tuple(ys.shape)}; expected {tuple(expected)} for {each}."
            f"{hint if several else ''}"
        )
    if spec.every_step and lengths is not None:
        ys = missing_past_end(ys, lengths, target)
    return target.checked(ys, spec.outputs, where)


def missing_past_end(ys: Tensor, lengths: Tensor, target: Target) -> Tensor:
    """Return targets (N, time, …), those after the end of a sequence as missing ones."""
    if target.name == "class" and not ys.is_floating_point():
        ys = ys.long()
    return fill(ys, past_end(lengths.to(ys.device), ys.shape[1]), target.missing)


def _summary(part: Tensor, start: int, where: str) -> InputSummary:
    if part.ndim < 2 or not part[0].numel():
        raise UserError(
            f"{where}: sequences have shape {tuple(part.shape)}; expected (N, time, inputs), or "
            f"(N, time) for tokens."
        )
    low, high = part.flatten(1).aminmax(dim=1)
    first, last = int(low.argmin()), int(high.argmax())
    floating = part.is_floating_point()
    return InputSummary(
        tuple(part.shape[1:]), floating, low[first].item(), start + first, high[last].item(),
        start + last,
    )  # fmt: skip


def _merged(first: InputSummary, second: InputSummary) -> InputSummary:
    low = min(first, second, key=lambda part: -math.inf if math.isnan(part.low) else part.low)
    high = max(first, second, key=lambda part: math.inf if math.isnan(part.high) else part.high)
    return first._replace(
        shape=(max(first.shape[0], second.shape[0]), *first.shape[1:]),
        floating=first.floating or second.floating,
        low=low.low, low_row=low.low_row, high=high.high, high_row=high.high_row,
    )  # fmt: skip


def _listed(values: Any) -> str:
    return " and ".join(map(str, sorted(values)))
