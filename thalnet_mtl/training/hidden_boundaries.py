"""Runs whose learner is not told where an experience ends: what it knows, and what is refused."""

from collections.abc import Mapping, Sequence

import torch

from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.network import Network
from thalnet_mtl.registry import entries, lookup
from thalnet_mtl.strategies.base import TrainingContext
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.losses import Loss
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.tasks.stream import Experience
from thalnet_mtl.tasks.task_stream import TaskStream

# Fields that would tell the learner of tasks or of the future, with the value that does not.
WHERE = "train.boundaries hidden"
NEUTRAL = {"schedule": "constant", "patience": 0, "draw": 0.0, "combine": "fixed"}


class HiddenContext:
    """The view that a strategy has of such a run: one task in one experience.

    Args:
        run: the run.
        stream: all that it trains on.
    """

    announced = False

    def __init__(self, run: TrainingContext, stream: TaskStream):
        self._run, self._stream = run, stream

    @property
    def network(self) -> Network:
        """The network that is trained."""
        return self._run.network

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The stream as a single task."""
        return {self._stream.name: self._stream}

    @property
    def device(self) -> torch.device:
        """The device of the network, the batches and the losses."""
        return self._run.device

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self._run.seed

    @property
    def step(self) -> int:
        """The number of optimizer steps so far."""
        return self._run.step

    @property
    def experience(self) -> Experience:
        """The whole stream."""
        return Experience(1, (self._stream.name,), 0, len(self._stream.counts))

    @property
    def trainable_tasks(self) -> set[str]:
        """The stream, if it depends on a parameter that is not frozen."""
        heads = self._run.network.trainable_tasks()
        return {self._stream.name} if self._stream.head_name in heads else set()

    @property
    def chunk(self) -> int:
        """The number of tokens in a training sequence of a text."""
        return self._run.chunk

    def batch_size(self, task: str | None = None) -> int:
        """Return the sequences in a batch."""
        return self._run.batch_size()

    def loss_weight(self, task: str) -> float:
        """Return the factor of the loss."""
        return 1.0

    def configure_network(self, network: Network) -> None:
        """Give a network the dropout rate and the backend of this run."""
        self._run.configure_network(network)


def make_task_stream(
    config: Config, tasks: Mapping[str, Task], stream: Sequence[Experience]
) -> TaskStream:
    """Return the stream as the task that its learner sees.

    Raises:
        UserError: a task has too few sequences, or another loss.
    """
    parts = {name: task for name, task in tasks.items() if isinstance(task, SequenceTask)}
    mixed = TaskStream(parts, stream, config.train.batch)
    for task in mixed.parts[1:]:
        if not same_loss(task.loss_function, mixed.loss_function):
            raise UserError(
                f"{WHERE}: the loss of task '{task.name}' is not that of "
                f"'{mixed.parts[0].name}', so that it would tell them apart."
            )
    return mixed


def same_loss(first: Loss, second: Loss) -> bool:
    """Return whether two losses are of one class and have equal attributes."""

    def plain(loss: Loss) -> dict[str, object]:
        attributes = vars(loss).items()
        return {n: v.tolist() if isinstance(v, torch.Tensor) else v for n, v in attributes}

    return type(first) is type(second) and plain(first) == plain(second)


def check_boundaries(config: Config, tasks: Mapping[str, Task]) -> None:
    """Raise if a learner needs to be told of hidden boundaries, or is told of them by an option.

    Args:
        config: of the run.
        tasks: by name; their data need not be loaded.
    """
    options = config.train
    if options.boundaries == "announced":
        return
    if len(config.stream) < 2:
        raise UserError(f"{WHERE}: give a stream of at least two experiences.")
    for name, value in NEUTRAL.items():
        if getattr(options, name) != value:
            raise UserError(
                f"{WHERE}: train.{name} {getattr(options, name)} needs to know of tasks or of the "
                f"end of the stream; leave it at {value}."
            )
    check_tasks(config, tasks)
    for kind, field, name in (
        ("growth", "growth.when", config.growth.when),
        ("strategy", "train.strategy", options.strategy),
    ):
        reason = getattr(lookup(kind, name), "needs_boundaries", "another library takes its steps")
        if reason:
            able = [n for n, e in entries(kind).items() if not getattr(e, "needs_boundaries", e)]
            raise UserError(
                f"{WHERE}: {field} {name} does not work there: {reason}. Allowed: "
                f"{', '.join(sorted(able))}."
            )


def check_tasks(config: Config, tasks: Mapping[str, Task]) -> None:
    """Raise unless the tasks of a stream are alike to the learner: one head, one shape."""
    first = config.stream[0].tasks[0]
    for name, entry in config.named_tasks.items():
        source = tasks[name]
        head = tasks[first].head_name if first in tasks else source.head_name
        if source.head_name != head:
            raise UserError(
                f"{WHERE}: all tasks share one head, as nothing tells them apart; give each the "
                f"same 'head' (tasks.{name}.head)."
            )
        if source.spec != (spec := tasks.get(first, source).spec):
            raise UserError(f"{WHERE}: task '{name}' has another shape: {source.spec}, not {spec}.")
        if not isinstance(source, SequenceTask):
            raise UserError(
                f"{WHERE}: task '{name}' is a {type(source).__name__}; only tasks whose sequences "
                f"are read whole are mixed."
            )
        for field, neutral in (("weight", 1.0), ("inputs_of", ""), ("share", 0.0)):
            if getattr(entry, field) != neutral:
                raise UserError(
                    f"{WHERE}: tasks.{name}.{field} would tell the learner the task; leave it out."
                )
        if entry.unknown:
            raise UserError(
                f"{WHERE}: tasks.{name}.unknown has no effect; no score knows the task there."
            )
        if entry.batch not in (0, config.train.batch):
            raise UserError(f"{WHERE}: tasks.{name}.batch has no effect; set train.batch.")
