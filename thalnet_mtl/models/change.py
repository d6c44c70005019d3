"""What a change of the topology did to every parameter, so that an optimizer can follow it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.body import StateLayout
from thalnet_mtl.models.readings.base import IndexMap

ELEMENTWISE_OPTIMIZERS = (SGD, Adam, AdamW, RMSprop)


@dataclass(frozen=True)
class ResizedParameter:
    """A parameter that was replaced by one of another shape."""

    old: nn.Parameter
    new: nn.Parameter
    remap: IndexMap


@dataclass(frozen=True)
class TopologyChange:
    """What one verb did. Parameters are named as in ``network.named_parameters()``.

    Whatever is in none of these is untouched. ``added`` are new or learn again, ``removed`` are
    gone or do not learn any more.
    """

    verb: str
    about: str
    grown: Mapping[str, ResizedParameter] = field(default_factory=dict)
    added: Mapping[str, nn.Parameter] = field(default_factory=dict)
    removed: Mapping[str, nn.Parameter] = field(default_factory=dict)
    layouts: Mapping[str, tuple[StateLayout, StateLayout]] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.verb} {self.about}"

    def update_optimizer(self, optimizer: Optimizer, group: int | None = 0) -> None:
        """Bring an optimizer along; call it for every change, in the order in which they were made.

        Untouched parameters keep their state to the bit. Grown ones keep theirs in the old part
        and start at zero in the new part. Removed ones leave, with their state. Added ones join
        the parameter group of that number, without a state; None leaves them out.

        Raises:
            UserError: the optimizer is none of SGD, Adam, AdamW, RMSprop: what its state means,
                and how it would have to follow, is not known.
        """
        if type(optimizer) not in ELEMENTWISE_OPTIMIZERS:
            names = ", ".join(kind.__name__ for kind in ELEMENTWISE_OPTIMIZERS)
            raise UserError(
                f"the state of {type(optimizer).__name__} cannot be carried through a change of "
                f"the network. Allowed: {names}; or make a new optimizer."
            )
        if group is not None and not 0 <= group < len(optimizer.param_groups):
            raise UserError(
                f"group must be from 0 to {len(optimizer.param_groups) - 1}, got {group}."
            )
        grown = {id(change.old): change for change in self.grown.values()}
        gone = {id(parameter) for parameter in self.removed.values()}
        for options in optimizer.param_groups:
            kept = [p for p in options["params"] if id(p) not in gone]
            options["params"][:] = [grown[id(p)].new if id(p) in grown else p for p in kept]
        for parameter in self.removed.values():
            optimizer.state.pop(parameter, None)
        for change in self.grown.values():
            if change.old in optimizer.state:
                state = optimizer.state.pop(change.old)
                optimizer.state[change.new] = {
                    key: _carried(value, change) for key, value in state.items()
                }
        if group is not None:
            there = {id(p) for options in optimizer.param_groups for p in options["params"]}
            optimizer.param_groups[group]["params"] += [
                parameter for parameter in self.added.values() if id(parameter) not in there
            ]

    def update_state(self, task: str, state: Any) -> Any:
        """The carried state of a task, for the modules that run for it now.

        What new modules hold is zero, as at the start of a sequence.
        """
        if state is None or task not in self.layouts:
            return state
        before, after = self.layouts[task]
        if before == after:
            return state
        return type(state)(*(_moved(part, before, after, k) for k, part in enumerate(state)))


def record_change(
    verb: str,
    about: str,
    network: nn.Module,
    layouts: Callable[[], Mapping[str, StateLayout]],
    act: Callable[[], Mapping[str, IndexMap] | None],
) -> TopologyChange:
    """Change a network by ``act``, and compare it before and after.

    ``act`` returns how the shape of parameters changed, by name; ``layouts`` says what the state
    of every task consists of.
    """
    before, was = dict(network.named_parameters()), layouts()
    learned = {name for name, parameter in before.items() if parameter.requires_grad}
    remaps = act() or {}
    after, now = dict(network.named_parameters()), layouts()
    learns = {name for name, parameter in after.items() if parameter.requires_grad}
    removed = {name: before[name] for name in before if name in learned - learns}
    for parameter in removed.values():
        parameter.grad = None
    return TopologyChange(
        verb,
        about,
        grown={
            name: ResizedParameter(before[name], after[name], remap)
            for name, remap in remaps.items()
        },
        added={name: after[name] for name in after if name in learns - learned},
        removed=removed,
        layouts={task: (was[task], now[task]) for task in was if task in now},
    )


def _carried(value: Any, change: ResizedParameter) -> Any:
    """Moments have the shape of their parameter; anything else, as a count of steps, is kept."""
    moment = isinstance(value, Tensor) and value.shape == change.old.shape and value.ndim > 0
    return change.remap(value) if moment else value


def _moved(part: Tensor, before: StateLayout, after: StateLayout, width: int) -> Tensor:
    places: dict[str, range] = {}
    start = 0
    for name, widths in before.items():
        places[name] = range(start, start + widths[width])
        start += widths[width]
    source: list[int | None] = []
    for name, widths in after.items():
        source += places.get(name, [None] * widths[width])
    return IndexMap(1, tuple(source))(part)
