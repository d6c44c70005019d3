"""Records of topology changes, by which optimizers and carried states follow them."""

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
    """A record of what a change of the topology did to the parameters and states of a network.

    Parameters are named as in ``network.named_parameters()``; those without an entry are untouched.

    Args:
        verb: name of the method that made the change.
        about: its arguments, in words.
        grown: parameters that were replaced by one of another shape.
        added: parameters that are new, or trainable again.
        removed: parameters that were removed, or are frozen now.
        layouts: by task, the layout of its state before and after.
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
        """Update the parameters and the state of an optimizer.

        Call it for every change, in the order in which the changes were made. Untouched parameters
        keep their state, bit for bit. Grown parameters keep it in their old part; it is zero in the
        new part. Removed parameters leave, with their state. Added parameters join the parameter
        group of index ``group``, without a state; None leaves them out.

        Raises:
            UserError: the optimizer is none of SGD, Adam, AdamW and RMSprop, so that the meaning of
                its state is not known.
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
        removed = {id(parameter) for parameter in self.removed.values()}
        for options in optimizer.param_groups:
            remaining = [p for p in options["params"] if id(p) not in removed]
            options["params"][:] = [grown[id(p)].new if id(p) in grown else p for p in remaining]
        for parameter in self.removed.values():
            optimizer.state.pop(parameter, None)
        for change in self.grown.values():
            if change.old in optimizer.state:
                state = optimizer.state.pop(change.old)
                optimizer.state[change.new] = {
                    key: _remapped(value, change) for key, value in state.items()
                }
        if group is not None:
            optimized = {id(p) for options in optimizer.param_groups for p in options["params"]}
            optimizer.param_groups[group]["params"] += [
                parameter for parameter in self.added.values() if id(parameter) not in optimized
            ]

    def update_state(self, task: str, state: Any) -> Any:
        """Return the carried state of a task in its layout after the change.

        The state of new modules is zero, as at the start of a sequence.
        """
        if state is None or task not in self.layouts:
            return state
        before, after = self.layouts[task]
        if before == after:
            return state
        return type(state)(*(_rearranged(x, before, after, k) for k, x in enumerate(state)))


def record_change(
    verb: str,
    about: str,
    network: nn.Module,
    layouts: Callable[[], Mapping[str, StateLayout]],
    act: Callable[[], Mapping[str, IndexMap] | None],
) -> TopologyChange:
    """Change a network by ``act`` and return the difference between before and after.

    ``act`` returns how the shapes of parameters changed, by name; ``layouts`` returns the layout of
    the state of every task.
    """
    before, old_layouts = dict(network.named_parameters()), layouts()
    old_trainable = {name for name, parameter in before.items() if parameter.requires_grad}
    remaps = act() or {}
    after, new_layouts = dict(network.named_parameters()), layouts()
    trainable = {name for name, parameter in after.items() if parameter.requires_grad}
    removed = {name: before[name] for name in before if name in old_trainable - trainable}
    for parameter in removed.values():
        parameter.grad = None
    return TopologyChange(
        verb,
        about,
        grown={
            name: ResizedParameter(before[name], after[name], remap)
            for name, remap in remaps.items()
        },
        added={name: after[name] for name in after if name in trainable - old_trainable},
        removed=removed,
        layouts={
            task: (layout, new_layouts[task])
            for task, layout in old_layouts.items()
            if task in new_layouts
        },
    )


def _remapped(value: Any, change: ResizedParameter) -> Any:
    """Remap a moment, which has the shape of its parameter; return other values as they are."""
    moment = isinstance(value, Tensor) and value.shape == change.old.shape and value.ndim > 0
    return change.remap(value) if moment else value


def _rearranged(part: Tensor, before: StateLayout, after: StateLayout, index: int) -> Tensor:
    """Return the features (index 0) or the memory (index 1) of a state in another layout."""
    places: dict[str, range] = {}
    start = 0
    for name, widths in before.items():
        places[name] = range(start, start + widths[index])
        start += widths[index]
    source: list[int | None] = []
    for name, widths in after.items():
        source += places.get(name, [None] * widths[index])
    return IndexMap(1, tuple(source))(part)
