"""Records of topology changes, by which optimizers and carried states follow them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.body import StateLayout
from thalnet_mtl.models.followers import Follower, announce, unwrapped
from thalnet_mtl.models.optimizer_update import update_optimizer
from thalnet_mtl.models.parameter_changes import ParameterChanges, ResizedParameter
from thalnet_mtl.models.parts import named_parts
from thalnet_mtl.models.readings.base import IndexMap
from thalnet_mtl.topology.graph import ModuleGraph

Act = Callable[[Any], Mapping[str, IndexMap] | None]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TopologyChange(ParameterChanges):
    """A record of what a change of the topology did to the parameters and states of a network.

    Args:
        verb: name of the method that made the change.
        about: its arguments, in words.
        act: the change itself, of any network of the same topology. Returns how the shapes of
            parameters changed, by name.
        buffers: all buffers after the change.
        layouts: by task, the layout of its state before and after.
        graphs: of the modules before and after; None for a body without modules.
    """

    verb: str
    about: str
    act: Act = field(repr=False)
    buffers: Mapping[str, Tensor] = field(default_factory=dict)
    layouts: Mapping[str, tuple[StateLayout, StateLayout]] = field(default_factory=dict)
    graphs: tuple[ModuleGraph | None, ModuleGraph | None] = None, None

    def __str__(self) -> str:
        return f"{self.verb} {self.about}"

    def __repr__(self) -> str:
        new = sum(self.parameters[name].numel() for name in self.created)
        wider = sum(change.new.numel() - change.old.numel() for change in self.grown.values())
        frozen = sum(p.numel() for name, p in self.removed.items() if name not in self.deleted)
        trained = sum(p.numel() for name, p in self.added.items() if name not in self.created)
        counts = {"new": new, "in wider matrices": wider, "no longer trained": frozen,
                  "trained again": trained}  # fmt: skip
        parts = [f"{count:+,} {name}" for name, count in counts.items() if count]
        parts += [f"{len(self.deleted)} tensors removed"] * bool(self.deleted)
        return f"TopologyChange({self}; parameters: {', '.join(parts) or 'unchanged'})"

    def update_optimizer(
        self, optimizer: Optimizer, group: int | Literal["alike"] | None = "alike"
    ) -> None:
        """Update the parameters and the state of an optimizer.

        Call it for every change, in the order in which the changes were made. Untouched parameters
        keep their state, bit for bit. Grown parameters keep it in their old part; it is zero in the
        new part. Removed parameters leave, with their state. Added parameters join without a state,
        in the order of ``network.parameters()``.

        Args:
            optimizer: any whose state is elementwise: tensors of the shape of their parameter, and
                numbers. So are those of ``torch.optim`` except Adafactor and LBFGS.
            group: index of the parameter group that added parameters join. ``alike``: those that
                were frozen return to their group, new ones join the parameters of the same kind in
                other modules, so that vectors without weight decay stay together. None leaves them
                out.

        Raises:
            UserError: the state is not elementwise, or there is no such group; the optimizer is as
                it was.
        """
        update_optimizer(optimizer, self, group)

    def update_copy(self, copy: nn.Module) -> None:
        """Make the same change in a copy of the network, or in the ``module`` of an AveragedModel.

        Parameters and buffers that are kept have the values of the copy. New ones get those of the
        network; those of a clone get those of its source in the copy. Call it for every change, in
        the order in which the changes were made.

        Raises:
            UserError: the copy has not the topology of the network before the change.
        """
        copy = unwrapped(copy)
        before = dict(copy.named_parameters())
        names = self.parameters.keys() - self.created | self.deleted
        grown = all(before[n].shape == r.old.shape for n, r in self.grown.items() if n in before)
        if before.keys() != names or not grown:
            raise UserError(
                f"the copy is not that of the network before '{self}': update a copy with every "
                f"change, in the order in which they were made."
            )
        trained = any(parameter.requires_grad for parameter in before.values())
        old = {*before, *dict(copy.named_buffers())}
        current = {**self.parameters, **self.buffers}
        with torch.random.fork_rng([]), torch.no_grad():
            self.act(copy)
            for name, value in (*copy.named_parameters(), *copy.named_buffers()):
                if name not in old and self.verb != "clone":
                    value.copy_(current[name])
        if not trained:
            copy.requires_grad_(False)

    def update(self, follower: Follower) -> None:
        """Update an optimizer or a copy."""
        if isinstance(follower, Optimizer):
            self.update_optimizer(follower)
        else:
            self.update_copy(follower)

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
    graph: Callable[[], ModuleGraph | None],
    act: Act,
) -> TopologyChange:
    """Change a network by ``act`` and return the difference between before and after.

    Gradients that were accumulated before stay: grown parameters get theirs, zero in the new part.

    ``layouts`` returns the layout of the state of every task, ``graph`` that of the modules;
    ``act`` see ``TopologyChange``.
    """
    (before, _), old_layouts, old_graph = _named(network), layouts(), graph()
    old_trainable = {name for name, parameter in before.items() if parameter.requires_grad}
    remaps = act(network) or {}
    (after, buffers), new_layouts = _named(network), layouts()
    trainable = {name for name, parameter in after.items() if parameter.requires_grad}
    grown = {
        name: ResizedParameter(before[name], after[name], remap) for name, remap in remaps.items()
    }
    deleted = {n for n, old in before.items() if n not in grown and after.get(n) is not old}
    new = {n for n, p in after.items() if n not in grown and before.get(n) is not p}
    for resized in grown.values():
        gradient = resized.old.grad
        resized.new.grad = None if gradient is None else resized.remap(gradient)
    removed = {name: before[name] for name in before if name in old_trainable - trainable | deleted}
    for parameter in removed.values():
        parameter.grad = None
    change = TopologyChange(
        verb=verb,
        about=about,
        act=act,
        grown=grown,
        added={n: p for n, p in after.items() if n in trainable - old_trainable | new & trainable},
        removed=removed,
        deleted=frozenset(deleted),
        created=frozenset(new),
        parameters=after,
        buffers=buffers,
        layouts={
            task: (layout, new_layouts[task])
            for task, layout in old_layouts.items()
            if task in new_layouts
        },
        graphs=(old_graph, graph()),
    )
    announce(change, before.values())
    return change


def _named(network: nn.Module) -> tuple[dict[str, nn.Parameter], dict[str, Tensor]]:
    """Return parameters and buffers by name, in a single pass over the modules."""
    parameters, buffers, seen = dict[str, nn.Parameter](), dict[str, Tensor](), set[int]()
    for start, part in named_parts(network):
        for name, parameter in part._parameters.items():
            if parameter is not None and id(parameter) not in seen:
                seen.add(id(parameter))
                parameters[start + name] = parameter
        for name, buffer in part._buffers.items():
            if buffer is not None:
                buffers[start + name] = buffer
    return parameters, buffers


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
