"""Tasks on sequences that are read whole: one target after the last step, or at every step."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from thalnet_mtl.errors import UserError
from thalnet_mtl.ops.inputs import first_input, map_inputs
from thalnet_mtl.ops.lengths import zero_past_end
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.batch import Batch, check_transformed
from thalnet_mtl.tasks.losses import Loss
from thalnet_mtl.tasks.random_streams import step_generator
from thalnet_mtl.tasks.splits.checks import InputSummary, check_inputs, check_targets, summarize
from thalnet_mtl.tasks.splits.infer import ambiguity_notices, infer_spec
from thalnet_mtl.tasks.splits.items import Columns
from thalnet_mtl.tasks.splits.naming import Naming
from thalnet_mtl.tasks.splits.notices import data_notices, input_notices, size_notices
from thalnet_mtl.tasks.splits.reader import ShuffledReader
from thalnet_mtl.tasks.splits.reading import read_split
from thalnet_mtl.tasks.splits.review import check_varied, classes_of, every_sequence_has_targets
from thalnet_mtl.tasks.splits.sequences import SPLITS, Sequences, Split
from thalnet_mtl.tasks.splits.sharing import check_same_reading, first_difference
from thalnet_mtl.tasks.splits.standardizing import (
    Scalings,
    check_can_standardize,
    precision_notices,
    standardized,
)
from thalnet_mtl.tasks.targets import target_of
from thalnet_mtl.topology.scaling import Scaling
from thalnet_mtl.topology.spec import TaskSpec

Splits = Mapping[str, Any]  # by ``SplitName``: see ``splits.reading.read_split``
Transform = Callable[[Batch, torch.Generator], Batch]


class SequenceTask(Task):
    """A task whose sequences are read whole, in an order that a seed shuffles.

    >>> xs, ys = torch.rand(90, 10, 3), torch.arange(90) % 2
    >>> task = SequenceTask("parity", {name: (xs, ys) for name in ("train", "validation", "test")})
    >>> task.spec
    TaskSpec(inputs=3, outputs=2, tokens=False, every_step=False, steps=10)

    A split is ``(xs, ys)``, ``(xs, ys, lengths)``, or a data set of PyTorch or Hugging Face whose
    items are such pairs, or mappings with named columns; see ``splits.reading.read_split``. Arrays
    that are mapped from a file, and data sets above 1 GiB, are read block by block during training;
    their targets are kept in memory.

    Args:
        name: name of the task.
        splits: the data by split. Or a function that returns it, called when the task is loaded.
        spec: shapes of inputs and targets; read from the data if it is not given.
        target: kind of target: ``class``, ``labels`` or ``numbers``.
        loss: name of a registered loss, a function, or a ``Loss``; by default that of the target.
        metrics: registered metrics, the main one first, each a name or a mapping of a ``name`` and
            options; by default those of the target.
        scale: divisor of the inputs; 255 brings bytes into [0, 1].
        standardize: scale inputs, and targets that are numbers, to mean 0 and deviation 1 of the
            training part, each column by itself. Scores are in the units of the data.
        class_names: names of the classes, in their order; for people.
        notices: what a user may want to know of the data, a sentence each.
        order: (time · inputs,) places; number k of every flattened sequence is read from
            ``order[k]``.
        transform: a function ``(batch, generator) -> batch`` that changes training batches, such
            as noise on their inputs. Its random numbers must come from the generator, which is on
            the CPU and depends on the seed and the step alone: so a run resumes exactly.
        inputs: name of the column of inputs, where data is a mapping or a data set of mappings; or
            several names, for a task with several inputs.
        targets: name of the column of targets.
        lengths: name of the column of lengths, if there is one.
        source: data set of ``thalnet data ls`` that ``splits`` reads, if any.
    """

    def __init__(
        self,
        name: str,
        splits: Splits | Callable[[], Splits],
        spec: TaskSpec | None = None,
        *,
        target: str = "class",
        loss: str | Loss | Callable[..., Tensor] = "",
        metrics: Sequence[str | Mapping[str, Any]] = (),
        scale: float = 1.0,
        standardize: bool = False,
        class_names: Sequence[str] = (),
        notices: Sequence[str] = (),
        order: Tensor | None = None,
        transform: Transform | None = None,
        inputs: str | Sequence[str] = "x",
        targets: str = "y",
        lengths: str = "",
        source: str = "",
    ):
        if not (scale and math.isfinite(scale)):
            raise UserError(f"task '{name}': scale must be a number other than 0, got {scale}.")
        self.scale, self.order, self.transform = scale, order, transform
        self.class_names, self._own_notices = tuple(class_names), tuple(notices)
        self.columns, self._inferred = Columns(inputs, targets, lengths), spec is None
        self.standardize = standardize
        self.output_columns: list[str] = []
        self._scalings: Scalings = (None, None)
        self._reader: ShuffledReader[Batch] | None = None
        self._training_inputs: Mapping[str, InputSummary] = {}
        if isinstance(splits, Mapping):
            read = self._read_all(name, splits, target)
            spec = spec or infer_spec(read, target_of(target), f"task '{name}'")
            self._own_notices += ambiguity_notices(spec, target) if self._inferred else ()
            splits = lambda: read  # noqa: E731
        elif not callable(splits):
            raise UserError(
                f"task '{name}': expected a mapping from train, validation and test to data, got "
                f"{type(splits).__name__}. torch.utils.data.random_split cuts a data set."
            )
        elif spec is None:
            raise UserError(f"task '{name}': give a spec, or the data instead of a function.")
        if standardize:
            check_can_standardize(spec, target, f"task '{name}'")
        super().__init__(
            name, spec, splits, target=target, loss=loss, metrics=metrics, source=source
        )
        self.meaning = ", ".join(map(str, self.class_names))

    def _read_all(self, name: str, splits: Splits, target: str) -> dict[str, Split]:
        return {
            str(split): read_split(data, target_of(target), self.columns, f"task '{name}', {split}")
            for split, data in splits.items()
        }

    @property
    def scalings(self) -> Scalings:
        return self._scalings

    def batches_per_epoch(self, split: str, size: int, chunk: int) -> int:
        count = len(self._data(split))
        if split == "train" and size > count:
            raise UserError(f"batch {size} is larger than the {count} sequences of {self.name}.")
        return count // size if split == "train" else -(-count // size)

    def training_batch(self, step: int, size: int, chunk: int, seed: int) -> Batch:
        if self._reader is None or size > self._reader.size:
            self.batches_per_epoch("train", size, chunk)  # which says what is missing or too small
        assert self._reader is not None
        batch = self._reader.batch(step, size, seed)
        return batch if self.transform is None else self.transformed(batch, seed, step)

    def transformed(self, batch: Batch, seed: int, step: int) -> Batch:
        if self.transform is None:
            return batch
        return self.transform(batch, step_generator(f"transform {self.name}", seed, step))

    def check_batch_sizes(self, size: int, evaluation_size: int, chunk: int) -> None:
        super().check_batch_sizes(size, evaluation_size, chunk)
        if self.transform is None or self._reader is None:
            return
        before = self._reader.batch(0, size, 0)
        after = self.training_batch(0, size, chunk, 0)
        check_transformed(before, after, bool(self.spec.steps), f"task '{self.name}': transform")

    def with_targets(self, batch: Batch, step: int, size: int, seed: int) -> Batch:
        """Return the training batch of a task with the same sequences, with the targets of this.

        Args:
            batch: of the other task.
            step, size, seed: the arguments with which it was drawn.
        """
        assert self._reader is not None
        ys = self._data("train").ys
        epoch, position = divmod(step, len(ys) // size)
        order = self._reader.epoch_order(seed, epoch)
        chosen = order[position * size : (position + 1) * size]
        ys = ys.index_select(0, chosen.to(ys.device))
        ys = ys[:, : first_input(batch.xs).shape[1]] if self.spec.every_step else ys
        return batch._replace(ys=self._targets(ys))

    def share_inputs(self, source: "SequenceTask") -> None:
        """Read the inputs of another task, and drop an equal copy of them.

        Raises:
            UserError: the training sequences differ; the message names the first row that does.
        """
        where = f"task '{self.name}' cannot take the inputs of '{source.name}'"
        check_same_reading(self, source, where)
        for name in SPLITS:
            mine, shared = self._data(name), source._data(name)
            difference = first_difference(mine, shared)
            if difference and name == "train":
                raise UserError(f"{where}: {difference}.")
            if not difference:
                self.splits[name] = shared.with_targets(mine.ys, shared.lengths)
        self._reader = self._shuffled_reader()

    def iterate(self, split: str, size: int, chunk: int) -> Iterator[Batch]:
        for part in self._data(split).split(size):
            yield self.to_batch(part)

    def iterate_targets(self, split: str, size: int, chunk: int) -> Iterator[Batch]:
        for ys in self.sequences(split, chunk).ys.split(size):
            yield Batch(None, self._targets(ys), True)

    def sequences(self, split: str, chunk: int) -> Split:
        return self._data(split)

    def to_batch(self, data: Sequences) -> Batch:
        """Return stored sequences as a batch, cut after the end of the longest."""
        xs, ys, lengths = data
        xs = self._ordered(xs)
        if lengths is not None:
            time = int(lengths.max())
            xs = map_inputs(lambda part: part[:, :time], xs)
            ys = ys[:, :time] if self.spec.every_step else ys
            lengths = lengths.to(self.device)
        xs = map_inputs(self.to_inputs, xs)
        if self.input_scaling and lengths is not None:
            xs = zero_past_end(xs, lengths)
        return Batch(xs, self._targets(ys), True, lengths)

    def to_inputs(self, xs: Tensor) -> Tensor:
        """Convert to floats, then divide by ``scale``: two steps are much faster than one."""
        if self.spec.tokens:
            return xs.long()
        wide = xs if xs.is_floating_point() else xs.to(torch.get_default_dtype())
        wide = wide if self.scale == 1 else wide / self.scale
        return self.input_scaling.apply(wide) if self.input_scaling else wide

    @property
    def input_scaling(self) -> Scaling | None:
        """The scaling of inputs that are stored in the units of the data."""
        return self._scalings[0] if self.standardize else None

    def _ordered(self, xs: Any) -> Any:
        """Return stored inputs with the places of each sequence in ``order``."""
        if self.order is None:
            return xs
        order = self.order.expand(len(first_input(xs)), -1)
        return map_inputs(lambda part: part.flatten(1).gather(1, order).view_as(part), xs)

    def _targets(self, ys: Tensor) -> Tensor:
        """Return stored targets as a batch has them: classes as int64."""
        return ys.long() if self.target.name == "class" else ys

    def _data(self, split: str) -> Split:
        data: Split = self.split(split)
        return data

    def _summarize(self, split: str, data: Split, where: str) -> Mapping[str, InputSummary]:
        """Return summaries of the inputs of a split by name."""
        return summarize(data, where)

    def _validate(self, name: str, split: Any) -> Split:
        where, spec, target = f"task '{self.name}', {name}", self.spec, self.target
        data = read_split(split, target, self.columns, where)
        summaries = self._summarize(name, data, where)
        flat = all(len(part.shape) == 1 for part in summaries.values())
        if flat and not spec.tokens and spec.input_width() == 1:
            data = data.map_xs(lambda part: part[..., None])  # one number a step
            summaries = {n: part._replace(shape=(*part.shape, 1)) for n, part in summaries.items()}
        check_inputs(summaries, len(data), spec, where)
        if name == SPLITS[0]:
            self._training_inputs = summaries
        time = max(part.shape[0] for part in summaries.values())
        lengths = data.lengths
        if lengths is None and time < spec.steps:
            if not self._inferred:
                raise UserError(f"{where}: sequences have {time} steps; expected {spec.steps}.")
            lengths = torch.full((len(data),), time)
        ys = check_targets(data.ys, lengths, time, spec, target, where)
        if self.order is not None:
            if len(self.order) != time * spec.input_width():
                raise UserError(f"{where}: order has {len(self.order)} places.")
            self.order = self.order.to(self.device)
        return data.with_targets(ys, lengths).to(self.device)

    def _prepare(self) -> None:
        target, outputs, where = self.target, self.spec.outputs, f"task '{self.name}'"
        if self.standardize:
            self._scalings = None, None  # those of the last time that data was loaded
        targets = {name: data.ys for name, data in self.splits.items()}
        naming = Naming(self.class_names, self.output_columns, self.in_units)
        self.complete = every_sequence_has_targets(target, targets, where)
        if not self.shares_head:
            check_varied(target, targets[SPLITS[0]], outputs, where, naming)
        if target.name == "class":
            classes = [classes_of(target, ys) for ys in targets.values()]
            self.classes_seen = tuple(sorted(set[int]().union(*classes)))
        notices = list(self._own_notices)
        if not self.shares_head:
            notices += data_notices(target, targets, naming)
        if self.standardize:
            read = None if self.spec.tokens else lambda xs: self.to_inputs(self._ordered(xs))
            self._scalings, self.splits = standardized(self.splits, read, target.name == "numbers")
            notices += precision_notices(self._scalings)
        else:
            notices += size_notices(target, targets[SPLITS[0]])
            notices += input_notices(self._training_inputs, self.scale, self.spec.tokens)
        self.notices = tuple(notices)
        training = self._data("train")
        self.loss_function.prepare(training.ys, outputs)
        self.loss_function.check(target, self._targets(training.ys[:2]), outputs, where)
        self._reader = self._shuffled_reader()

    def _shuffled_reader(self) -> ShuffledReader[Batch]:
        training = self._data("train")
        # Batches are cut after their longest sequence; a transform may write to what it is given.
        alike = training.lengths is None and self.transform is None
        return ShuffledReader(training, self.to_batch, alike)
