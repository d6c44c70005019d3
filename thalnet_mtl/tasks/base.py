"""A task: what goes in, what is due, what it is judged by, and its batches.

Data sits on the training device as it was stored (uint8 for everything built in) and is indexed
there. A batch is a pure function of the step, so that a run can go on at any step with no state
but that number.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.metrics.metric import Metric
from thalnet_mtl.topology.spec import TaskSpec

SplitName = Literal["train", "validation", "test"]


class Batch(NamedTuple):
    """Inputs and targets; ``fresh`` if the sequences start here, so that no state is carried."""

    xs: Tensor
    ys: Tensor
    starts_sequence: bool


class Task:
    """The contract. ``splits`` maps each ``SplitName`` to the task's own kind of data.

    ``label`` is the name in results, ``source`` the data set in ``thalnet data ls``, if any.
    """

    metric: Metric
    source: str = ""

    def __init__(self, name: str, interface: TaskSpec, load: Callable[[], Mapping[str, object]]):
        self.name, self.spec = name, interface
        self.label = name
        self.head = ""
        self.classes_seen: tuple[int, ...] = ()  # of its head, if its data hold some of them only
        self._load = load
        self.device = torch.device("cpu")
        self.splits: dict[str, object] = {}

    @property
    def head_name(self) -> str:
        """The name under which a network knows it: that of its head."""
        return self.head or self.name

    def load(self, device: torch.device | str) -> "Task":
        """Load all splits, fetching data that is missing, and keep them on a device."""
        self.device = torch.device(device)
        splits = dict(self._load())
        for name in get_args(SplitName):
            if name not in splits:
                raise UserError(f"task '{self.name}' has no split '{name}'.")
        self.splits = {name: self._put(name, split) for name, split in splits.items()}
        return self

    def batches_per_epoch(self, split: str, size: int, chunk: int) -> int:
        """Whole batches of a split, at least one."""
        raise NotImplementedError

    def training_batch(self, step: int, size: int, chunk: int, seed: int) -> Batch:
        """The training batch of a step, counted from 0 over all epochs."""
        raise NotImplementedError

    def iterate(self, split: str, size: int, chunk: int) -> Iterator[Batch]:
        """A split once, in order."""
        raise NotImplementedError

    def sequences(self, split: str, chunk: int) -> tuple[Tensor, Tensor]:
        """All sequences of a split as they are stored, and their targets: (N, …) both."""
        raise NotImplementedError

    def to_inputs(self, xs: Tensor) -> Tensor:
        """Stored sequences as a network takes them."""
        raise NotImplementedError

    def split(self, name: str) -> object:
        """One part of the data."""
        if name not in self.splits:
            raise unknown("split", name, get_args(SplitName))
        return self.splits[name]

    def _put(self, name: str, split: object) -> object:
        raise NotImplementedError
