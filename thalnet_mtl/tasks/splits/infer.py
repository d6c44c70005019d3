"""The shape of a task, read from its data."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from thalnet_mtl.errors import UserError
from thalnet_mtl.tasks.splits.checks import InputSummary, missing_past_end, summarize
from thalnet_mtl.tasks.splits.sequences import Split
from thalnet_mtl.tasks.targets import Target, first_row
from thalnet_mtl.topology.spec import TaskSpec

MOST_CLASSES = 100_000


def infer_spec(splits: Mapping[str, Split], target: Target, where: str) -> TaskSpec:
    """Return the shape that the data of all splits has.

    Inputs of two axes (N, time) are tokens if they are whole numbers, else one number a step.
    Targets have an axis of time if they have as many entries as the inputs have steps: classes of
    two axes, labels and numbers of three.

    Raises:
        UserError: the data has no shape that a task can have, or splits differ in theirs.
    """
    if not splits:
        raise UserError(f"{where}: there is no split.")
    specs = {name: _split_spec(data, target, f"{where}, {name}") for name, data in splits.items()}
    (first_name, first), *later = specs.items()
    for name, spec in later:
        same_outputs = target.name == "class" or spec.outputs == first.outputs
        same_inputs = first.tokens or spec.inputs == first.inputs
        names = spec.input_names, spec.tokens, spec.every_step
        if names != (first.input_names, first.tokens, first.every_step) or not (
            same_outputs and same_inputs
        ):
            raise UserError(
                f"{where}: the splits differ: {first_name} has {describe_spec(first)}, {name} has "
                f"{describe_spec(spec)}."
            )
    widths = {
        name: max(spec.input_width(name) for spec in specs.values())
        for name in first.input_names or ("",)
    }
    return TaskSpec(
        widths if first.input_names else widths[""],
        max(spec.outputs for spec in specs.values()),
        tokens=first.tokens,
        every_step=first.every_step,
        steps=max(spec.steps for spec in specs.values()),
    )


def ambiguity_notices(spec: TaskSpec, target: str) -> tuple[str, ...]:
    """Return whether targets (N, outputs) might be meant as targets (N, time) at every step."""
    same = spec.outputs == spec.steps > 1
    if target == "class" or not same or spec.every_step:
        return ()
    return (
        f"a target has as many entries as a sequence has steps, {spec.steps}; they are read as "
        f"{spec.steps} {target} after the last step. Targets at every step have a third axis.",
    )


def describe_spec(spec: TaskSpec) -> str:
    """Describe the shape of a task in a few words, for errors."""
    inputs = "tokens" if spec.tokens else f"inputs of width {spec.inputs}"
    each = "at every step" if spec.every_step else "a sequence"
    return f"{inputs} and {spec.outputs} outputs {each}"


def _split_spec(data: Split, target: Target, where: str) -> TaskSpec:
    summaries = summarize(data, where)
    for name, part in summaries.items():
        if len(part.shape) > 2:
            place = f"{where}, input '{name}'" if name else where
            shape = ", ".join(map(str, part.shape))
            raise UserError(
                f"{place}: sequences have shape (N, {shape}); expected (N, time, inputs), or "
                f"(N, time) for tokens. Flatten what a step consists of."
            )
    tokens = {name: len(part.shape) == 1 and not part.floating for name, part in summaries.items()}
    if len(set(tokens.values())) > 1:
        some = next(name for name, is_tokens in tokens.items() if is_tokens)
        raise UserError(
            f"{where}: input '{some}' holds tokens, others numbers; a task has one or the other. "
            f"Numbers have three axes, (N, time, inputs)."
        )
    widths = {name: _width(part, tokens[name]) for name, part in summaries.items()}
    time = max(part.shape[0] for part in summaries.values())
    ys = data.ys
    axes = 2 if target.name == "class" else 3
    every_step = ys.ndim == axes and (ys.shape[1] == time or ys.shape[-1] != 1)
    outputs = _outputs(ys, data.lengths if every_step else None, target, where)
    inputs: Any = widths.get("", widths)
    return TaskSpec(inputs, outputs, next(iter(tokens.values())), every_step, time)


def _width(part: InputSummary, tokens: bool) -> int:
    """Return the width of rows, or the size of the vocabulary."""
    if tokens:
        return max(1, int(part.high) + 1)
    return part.shape[1] if len(part.shape) > 1 else 1


def _outputs(ys: Tensor, lengths: Tensor | None, target: Target, where: str) -> int:
    """Return the number of classes, labels or numbers."""
    if not ys.numel():
        raise UserError(f"{where}: targets have shape {tuple(ys.shape)}.")
    if target.name != "class":
        return ys.shape[-1] if ys.ndim > 1 else 1
    if lengths is not None:
        ys = missing_past_end(ys, lengths, target)
    if ys.is_floating_point() and (row := first_row(~ys.isfinite())):
        raise UserError(
            f"{where}: target {row.value(ys)} of row {row} is no class. A missing one is "
            f"{target.missing}; for regression set the target to 'numbers'."
        )
    highest = int(ys.max())
    if highest >= max(MOST_CLASSES, len(ys)):
        raise UserError(
            f"{where}: class {highest:,} means a head of that size; number classes from 0 without "
            f"gaps."
        )
    return max(1, highest + 1)
