"""The contract of a task: its shapes, its kind of target, its loss, its metrics and its batches.

A batch is a pure function of the step, so that a run resumes at any step without a state of its
data loader.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.metrics.metric import Metric
from thalnet_mtl.tasks.batch import Batch, concatenate
from thalnet_mtl.tasks.losses import Loss, make_loss
from thalnet_mtl.tasks.scoring import ScoredMetric, Scorer, find_metrics
from thalnet_mtl.tasks.shown import ShownTask
from thalnet_mtl.tasks.splits.sequences import SPLITS, Sequences, Split, fill
from thalnet_mtl.tasks.targets import target_of
from thalnet_mtl.topology.scaling import Scaling
from thalnet_mtl.topology.spec import TaskSpec


class Task(ShownTask):
    """A data set in three splits, with the loss and the metrics of what is learned from it.

    Data stays on the device as it is stored (uint8 for every built-in task) and is indexed there.

    Args:
        name: name of the task in a run.
        spec: shapes of its inputs and targets.
        read_splits: returns the data of each ``SplitName``; called when the task is loaded.
        target: kind of target: ``class``, ``labels`` or ``numbers``.
        loss: name of a registered loss, a function, or a ``Loss``; by default that of the target.
        metrics: registered metrics, the main one first, each a name or a mapping of a ``name`` and
            options; by default those of the target.
        source: data set of ``thalnet data ls`` that ``read_splits`` reads, if any.

    Attributes:
        carries_state: whether a batch may continue the sequences of the one before it.
        complete: whether every sequence has at least one target, once the data is loaded.
        classes_seen: classes that occur in the data, once it is loaded; () for other targets.
        shares_head: whether other tasks have its head, and may have other classes.
        meaning: what its answers mean, in words, equal where they mean the same; '' if unknown.
        notices: what a user may want to know of the loaded data, a sentence each: a class that
            only the test split has, for example.
    """

    carries_state: ClassVar[bool] = False

    def __init__(
        self,
        name: str,
        spec: TaskSpec,
        read_splits: Callable[[], Mapping[str, Any]],
        *,
        target: str = "class",
        loss: str | Loss | Callable[..., Tensor] = "",
        metrics: Sequence[str | Mapping[str, Any]] = (),
        source: str = "",
    ):
        self.name = self.head_name = self._label = name
        self.spec = spec
        self.read_splits = read_splits
        self.target = target_of(target)
        self.loss_function = self._make_loss(loss or self.target.loss)
        self._scored = self._find_metrics(metrics or self.target.metrics)
        self.source, self.meaning = source, ""
        self.classes_seen: tuple[int, ...] = ()
        self.notices: tuple[str, ...] = ()
        self.shares_head, self.complete = False, True
        self.device = torch.device("cpu")
        self.splits: dict[str, Any] = {}

    @property
    def label(self) -> str:
        """Name of the task in tables of results, whatever its name in the run."""
        return self._label

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics, the main one first."""
        return tuple(scored.metric for scored in self._scored)

    @property
    def metric(self) -> Metric:
        """The main metric, by which runs and weights are compared."""
        return self._scored[0].metric

    def named(self, name: str, head: str = "") -> Self:
        """Return a copy under another name, before its data is loaded.

        Args:
            name: name of the task in a run.
            head: name under which the network has its encoders and head; ``name`` by default.
        """
        task = copy.copy(self)
        task.name, task.head_name, task.shares_head = name, head or name, bool(head)
        task.loss_function = copy.copy(self.loss_function)  # ``load`` prepares it for the data
        return task

    def with_loss(self, loss: str, **options: Any) -> Self:
        """Return a copy with another loss, a registered name with its options.

        Raises:
            UserError: the loss is for another kind of target.
        """
        task = copy.copy(self)
        task.loss_function = self._make_loss(loss, **options)
        return task

    def with_metrics(self, metrics: Sequence[str | Mapping[str, Any]]) -> Self:
        """Return a copy with other metrics; see the argument ``metrics`` of the constructor.

        Raises:
            UserError: a metric is unknown, or for another kind of target.
        """
        task = copy.copy(self)
        task._scored = self._find_metrics(metrics)
        return task

    def load(self, device: torch.device | str) -> Self:
        """Load all splits onto a device and return the task. Missing data is downloaded.

        Raises:
            UserError: a split is missing or does not fit ``spec``, or the data cannot be had.
        """
        self.device = torch.device(device)
        splits = self.read_splits()
        if not isinstance(splits, Mapping):
            raise UserError(
                f"task '{self.name}': expected a mapping from {', '.join(SPLITS)} to data, got "
                f"{type(splits).__name__}."
            )
        for name in SPLITS:
            if name not in splits:
                names = ", ".join(map(str, splits)) or "none"
                raise UserError(f"task '{self.name}' has no split '{name}'; it has {names}.")
        self.splits = {name: self._validate(name, split) for name, split in splits.items()}
        self._prepare()
        return self

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the mean loss of a batch, a scalar.

        It is the mean over targets that are there; 0, with a gradient of 0, if all are missing.

        Args:
            outputs: (batch, outputs), or (batch, time, outputs) for a target at every step.
            batch: with the targets.
        """
        function = self.loss_function
        mean = function.complete_mean if self.complete else function.mean
        return mean(self.target, self.floats(outputs), batch.ys)

    def count(self, batch: Batch) -> Tensor:
        """Return what a batch weighs in the mean over several: the number of its targets.

        Where a loss weighs classes, it is the sum of their weights.
        """
        return self.loss_function.total_weight(self.target, batch.ys)

    def sample(self, outputs: Tensor, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch with targets drawn from the distribution that the outputs describe."""
        ys = self.target.sample(self.floats(outputs), generator)
        over = batch.past_end() if self.spec.every_step else None
        return batch._replace(ys=ys if over is None else fill(ys, over, self.target.missing))

    def distillation(
        self, outputs: Tensor, teacher: Tensor, batch: Batch, temperature: float
    ) -> Tensor:
        """Return how far the answers to a batch are from those of a teacher, a mean over answers.

        For classes it is T² KL(p_teacher ‖ p) at a temperature T, for labels the same of each, for
        numbers the squared difference.
        """
        outputs, teacher = self.floats(outputs), self.floats(teacher)
        terms = self.target.distillation(outputs, teacher, temperature)
        over = batch.past_end() if self.spec.every_step else None
        answers: Any = terms[..., 0].numel()
        if over is not None:
            terms, answers = fill(terms, over, 0), (~over).sum()
        return terms.sum() / (answers if self.target.name == "class" else answers * terms.shape[-1])

    def concatenate(self, batches: Sequence[Batch]) -> Batch:
        """Return several batches as one, padded to the longest sequence of them."""
        return concatenate(batches, self.target.missing if self.spec.every_step else None)

    def scorer(self) -> Scorer:
        """Return a scorer of the metrics, for one evaluation."""
        return Scorer(self._scored, self.target)

    @property
    def guesses(self) -> dict[str, float | None]:
        """Scores of guessing by metric, None where they follow from the best constant answer."""
        return {scored.metric.name: scored.guess for scored in self._scored}

    @property
    def scalings(self) -> tuple[Scaling | None, Scaling | None]:
        """The scaling of the inputs and that of the targets; None for what is as in its source.

        They may follow from the data, and be known once it is loaded.
        """
        return None, None

    def in_units(self, values: Tensor) -> Tensor:
        """Return outputs of the head, or targets (…, outputs), in the units of the scores.

        They are the same unless a task scales its targets.
        """
        scaling = self.scalings[1]
        return scaling.invert(values) if scaling else values

    @staticmethod
    def floats(outputs: Tensor) -> Tensor:
        """Return outputs in at least the precision of float32."""
        return outputs if outputs.dtype == torch.float64 else outputs.float()

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

    def iterate_targets(self, split: str, size: int, chunk: int) -> Iterator[Batch]:
        """Yield the batches of ``iterate``, whose inputs may be left out."""
        return self.iterate(split, size, chunk)

    def sequences(self, split: str, chunk: int) -> Split:
        """Return the sequences of a split as stored; a text is cut into pieces of ``chunk``."""
        raise NotImplementedError

    def to_batch(self, data: Sequences) -> Batch:
        """Return stored sequences as a batch: floats, or tokens as int64."""
        raise NotImplementedError

    def transformed(self, batch: Batch, seed: int, step: int) -> Batch:
        """Return a batch with the random changes that training batches get; without, as it is."""
        return batch

    def split(self, name: str) -> Any:
        """Return the loaded data of a split; a UserError names the closest split."""
        if not self.splits:
            raise UserError(f"task '{self.name}' has no data yet: call load(device) first.")
        if name not in self.splits:
            raise unknown("split", name, SPLITS)
        return self.splits[name]

    def _find_metrics(self, metrics: Sequence[str | Mapping[str, Any]]) -> tuple[ScoredMetric, ...]:
        return find_metrics(metrics, self.target, f"task '{self.name}'")

    def _make_loss(self, loss: str | Loss | Callable[..., Tensor], **options: Any) -> Loss:
        function = make_loss(loss, **options)
        if function.targets and self.target.name not in function.targets:
            kinds = ", ".join(function.targets)
            raise UserError(
                f"task '{self.name}': the loss '{loss}' is for targets of kind {kinds}, not "
                f"'{self.target.name}'."
            )
        return function

    def _validate(self, name: str, split: Any) -> Any:
        """Return a split as tensors on ``self.device``; a UserError says what does not fit."""
        raise NotImplementedError

    def _prepare(self) -> None:
        """Set what follows from the data of all splits; called at the end of ``load``."""
