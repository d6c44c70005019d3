"""The context of a training run: its configuration, data and state, and what follows from them."""

import copy
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn

from thalnet_mtl.config.schema import Config
from thalnet_mtl.models.build import configure_network
from thalnet_mtl.models.checksum import TaskChecksums
from thalnet_mtl.models.cost import MacCounter
from thalnet_mtl.models.modes import evaluation_mode
from thalnet_mtl.models.network import Network
from thalnet_mtl.strategies.base import TrainingContext
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.evaluation import guess_scores
from thalnet_mtl.tasks.metrics import UndefinedScore
from thalnet_mtl.tasks.stream import Experience, make_stream, with_ends
from thalnet_mtl.training.evaluate import evaluate
from thalnet_mtl.training.hidden_boundaries import HiddenContext, make_task_stream
from thalnet_mtl.training.optimizers import learning_rate
from thalnet_mtl.training.ranks import ALONE, Ranks
from thalnet_mtl.training.scores import waited
from thalnet_mtl.training.start import Start
from thalnet_mtl.training.state import TrainState

FEW_BATCHES = 10  # of the test split: enough to see the score of guessing


class RunContext:
    """A training run: what its configuration rebuilds, and the state that a checkpoint holds.

    Strategies get it as their ``TrainingContext``.

    Args:
        config: of the run.
        device: of the network, the data and the losses.
        tasks: by name, with their data loaded.
        state: before the first step; its strategy may still be missing.
        start: the network that it starts from; None for new weights, or a run that goes on.
        ranks: the processes that train it.
    """

    def __init__(
        self,
        config: Config,
        device: torch.device,
        tasks: Mapping[str, Task],
        state: TrainState,
        start: Start | None = None,
        ranks: Ranks = ALONE,
    ):
        self.start, self.ranks = start, ranks
        self.config, self.device, self.tasks, self.state = config, device, dict(tasks), state
        self._batch_sizes: dict[str, int] = {}
        self._epochs: dict[Sequence[str], int] = {}  # steps, by tasks
        self._planned = planned = make_stream(config, self.steps_per_epoch)
        self._over, self._stream, self._stops = 0, planned, [e.stop for e in planned]
        self.task_stream = None if self.announced else make_task_stream(config, tasks, planned)
        self._trainable_tasks: set[str] | None = None
        self._guesses: dict[tuple[str, str], dict[str, float]] = {}  # the data never changes
        self._macs = MacCounter()
        # By task and split the checksum of what it depends on, and its scores.
        self._frozen_scores: dict[tuple[str, str], tuple[bytes, dict[str, float]]] = {}

    @property
    def trainable_tasks(self) -> set[str]:
        """The tasks that depend on at least one parameter that is not frozen."""
        if self._trainable_tasks is None:
            heads = self.network.trainable_tasks()
            head = self.task_stream.head_name if self.task_stream else ""
            names = {n for n, task in self.tasks.items() if (head or task.head_name) in heads}
            self._trainable_tasks = names
        return self._trainable_tasks

    def forget_trainable_tasks(self) -> None:
        """Find them anew when they are needed; for after any change of the network."""
        self._trainable_tasks = None

    def copy(self) -> "RunContext":
        """Return the run with a copy of its state, and the same data."""
        copied = copy.copy(self)
        copied.state = self.copy_state(copied)
        return copied

    def copy_state(self, owner: "RunContext") -> TrainState:
        """Return a copy of the state, whose strategy belongs to the run ``owner``.

        If that is this run, the rule of growth is no part of the copy: it goes on as it is when the
        run takes over the copy.
        """
        shared = self.shared(owner)
        if owner is self:
            shared[id(self.state.rule)] = self.state.rule
        return copy.deepcopy(self.state, shared)

    def shared(self, owner: "RunContext") -> dict[int, Any]:
        """Return what a copy of a part of this run does not copy, for ``copy.deepcopy``."""
        tasks = [*self.tasks.values(), *self.learned_tasks.values()]
        return {id(self): owner} | {id(task): task for task in tasks}

    def with_state(self, state: TrainState) -> "RunContext":
        """Return the run with another state, and the same data."""
        run = copy.copy(self)
        run.take_over(state)
        return run

    def take_over(self, state: TrainState) -> None:
        """Go on from another state of this run."""
        self.state = state
        self.forget_trainable_tasks()

    @contextmanager
    def having(self, state: TrainState) -> Iterator[TrainState]:
        """Have another state within a context."""
        before = self.state
        self.take_over(state)
        try:
            yield state
        finally:
            self.take_over(before)

    @property
    def announced(self) -> bool:
        """Whether the learner is told where an experience ends."""
        return self.config.train.boundaries == "announced"

    @property
    def learned_tasks(self) -> Mapping[str, Task]:
        """The tasks that the learner knows: those of the run, or the stream as a single one."""
        return {self.task_stream.name: self.task_stream} if self.task_stream else self.tasks

    @property
    def learner(self) -> TrainingContext:
        """What the strategy knows of the run."""
        return HiddenContext(self, self.task_stream) if self.task_stream else self

    @property
    def network(self) -> Network:
        """The network that is trained; its topology may change, and a resume replaces it."""
        return self.state.network

    @property
    def step(self) -> int:
        """The number of optimizer steps so far."""
        return self.state.step

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.config.train.seed

    @property
    def chunk(self) -> int:
        """The number of tokens in a training sequence of a text."""
        return self.config.train.chunk

    @property
    def attached_tasks(self) -> list[str]:
        """The tasks that have a head in the network."""
        adapters = self.network.adapters
        return [name for name, task in self.tasks.items() if task.head_name in adapters]

    @property
    def active_tasks(self) -> list[str]:
        """The tasks of this experience that are neither frozen nor stopped early."""
        return self.active_in(self.experience)

    def active_in(self, experience: Experience) -> list[str]:
        """Return the tasks of an experience that are neither frozen nor stopped early."""
        patience, state = self.config.train.patience, self.state
        names = [name for name in experience.tasks if name in self.trainable_tasks]
        if not patience:
            return names
        best = (state.stopping if self.continual else state.scores).best_by_task
        return [name for name in names if waited(best, name) < patience]

    @property
    def stream(self) -> list[Experience]:
        """The experiences; those that are over have the steps that they took."""
        if len(ends := self.state.stopping.ends) != self._over:
            self._over, self._stream = len(ends), with_ends(self._planned, ends)
            self._stops = [experience.stop for experience in self._stream]
        return self._stream

    @property
    def experience(self) -> Experience:
        """The experience that the next step belongs to; after the last step, the last one."""
        stream = self.stream  # brings the stops up to date
        return stream[min(bisect_right(self._stops, self.state.step), len(stream) - 1)]

    @property
    def last_experience(self) -> Experience:
        """The experience that the last step belongs to; before the first step, the first one."""
        stream = self.stream
        return stream[bisect_left(self._stops, self.state.step)]

    @property
    def continual(self) -> bool:
        """True if there are several experiences."""
        return len(self._planned) > 1

    @property
    def keeps_best(self) -> bool:
        """Whether each experience of a stream may end early, and does so with its best weights."""
        return bool(self.config.train.patience) and self.continual

    @property
    def epoch(self) -> int:
        """The steps in an epoch of this experience."""
        return self.steps_per_epoch(self.experience.tasks)

    @property
    def total_steps(self) -> int:
        """The steps of all experiences."""
        return self.stream[-1].stop

    def batch_size(self, task: str | None = None) -> int:
        """Return the sequences in a training batch of a task; without one, ``train.batch``."""
        default = self.config.train.batch
        if task is None:
            return default
        if task not in self._batch_sizes:
            named = self.config.named_tasks
            self._batch_sizes[task] = named[named[task].inputs_of or task].batch or default
        return self._batch_sizes[task]

    def loss_weight(self, task: str) -> float:
        """Return the factor of the loss of a task."""
        return self.config.named_tasks[task].weight

    def learning_rate(self) -> float:
        """Return the learning rate of the next step."""
        return learning_rate(self.config.train, self.schedule(self.experience), self.state.step)

    def schedule(self, experience: Experience) -> Experience:
        """Return the steps of the schedule of learning rates: an experience, or all of a stream."""
        return experience if self.announced else self.learner.experience

    def batches_per_epoch(self, task: str) -> int:
        """Return the training batches in an epoch of a task."""
        size = self.batch_size(task)
        return self.tasks[task].batches_per_epoch("train", size, self.config.train.chunk)

    def steps_per_epoch(self, tasks: Sequence[str]) -> int:
        """Return the steps of an epoch over some tasks, a pass over that of ``train.epoch_of``."""
        if (key := tuple(tasks)) not in self._epochs:
            self._epochs[key] = self._steps_per_epoch(key)
        return self._epochs[key]

    def _steps_per_epoch(self, tasks: Sequence[str]) -> int:
        batches = {name: self.batches_per_epoch(name) for name in tasks}
        choice = self.config.train.epoch_of
        if choice in batches:
            return batches[choice]
        return max(batches.values()) if choice == "longest" else min(batches.values())

    def task_parameters(self, task: str) -> dict[str, nn.Parameter]:
        """Return the parameters that the logits of a task can depend on, by name."""
        source = self.learned_tasks.get(task) or self.tasks[task]
        return self.network.task_parameters(source.head_name)

    def score_untrained(self, task: str) -> dict[str, float]:
        """Return loss, metrics and count of a task on the test split, before its training.

        With several experiences the score is part of the matrix of scores, so that it covers as
        much of the split as later ones do.
        """
        batches = self.test_batches(task)
        return self.score(task, "test", batches if self.continual else min(batches, FEW_BATCHES))

    def configure_network(self, network: Network) -> None:
        """Give a network the dropout rate and the backend of this run."""
        configure_network(network, self.config.train)

    def score(self, task: str, split: str, batches: int | None = None) -> dict[str, float]:
        """Return loss, metrics and count on a split.

        Args:
            task: its name.
            split: train, validation or test.
            batches: to score; by default ``evaluate.batches``. Where a metric is not defined on so
                few, the whole split is scored.
        """
        options, chunk = self.config.evaluate, self.config.train.chunk
        network = self.state.rule.scored_network()
        scored = network, self.tasks[task], split, options.batch, chunk
        # Another network may score a sequence by the others of its batch.
        ranks = self.ranks if network is self.network else ALONE
        if batches is None:
            return evaluate(*scored, options.batches, ranks=ranks)
        try:
            return evaluate(*scored, batches, ranks=ranks)
        except UndefinedScore:
            return evaluate(*scored, ranks=ranks)

    def scores(self, tasks: Iterable[str], split: str) -> dict[str, dict[str, float]]:
        """Return loss, metrics and count of several tasks on a split, by task.

        Those of a frozen task are computed once for the same weights.
        """
        checksums = TaskChecksums(self.network)
        with evaluation_mode(self.network):
            return {task: self._score_once(task, split, checksums) for task in tasks}

    def _score_once(self, task: str, split: str, checksums: TaskChecksums) -> dict[str, float]:
        replaced = self.state.rule.scored_network() is not self.network
        if replaced or task in self.trainable_tasks:
            return self.score(task, split)
        checksum, scored = checksums.of(self.tasks[task].head_name), self._frozen_scores
        if scored.get((task, split), (b"", {}))[0] != checksum:
            scored[task, split] = checksum, self.score(task, split)
        return dict(scored[task, split][1])

    def guess(self, task: str, split: str) -> dict[str, float]:
        """Return loss and metrics of guessing on a split, as far as it is scored."""
        if (task, split) not in self._guesses:
            options, chunk = self.config.evaluate, self.config.train.chunk
            scored = self.tasks[task], split, options.batch, chunk
            batches = options.batches if split != "train" else self.test_batches(task)
            try:
                scores = guess_scores(*scored, batches)
            except UndefinedScore:
                if split != "train":
                    raise
                scores = guess_scores(*scored)
            self._guesses[task, split] = scores
        return self._guesses[task, split]

    def multiply_adds(self, task: str) -> int:
        """Return the multiply-adds of a validation sequence of a task."""
        source = self.tasks[task]
        inputs = source.iterate("validation", 1, self.chunk)
        return self._macs.count(self.network, source.head_name, (batch.xs for batch in inputs))

    def test_batches(self, task: str) -> int:
        """Return how many batches an evaluation of the test split takes."""
        options, chunk = self.config.evaluate, self.config.train.chunk
        return options.batches or self.tasks[task].batches_per_epoch("test", options.batch, chunk)

    def separate_rng(self) -> AbstractContextManager[None]:
        """Draw the parameters of a change from a random stream of their own."""
        return self.state.growth.separate_rng()
