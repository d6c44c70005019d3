"""The contract of a callback: hooks that are called while a run trains."""

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.network import Network
from thalnet_mtl.runs.results import RunResult
from thalnet_mtl.runs.topology_file import ChangeEntry, DecisionEntry
from thalnet_mtl.strategies.base import check_hooks
from thalnet_mtl.tasks.stream import Experience
from thalnet_mtl.training.context import RunContext


class RunView:
    """The view that a callback has of the run that it is part of.

    Everything is to be looked at, not to be changed; only ``stop`` has an effect on the run.

    Attributes:
        folder: the run directory.
        group: name of the runs that this one belongs to, such as the seeds of a sweep; '' if none.
        resumed_at: the step at which the run resumed; None if it begins.
    """

    def __init__(self, run: RunContext, folder: Path, group: str = ""):
        self._run, self.folder, self.group = run, folder, group
        self.resumed_at: int | None = None
        self.stop_reason: str | None = None  # None: nobody asked to stop

    @property
    def config(self) -> Config:
        """The configuration of the run."""
        return self._run.config

    @property
    def network(self) -> Network:
        """The network that is trained; it may be replaced, so read it from here each time."""
        return self._run.network

    @property
    def step(self) -> int:
        """The number of optimizer steps so far."""
        return self._run.step

    @property
    def total_steps(self) -> int:
        """The number of steps of all experiences."""
        return self._run.total_steps

    @property
    def experience(self) -> Experience:
        """The experience that the last step belongs to; before the first step, the first one."""
        return self._run.last_experience

    def stop(self, reason: str = "") -> None:
        """Ask to end the experience after this step: a run without a stream ends.

        What follows an experience is done as usual: validation, tests, growth. With
        ``train.patience`` a stream also restores the best weights of the experience. If no
        experience is trained, as in ``on_experience_end``, the next one ends after its first step.

        Args:
            reason: that is shown to the user.

        Raises:
            UserError: the boundaries of the stream are hidden, so that its steps are planned.
        """
        if not self._run.announced:
            raise UserError(
                "a callback cannot stop a stream with hidden boundaries, whose steps are planned."
            )
        self.stop_reason = reason


class Callback:
    """Hooks that are called while a run trains. Override those that you need.

    Give it to a run in Python, ``train(config, folder, callbacks=[Patient()])``. Or register it
    with ``@register("tracker", NAME)`` in a file of your own, and name it in a configuration:
    ``thalnet train digits mine.py --trackers tensorboard,NAME``. The arguments of its ``__init__``
    are then its options: ``trackers: [{name: NAME, loss: 0.1}]``.

    >>> class StopAtLoss(Callback):
    ...     def __init__(self, loss: float = 0.1):
    ...         self.loss = loss
    ...     def on_log(self, run, step, values):
    ...         losses = [v for name, v in values.items() if name.endswith("/loss/train")]
    ...         if max(losses) < self.loss:
    ...             run.stop(f"every loss is below {self.loss}")

    An error in a callback ends the run, as one in a strategy does; see ``Tracker`` for a callback
    of which no failure ends a run. A run that has finished calls none. Each hook gets the run
    first.

    Raises:
        UserError: when a subclass is defined with a hook that does not exist, or that does not take
            the arguments of the hook.
    """

    _contract: ClassVar[type]  # the class whose public methods are hooks

    def __init_subclass__(cls, contract: bool = False, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if contract:
            cls._contract = cls
        check_hooks(cls, cls._contract, cls._contract.__name__.lower(), prefix="on_")
        for name in HOOKS:
            hook, theirs = getattr(Callback, name), getattr(cls, name)
            names = list(signature(hook).parameters)
            try:
                signature(theirs).bind(*names)
            except TypeError:
                raise UserError(
                    f"callback {cls.__name__}: {name} is called with {', '.join(names[1:])}: "
                    f"def {name}({', '.join(names)})."
                ) from None

    def on_start(self, run: RunView) -> None:
        """Called before the first step of a run, or before it goes on (``run.resumed_at``)."""

    def on_step_end(self, run: RunView, losses: Mapping[str, Tensor]) -> None:
        """Called after every step, with the loss of each task on the device.

        It is -∞ for a task that was not part of the step. A value that is read waits for a GPU.
        """

    def on_log(self, run: RunView, step: int, values: Mapping[str, float]) -> None:
        """Called every ``evaluate.log_every`` steps.

        The values are, by task, the mean loss since the last time (``TASK/loss/train``) and the
        learning rate (``TASK/learning_rate/train``); and of the run the norm of the gradient of the
        last step before clipping (``training/gradient_norm``; not where runs are stacked) and the
        training steps a second since the last time (``training/steps_per_second``).
        """

    def on_evaluation(
        self, run: RunView, step: int, split: str, scores: Mapping[str, Mapping[str, float]]
    ) -> None:
        """Called after tasks were scored on a split, with loss and metrics by task."""

    def on_change(self, run: RunView, change: ChangeEntry) -> None:
        """Called after a change of the network's topology."""

    def on_decision(self, run: RunView, decision: DecisionEntry) -> None:
        """Called after a decision of the rule of growth, before the changes that follow from it."""

    def on_experience_end(
        self, run: RunView, experience: Experience, measures: Mapping[str, float]
    ) -> None:
        """Called after an experience and its tests.

        The measures of the stream so far are by their names in ``metrics.summary.MEASURES``:
        ``average_accuracy``, ``forgetting`` and more; those that have no value are left out.
        """

    def on_finish(self, run: RunView, result: RunResult) -> None:
        """Called when a run has finished, with its result, which is saved by then."""

    def on_exit(self, run: RunView) -> None:
        """Called last, also where a run was interrupted or has failed."""


Callback._contract = Callback
HOOKS = [name for name in vars(Callback) if name.startswith("on_")]
