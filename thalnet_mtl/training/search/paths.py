"""The rule of growth for hidden boundaries: when the data change, an old path or a new one."""

import math
from dataclasses import replace
from typing import Annotated, Any, ClassVar, NamedTuple

from torch import Tensor, nn

from thalnet_mtl.config.schema import Config
from thalnet_mtl.config.values import Range
from thalnet_mtl.errors import UserError
from thalnet_mtl.json_fields import require, typed
from thalnet_mtl.models.change import TopologyChange
from thalnet_mtl.models.path_choice import PathChooser
from thalnet_mtl.models.size import count_parameters
from thalnet_mtl.registry import register
from thalnet_mtl.runs.topology_file import DecisionEntry
from thalnet_mtl.strategies.penalty import to_device
from thalnet_mtl.tasks.batch import Batch
from thalnet_mtl.tasks.task_stream import TaskStream
from thalnet_mtl.training.change_detection import WARMUP, Cusum
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.growth.base import GrowthRule
from thalnet_mtl.training.growth.modules import freeze_tasks
from thalnet_mtl.training.search.candidates import Candidate, apply
from thalnet_mtl.training.search.new_path import alone, largest, searched
from thalnet_mtl.training.search.path_comparison import NEW, Comparison, compare
from thalnet_mtl.training.search.path_network import (
    PathNetwork,
    fit_chooser,
    parameters_of,
    restore,
)
from thalnet_mtl.training.search.rule import check_modules

TRIALS = 5  # comparisons of a new path with old ones
SNAPSHOTS = 5  # earlier states of the path that trains
SAMPLES = 1_000  # last sequences of a path that say what its inputs are like


class Snapshot(NamedTuple):
    """A path as it was at a step: its parameters, and mean and deviation of its losses."""

    step: int
    mean: float
    deviation: float
    parameters: dict[str, Tensor]


@register("growth", "paths")
class Paths(GrowthRule):
    """Paths with hidden boundaries: a detected change returns to an old path, or adds a new one.

    A path is a head with its modules; the first has the name of the head that all tasks share, the
    others are ``path2``, ``path3``, …. One path trains, and the others are frozen. ``Cusum``
    detects a change by the losses. After ``recent`` more batches, the path is as it was before the
    losses rose, and the mean losses of all paths on these batches are compared. A path fits if its
    mean is at most m + tolerance · s / √recent, with the mean m and the deviation s of its own
    losses when it was left. The best that fits goes on, and trains again. If that is the path that
    trains, the alarm was false, and nothing is changed. If none fits, a new path begins: with
    ``growth.modules`` of its own, or with ``budget`` as a search on these batches decides. While
    the data of two tasks mix, no path fits. So a new path is on trial: for five times, after
    ``recent`` steps, the old paths are compared again, and if one fits by then, it goes on, and
    the new path is removed.

    Scores are those of the path that fits the inputs of each sequence best, see ``PathChooser``,
    from up to 1,000 of the last sequences of each path. So tasks with the same inputs and other
    labels are told apart in training, but not in scores.

    Args:
        run: the run that the rule is part of.
        recent: batches on which paths are compared.
        tolerance: standard errors by which the loss of an old path may be higher than it was.
        most: paths; with so many, or no room in ``model.budget``, the path that trains goes on.
        budget: steps with which a search for a new path reckons; 0: it has modules of its own.
        price: cost of as many parameters as a task alone would get, in the search for a new path,
            as a share of the loss of guessing.
        allowance: rise of the losses that is no change, in their standard deviations.
        threshold: sum of the rises beyond it at which a change is detected, in standard deviations.
        window: losses over which their mean and deviation are taken.

    Raises:
        UserError: boundaries are announced, or a strategy protects what paths protect.
    """

    needs_boundaries: ClassVar[str] = ""

    def __init__(
        self,
        run: RunContext,
        recent: Annotated[int, Range(low=2)] = 20,
        tolerance: Annotated[float, Range(low=0.0)] = 3.0,
        most: Annotated[int, Range(low=1)] = 8,
        budget: Annotated[int, Range(low=0)] = 0,
        price: Annotated[float, Range(low=0.0)] = 0.02,
        allowance: Annotated[float, Range(low=0.0)] = 0.5,
        threshold: Annotated[float, Range(low=0.0)] = 8.0,
        window: Annotated[int, Range(low=2)] = 50,
    ):
        super().__init__(run)
        if run.task_stream is None:
            raise UserError(
                "growth.when paths detects hidden boundaries; set train.boundaries to hidden, or "
                "growth.when to search."
            )
        self.recent, self.tolerance = recent, tolerance
        self.most, self.budget, self.price = most, budget, price
        self.detector = Cusum(allowance, threshold, window)
        self.snapshots: list[Snapshot] = []  # the path that trains, at some of the last steps
        self.onset = self.alarm = -1  # steps: losses rise; they are found to; -1: they do not
        self.spans: list[tuple[str, int, int]] = []  # paths that were left, with their steps
        self.start = 0  # of the path that trains
        self.trials = 0  # comparisons left for a new path
        self.typical: dict[str, tuple[float, float]] = {}  # of paths that were left: m and s
        self._fitted: tuple[tuple[int, int], PathChooser] | None = None  # step, paths left

    @classmethod
    def check_config(cls, config: Config) -> None:
        """Raise ``UserError`` if paths cannot be built or frozen as configured."""
        if config.train.strategy != "naive":
            raise UserError(
                f"growth.when paths freezes the paths that do not train, so that there is nothing "
                f"for train.strategy {config.train.strategy} to protect; leave it at naive."
            )
        check_modules(config)

    @property
    def stream(self) -> TaskStream:
        """The stream as the task that is learned; its head is that of the path that trains."""
        assert self.run.task_stream is not None
        return self.run.task_stream

    @property
    def active(self) -> str:
        """The path that trains."""
        return self.stream.head_name

    def begin_experience(self) -> list[TopologyChange]:
        return []  # the first path is there

    def after_step(self, loss: float) -> None:
        if self.alarm >= 0 or not math.isfinite(loss):
            return
        step, detector = self.run.step, self.detector
        if step % self.recent == 0 and detector.count >= WARMUP:
            numbers = step, detector.mean, math.sqrt(detector.variance)
            snapshot = Snapshot(*numbers, parameters_of(self.network, self.active))
            self.snapshots = [*self.snapshots[1 - SNAPSHOTS :], snapshot]
        if detector.update(loss):
            self.onset, self.alarm = max(step + 1 - detector.rise, self.start), step

    def before_step(self) -> list[TopologyChange]:
        if self.alarm >= 0:
            if self.run.step <= self.alarm + self.recent:
                return []
            return self.react()
        steps = self.run.step - self.start - self.recent  # since the path began
        if not self.trials or steps <= 0 or steps % self.recent:
            return []
        self.trials -= 1
        return self.compare_again()

    def react(self) -> list[TopologyChange]:
        """Choose the path that goes on after a change. Returns the changes of the network."""
        active, onset, alarm = self.active, self.onset, self.alarm
        self.onset = self.alarm = -1
        before = next((each for each in reversed(self.snapshots) if each.step < onset), None)
        if before is None:  # the path has hardly begun
            return []
        now = parameters_of(self.network, self.active)
        restore(self.network, before.parameters)
        typical = self.typical | {active: (before.mean, before.deviation)}
        compared = self.compare(typical)
        best = compared.best(NEW)
        full = best == NEW and not self.has_room()
        best = active if full else best
        reason = f"losses rise from step {onset:,} on; in {self.recent} batches then {compared}"
        self.note(compared, best, reason + "; there is no room for another path" * full)
        if best == active:
            restore(self.network, now)
            return []
        self.typical, self.snapshots = typical, []
        self.spans.append((active, self.start, onset))
        changes = freeze_tasks(self.network, self.network.adapters)
        if best == NEW:
            best = f"path{len(self.network.adapters) + 1}"
            changes += self.add(best)
            self.trials = TRIALS
        else:
            changes.append(self.network.unfreeze(task=best))
            self.trials = 0
        self.stream.head_name, self.start = best, alarm + 1
        return changes

    def compare_again(self) -> list[TopologyChange]:
        """Go back to an old path, and remove the new one, if it fits now. Returns the changes."""
        network, new = self.network, self.active
        compared = self.compare(self.typical)
        best = compared.best(new)
        if best == new:
            return []
        reason = f"in the last {self.recent} batches {compared}, so that {new} is removed"
        self.note(compared, best, reason)
        changes = [network.remove_task(new), network.unfreeze(task=best)]
        added = [name for name in network.body.graph or () if name.startswith(f"{new}_")]
        changes += [network.detach(name) for name in reversed(added)]
        self.stream.head_name, self.start = best, self.run.step - self.recent
        self.trials, self.snapshots = 0, []
        self.detector.restart()
        return changes

    def compare(self, typical: dict[str, tuple[float, float]]) -> Comparison:
        """Compare the paths on the recent batches."""
        errors = self.tolerance / math.sqrt(self.recent)
        return compare(self.network, self.stream, self.recent_batch(), typical, errors)

    def recent_batch(self) -> Batch:
        """Return the recent batches as one."""
        step = self.run.step
        return self.stream.concatenate([self.batch(k) for k in range(step - self.recent, step)])

    def add(self, path: str) -> list[TopologyChange]:
        """Add a path, with modules of its own or as a search on the recent batches decides."""
        run, network, batch = self.run, self.network, self.recent_batch()
        if not self.budget or len(batch.ys.unique(dim=0)) < 2:
            return alone(network, run.config, self.stream.spec, path)
        changes, record = searched(
            network, run.config, self.stream, path, batch, self.budget, self.price
        )
        logged, number = len(run.state.topology_log), self.experience.number
        self.record(replace(record, step=run.step, changes=logged, experience=number))
        return changes

    def has_room(self) -> bool:
        """Return whether there may be another path, by ``most`` and by the budget."""
        budget, size = self.run.config.model.budget, count_parameters(self.network)
        room = not budget or size + self.largest()[1] <= budget
        return len(self.network.adapters) < self.most and room

    def largest(self) -> tuple[Candidate, int]:
        """Return what a new path may get that has the most parameters, and their number."""
        return largest(self.network, self.run.config, self.stream.spec, bool(self.budget))

    def rehearse_within(self) -> list[TopologyChange]:
        network, path = self.network, f"path{len(self.network.adapters) + 1}"
        return apply(self.largest()[0], network, self.run.config, {path: self.stream.spec}, path)

    def batch(self, step: int) -> Batch:
        """Return the training batch of an earlier step."""
        options = self.run.config.train
        return self.stream.training_batch(step, options.batch, options.chunk, options.seed)

    def note(self, compared: Comparison, chosen: str, reason: str) -> None:
        """Record a decision for a path, and why."""
        self.record(
            DecisionEntry(
                step=self.run.step,
                changes=len(self.run.state.topology_log),
                experience=self.experience.number,
                task=self.active,
                about="path",
                reason=reason,
                candidates=compared.candidates(chosen, self.largest()[1]),
            )
        )

    def scored_network(self) -> nn.Module:
        if not self.spans:
            return self.network
        now = self.run.step, len(self.spans)
        if self._fitted is None or self._fitted[0] != now:
            spans = [*self.spans, (self.active, self.start, self.run.step)]
            batches = {
                path: [self.batch(step) for step in self.last_steps(path, spans)]
                for path in self.network.adapters
            }
            self._fitted = now, fit_chooser(self.stream, batches)
        return PathNetwork(self.network, self._fitted[1])

    def last_steps(self, path: str, spans: list[tuple[str, int, int]]) -> list[int]:
        """Return the last steps in which a path was trained, enough for ``SAMPLES`` sequences."""
        steps = [k for name, start, stop in spans if name == path for k in range(start, stop)]
        return steps[-max(2, SAMPLES // self.stream.size) :]

    def state_dict(self) -> dict[str, Any]:
        return {
            "active": self.active,
            "start": self.start,
            "trials": self.trials,
            "onset": self.onset,
            "alarm": self.alarm,
            "detector": self.detector.state_dict(),
            "snapshots": [list(snapshot) for snapshot in self.snapshots],
            "spans": [list(span) for span in self.spans],
            "typical": {path: list(numbers) for path, numbers in self.typical.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        require(state, self.state_dict(), "paths")
        self.stream.head_name = typed(state["active"], str, "paths: active")
        for name in ("start", "trials", "onset", "alarm"):
            setattr(self, name, typed(state[name], int, f"paths: {name}"))
        self.detector.load_state_dict(typed(state["detector"], dict[str, Any], "paths: detector"))
        self.snapshots = [
            Snapshot(step, mean, deviation, to_device(parameters, self.run.device))
            for step, mean, deviation, parameters in state["snapshots"]
        ]
        self.spans = [(path, start, stop) for path, start, stop in state["spans"]]
        self.typical = {path: (mean, s) for path, (mean, s) in state["typical"].items()}
