"""The contract of a continual-learning strategy, and the strategy that does nothing."""

import difflib
from collections.abc import Mapping
from inspect import Parameter, signature
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.change import TopologyChange
from thalnet_mtl.models.cost import stored_bytes
from thalnet_mtl.models.network import Network
from thalnet_mtl.registry import register
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.batch import Batch
from thalnet_mtl.tasks.stream import Experience

LIKE_A_HOOK = 0.8  # the similarity of names from which a method is taken for a misspelt hook


class TrainingContext(Protocol):
    """The view that a strategy has of the training run that it is part of.

    Everything is read only. The network changes its topology during a run and may be replaced, so
    read it from the context each time.
    """

    @property
    def network(self) -> Network:
        """The network that is trained."""
        ...

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The tasks of the run by name, with their data loaded."""
        ...

    @property
    def device(self) -> torch.device:
        """The device of the network, the batches and the losses."""
        ...

    @property
    def seed(self) -> int:
        """The seed of the run (``train.seed``)."""
        ...

    @property
    def step(self) -> int:
        """The number of optimizer steps so far."""
        ...

    @property
    def experience(self) -> Experience:
        """The experience that the next step belongs to; after the last step, the last one."""
        ...

    @property
    def announced(self) -> bool:
        """Whether a strategy is told where an experience ends (``train.boundaries``).

        If not, ``after_experience`` is never called, and the stream is one task in one experience.
        """
        ...

    @property
    def trainable_tasks(self) -> set[str]:
        """The tasks that depend on at least one parameter that is not frozen."""
        ...

    @property
    def chunk(self) -> int:
        """The number of tokens in a training sequence of a text (``train.chunk``)."""
        ...

    def batch_size(self, task: str | None = None) -> int:
        """Return the sequences in a training batch of a task; without one, ``train.batch``."""
        ...

    def loss_weight(self, task: str) -> float:
        """Return the factor of the loss of a task (``tasks.NAME.weight``)."""
        ...

    def configure_network(self, network: Network) -> None:
        """Give a network the dropout rate and the backend of this run."""
        ...


class StepLoop(Protocol):
    """The part of a trainer that takes the steps of a run."""

    def run_steps(self) -> None:
        """Take all remaining steps: train, log, validate, save checkpoints, end experiences."""
        ...


def check_subclass(subclass: type, base: type, kind: str, first: str) -> None:
    """Check a class of a user that is called by name, when it is defined.

    Args:
        subclass: the class.
        base: the class whose public methods are hooks.
        kind: of the class, for the error.
        first: name of the first argument of ``__init__``, which has no default.

    Raises:
        UserError: ``__init__`` has no such argument, or a public method has nearly the name of a
            hook.
    """
    parameters = [*signature(subclass).parameters.values()][:1]
    if not parameters or parameters[0].default is not Parameter.empty:
        raise UserError(
            f"{kind} {subclass.__name__}: __init__ takes the {first} first, before its options: "
            f"def __init__(self, {first}, …), and super().__init__({first})."
        )
    check_hooks(subclass, base, kind)


def check_hooks(subclass: type, base: type, kind: str, prefix: str = "") -> None:
    """Raise ``UserError`` if a public method has nearly the name of a hook, and so never runs.

    Args:
        subclass: the class of a user.
        base: the class whose public methods are hooks.
        kind: of the class, for the error.
        prefix: that only names of hooks have; '' if there is none.
    """
    hooks = [n for n in dir(base) if callable(getattr(base, n)) and not n.startswith("_")]
    for name in dir(subclass):
        hook = callable(getattr(subclass, name)) and not name.startswith("_")
        if not hook or hasattr(base, name):
            continue
        wrong = bool(prefix) and name.startswith(prefix)
        cutoff = 0.0 if wrong else LIKE_A_HOOK
        if closest := difflib.get_close_matches(name, hooks, n=1, cutoff=cutoff):
            raise UserError(
                f"{kind} {subclass.__name__}: no hook is called '{name}', so it would never run. "
                f"Did you mean '{closest[0]}'?"
            )


class Strategy:
    """A continual-learning strategy: hooks of the training loop that protect earlier experiences.

    A training step calls, in this order, ``rehearsed_tasks``, ``after_backward``, ``penalty``,
    ``before_update`` and ``after_update``. Override the hooks that you need; by default they do
    nothing. A strategy is built once, from a complete context, before the first step. Register it
    with ``@register("strategy", NAME)``. The further arguments of its ``__init__`` are its options
    in a configuration: ``strategy: {strength: 3}`` or ``--strategy.strength 3``.

    >>> class L2(Strategy):
    ...     def __init__(self, context, strength: float = 1.0):
    ...         super().__init__(context)
    ...         self.strength, self.old = strength, None
    ...     def after_experience(self, experience):
    ...         parameters = self.context.network.named_parameters()
    ...         self.old = {name: p.detach().clone() for name, p in parameters}
    ...     def penalty(self, batches):
    ...         if self.old is None:
    ...             return None
    ...         parameters = dict(self.context.network.named_parameters())
    ...         terms = [(parameters[n] - old).square().sum() for n, old in self.old.items()]
    ...         return self.strength * sum(terms)

    Its attributes are part of a checkpoint, so that an interrupted run goes on to the same bits:
    tensors, numbers and texts, also in lists and mappings. A strategy that keeps anything else
    overrides ``state_dict`` and ``load_state_dict``, or says ``resumable = False``: then no
    checkpoint to resume from is saved, and an interrupted run starts again.

    ``only_after_experience`` says that a strategy has no effect before the end of the first
    experience; a run of one experience says so. ``needs_boundaries`` says why it cannot work with
    hidden boundaries; '' if it can.

    Where several processes train a run (``torchrun``), each has its strategy. Batches in the hooks
    are whole, and gradients in ``after_backward`` are those of whole batches, so that a strategy
    needs nothing for it but to do the same in every process: random numbers are those of torch, and
    nothing depends on the time or the rank. Processes that differ end with an error when the run is
    saved. What a strategy computes for itself, such as a penalty, each of them computes.

    Raises:
        UserError: when a subclass is defined whose ``__init__`` does not take the context first, or
            with a public method that would never be called, because its name is nearly that of a
            hook.
    """

    resumable: ClassVar[bool] = True
    only_after_experience: ClassVar[bool] = False
    needs_boundaries: ClassVar[str] = (
        "it does not say that it works by step; if it does, set needs_boundaries = ''"
    )
    notice: str = ""  # a sentence for the user before the first step

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        check_subclass(cls, Strategy, "strategy", "context")

    def __init__(self, context: TrainingContext):
        self.context = context

    def fit(self, trainer: StepLoop) -> None:
        """Train from the current step to the end of the run.

        Override this if another library takes the steps.
        """
        trainer.run_steps()

    def rehearsed_tasks(self, batches: Mapping[str, Batch]) -> list[str]:
        """Return earlier tasks whose parameters also get gradients in this step.

        Called before the backward pass, with the batches of the step by task.
        """
        return []

    def after_backward(self) -> None:
        """Called after the backward pass of the task losses, before the penalty is added."""

    def penalty(self, batches: Mapping[str, Batch]) -> Tensor | None:
        """Return a scalar tensor that is added to the task losses of this step, or None.

        Called after ``after_backward``; its gradients are added to those of the task losses.
        """
        return None

    def before_update(self) -> None:
        """Called when all gradients are there, before clipping; they may be changed in place."""

    def after_update(self, batches: Mapping[str, Batch]) -> None:
        """Called after the optimizer step that learned from these batches."""

    def after_experience(self, experience: Experience) -> None:
        """Called after the last step of an experience, before the tests that follow it."""

    def after_topology_change(self, change: TopologyChange) -> None:
        """Called after each change of the network's topology, with a record of the change."""

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values, enough to resume from a checkpoint.

        By default these are all attributes but the context.

        Raises:
            UserError: an attribute is something else, which a checkpoint cannot hold.
        """
        state = {name: value for name, value in vars(self).items() if name != "context"}
        for name, value in state.items():
            for leaf in tree_leaves(value):
                plain = isinstance(leaf, Tensor | bool | int | float | str | None)
                if not plain or isinstance(leaf, nn.Parameter):  # of the network, say
                    raise UserError(
                        f"strategy {type(self).__name__} cannot be saved: attribute '{name}' holds "
                        f"a {type(leaf).__name__}. Override state_dict and load_state_dict, or set "
                        f"resumable = False."
                    )
        return state

    def stored_bytes(self) -> int | None:
        """Return the size of what the strategy stores, or None if it is unknown."""
        return stored_bytes(self.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state_dict``, whose tensors are on the CPU, to the device of the run."""
        device = self.context.device
        for name, value in state.items():
            setattr(self, name, tree_map_only(Tensor, lambda x: x.to(device), value))


@register("strategy", "naive")
class Naive(Strategy):
    """Plain training: each experience is learned as it comes, and nothing is protected."""

    needs_boundaries = ""


def add_penalty(strategy: Strategy, batches: Mapping[str, Batch]) -> None:
    """Add the gradients of the penalty of a strategy to those of the losses, if there is one.

    A zero that depends on no parameter, such as the sum of no terms, adds nothing.

    Raises:
        UserError: the penalty is no scalar, or depends on no parameter and is not zero.
    """
    penalty: Any = strategy.penalty(batches)
    if penalty is None:
        return
    is_tensor = isinstance(penalty, Tensor)
    scalar = penalty.numel() == 1 if is_tensor else isinstance(penalty, int | float)
    if is_tensor and scalar and penalty.requires_grad:
        penalty.backward()
    elif not scalar or penalty != 0:
        problem = "depends on no parameter" if scalar else "is no scalar"
        shape = f" of shape {tuple(penalty.shape)}" if is_tensor else ""
        raise UserError(
            f"strategy {type(strategy).__name__}: the penalty {problem}, got a "
            f"{type(penalty).__name__}{shape}. Return a tensor with one element that depends on "
            f"parameters, or None."
        )


def trainable_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are not frozen, by name."""
    return {name: p for name, p in network.named_parameters() if p.requires_grad}
