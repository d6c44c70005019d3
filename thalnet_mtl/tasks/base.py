"""The contract of a task: its shapes, its metric, its splits and its batches.

A batch is a pure function of the step, so that a run resumes at any step without a state of its
data loader.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple, Self, get_args

import torch
from torch import Tensor

from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.metrics.metric import Metric
from thalnet_mtl.topology.spec import TaskSpec

SplitName = Literal["train", "validation", "test"]


class Batch(NamedTuple):
    """Inputs and targets of one step, on the device of their task.

    ``xs`` is (batch, time, inputs), or (batch, time) for tokens; ``ys`` is (batch,) for one class
    per sequence, or (batch, time) for one at every step. If ``starts_sequence`` is False, the
    batch continues the sequences of the batch before it, whose final state is carried on.
    """

    xs: Tensor
    ys: Tensor
    starts_sequence: bool


class Task:
    """A data set in three splits, with the shapes and the metric of what is learned from it.

    Data stays on the device as it is stored (uint8 for every built-in task) and is indexed there.

    Args:
        name: name of the task in a run.
        spec: shapes of its inputs and targets.
        read_splits: returns the data of each ``SplitName``; called when the task is loaded.
        source: data set of ``thalnet data ls`` that ``read_splits`` reads, if any.
        classes_seen: classes in the data, if they are only some of those of the head.
    """

    metric: Metric

    def __init__(
        self,
        name: str,
        spec: TaskSpec,
        read_splits: Callable[[], Mapping[str, object]],
        source: str = "",
        classes_seen: tuple[int, ...] = (),
    ):
        self.name = self.head_name = self._label = name
        self.spec = spec
        self.read_splits = read_splits
        self.source = source
        self.classes_seen = classes_seen
        self.device = torch.device("cpu")
        self.splits: dict[str, object] = {}

    @property
    def label(self) -> str:
        """Name of the task in tables of results, whatever its name in the run."""
        return self._label

    def named(self, name: str, head: str = "") -> Self:
        """Return a copy under another name, before its data is loaded.

        Args:
            name: name of the task in a run.
            head: name under which the network has its encoders and head; ``name`` by default.
        """
        task = copy.copy(self)
        task.name, task.head_name = name, head or name
        return task

    def load(self, device: torch.device | str) -> Self:
        """Load all splits onto a device and return the task. Missing data is downloaded.

        Raises:
            UserError: a split is missing or does not fit ``spec``, or the data cannot be had.
        """
        self.device = torch.device(device)
        splits = dict(self.read_splits())
        for name in get_args(SplitName):
            if name not in splits:
                raise UserError(f"task '{self.name}' has no split '{name}'.")
        self.splits = {name: self._validate(name, split) for name, split in splits.items()}
        return self

    def check_batch_sizes(self, size: int, evaluation_size: int, chunk: int) -> None:
        """Check that every split has at least one batch; ``size`` is that of a training batch.

        Raises:
            UserError: a split is too small.
        """
        self.batches_per_epoch("train", size, chunk)
        for split in ("validation", "test"):
            self.batches_per_epoch(split, evaluation_size, chunk)

    def batches_per_epoch(self, split: str, size: int, chunk: int) -> int:
        """Return the number of batches in one pass over a split.

        Training drops an incomplete last batch, evaluation keeps it.

        Args:
            split: a ``SplitName``.
            size: sequences in a batch.
            chunk: steps of a text in a batch; of no effect on tasks with whole sequences.

        Raises:
            UserError: the split is too small for one batch.
        """
        raise NotImplementedError

    def training_batch(self, step: int, size: int, chunk: int, seed: int) -> Batch:
        """Return the training batch of a step, counted from 0 over all epochs.

        Shapes are those of ``Batch`` with ``size`` sequences. The result depends on the arguments
        alone; ``seed`` shuffles tasks that have an order to shuffle.
        """
        raise NotImplementedError

    def iterate(self, split: str, size: int, chunk: int) -> Iterator[Batch]:
        """Yield a split once, in order. The last batch may be smaller or shorter."""
        raise NotImplementedError

    def sequences(self, split: str, chunk: int) -> tuple[Tensor, Tensor]:
        """Return the N sequences of a split and their targets as stored: (N, …) each."""
        raise NotImplementedError

    def to_inputs(self, xs: Tensor) -> Tensor:
        """Convert stored sequences to what a network reads: floats, or tokens as int64."""
        raise NotImplementedError

    def split(self, name: str) -> object:
        """Return the loaded data of a split; a UserError names the closest split."""
        if name not in self.splits:
            raise unknown("split", name, get_args(SplitName))
        return self.splits[name]

    def _validate(self, name: str, split: object) -> object:
        """Return a split as tensors on ``self.device``; a UserError says what does not fit."""
        raise NotImplementedError
