"""Optimizers whose parameters and state follow a change of the topology of a network."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any, Literal

from torch import Tensor, nn
from torch.optim import Adagrad, Optimizer
from torch.utils._pytree import tree_leaves

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.followers import told
from thalnet_mtl.models.parameter_changes import ParameterChanges, ResizedParameter

Group = dict[str, Any]  # a parameter group of an optimizer: its parameters and options

# A key of a parameter group, beside its options: the names of its parameters that are frozen. It
# is saved with the optimizer, so that they return to this group when they are trained again.
FROZEN = "frozen"


def update_optimizer(
    optimizer: Optimizer, change: ParameterChanges, group: int | Literal["alike"] | None
) -> None:
    """Update an optimizer; see ``TopologyChange.update_optimizer``."""
    groups: list[Group] = optimizer.param_groups
    if isinstance(group, int) and not 0 <= group < len(groups):
        raise UserError(f"group must be from 0 to {len(groups) - 1}, got {group}.")
    check_elementwise(optimizer)
    names = {id(parameter): name for name, parameter in change.parameters.items()}
    labels = _labels(groups, change, names)
    _remove_and_replace(groups, change, names)
    for parameter in change.removed.values():
        optimizer.state.pop(parameter, None)
    for resized in change.grown.values():
        if resized.old in optimizer.state:
            state = optimizer.state.pop(resized.old)
            optimizer.state[resized.new] = {k: _remapped(v, resized) for k, v in state.items()}
    held = {id(p) for options in groups for p in options["params"]}
    order = {key: place for place, key in enumerate(names)}
    members = [[*_held_names(options, names), *options[FROZEN]] for options in groups]
    for name, parameter in change.added.items():
        if group is None or id(parameter) in held:
            continue
        number = _group_alike(name, members, change.parameters) if group == "alike" else group
        _insert(parameter, groups[number]["params"], order)
        if isinstance(optimizer, Adagrad):  # it has its state before the first step
            options = {key: groups[number][key] for key in optimizer.defaults}
            optimizer.state[parameter] = Adagrad([parameter], **options).state[parameter]
    for options in groups:
        frozen = [n for n in options.pop(FROZEN) if not change.parameters[n].requires_grad]
        options |= {FROZEN: frozen} if frozen else {}
        if "param_names" in options:
            options["param_names"] = [labels[id(p)] for p in options["params"]]
    told(change, optimizer)


def check_elementwise(optimizer: Optimizer) -> None:
    """Raise unless every state consists of numbers, and tensors of the shape of its parameter.

    Raises:
        UserError: the meaning of a state is not known, so that it cannot follow a change.
    """
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            tensors = [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
            inside = bool(tensors) and not isinstance(value, Tensor)
            if inside or any(t.ndim and t.shape != parameter.shape for t in tensors):
                raise UserError(
                    f"{type(optimizer).__name__} cannot follow a change of the network: its state "
                    f"'{key}' is no tensor of the shape of a parameter. Make a new optimizer after "
                    f"the change, or use one such as AdamW, SGD, RMSprop or Adagrad."
                )


def _remapped(value: Any, resized: ResizedParameter) -> Any:
    """Remap a moment, which has the shape of its parameter; return other values as they are."""
    moment = isinstance(value, Tensor) and value.ndim > 0
    return resized.remap(value) if moment else value


def _labels(
    groups: Sequence[Group], change: ParameterChanges, names: Mapping[int, str]
) -> dict[int, str]:
    """Return the names that an optimizer has for parameters, or else those in the network."""
    labels = dict(names)
    for options in groups:
        labels |= {
            id(p): n
            for p, n in zip(options["params"], options.get("param_names", ()), strict=False)
        }
    grown = change.grown.values()
    return labels | {id(r.new): labels[id(r.old)] for r in grown if id(r.old) in labels}


def _remove_and_replace(
    groups: Sequence[Group], change: ParameterChanges, names: Mapping[int, str]
) -> None:
    """Take removed parameters out of their groups, and put grown ones in place of the old."""
    grown = {id(resized.old): resized.new for resized in change.grown.values()}
    removed = {id(parameter) for parameter in change.removed.values()}
    for options in groups:
        params = options["params"]
        frozen = [names[id(p)] for p in params if id(p) in removed and id(p) in names]
        remembered = (
            name
            for name in options.get(FROZEN, ())
            if name in change.parameters and name not in change.deleted
        )
        options[FROZEN] = [*remembered, *frozen]
        params[:] = [grown.get(id(p), p) for p in params if id(p) not in removed]


def _held_names(options: Group, names: Mapping[int, str]) -> list[str]:
    """Return the names of the parameters of a network that a group holds."""
    return [names[id(parameter)] for parameter in options["params"] if id(parameter) in names]


def _group_alike(
    name: str, members: Sequence[Sequence[str]], parameters: Mapping[str, nn.Parameter]
) -> int:
    """Return the group that a parameter was in before it was frozen, or that of its kind.

    Parameters of a kind have about as many axes, are in the body or in an adapter, and end their
    names alike: ``design.stack.0.bias``.

    Args:
        name: of the parameter.
        members: the names of the parameters of every group, held or frozen.
        parameters: of the network, by name.
    """

    def likeness(other: str) -> tuple[int, bool, int, int]:
        path, path_of_other = name.split("."), other.split(".")
        return (
            -abs(parameters[name].ndim - parameters[other].ndim),
            path[0] == path_of_other[0],
            _common(reversed(path), reversed(path_of_other)),
            _common(path, path_of_other),
        )

    candidates = [number for number, others in enumerate(members) if others]
    if len(candidates) < 2:
        return candidates[0] if candidates else 0
    for number in candidates:
        if name in members[number]:
            return number
    return max(candidates, key=lambda number: max(map(likeness, members[number])))


def _common(first: Iterable[str], second: Iterable[str]) -> int:
    """Return the number of equal parts at the start of two paths."""
    equal = (a == b for a, b in zip(first, second, strict=False))
    return sum(takewhile(bool, equal))


def _insert(parameter: nn.Parameter, params: list[nn.Parameter], order: Mapping[int, int]) -> None:
    """Insert a parameter behind those that precede it in the network.

    The order is then that of a new optimizer, into which PyTorch loads a saved state by position.
    """
    place, k = order[id(parameter)], len(params)
    while k and order.get(id(params[k - 1]), place) >= place:
        k -= 1
    if not k:  # it is the first of the network
        k = next((k for k, p in enumerate(params) if id(p) in order), len(params))
    params.insert(k, parameter)
