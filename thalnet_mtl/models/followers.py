"""Followers of a network: optimizers and copies that are bound to it, or were forgotten.

An optimizer that has taken a step with parameters of a network has to be told of each later change.
PyTorch calls a hook before every step, which raises if that was forgotten. Of an optimizer that has
not taken a step before a change nothing is known, but that it may hold parameters that are gone.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.weak import WeakIdKeyDictionary

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.parameter_changes import ParameterChanges

Follower = Optimizer | nn.Module
STALE = "holds parameters that are gone"

# By network. Not on the network itself: a copy of it is not bound, and it can be pickled.
_bound: WeakKeyDictionary[nn.Module, "WeakSet[Follower]"] = WeakKeyDictionary()
# By optimizer that has taken a step: changes since then that it has not been told of.
_untold: WeakKeyDictionary[Optimizer, list[ParameterChanges]] = WeakKeyDictionary()
_told: WeakSet[ParameterChanges] = WeakSet()  # changes of which some optimizer has been told
_gone = WeakIdKeyDictionary()  # by parameter that was replaced or removed: the change, in words


def bind(network: nn.Module, followers: Sequence[Follower]) -> None:
    """Let optimizers and copies follow all later changes of a network; see ``Network.bind``."""
    shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
    held = {id(parameter) for parameter in network.parameters()}
    for follower in followers:
        if isinstance(follower, Optimizer):
            fits = any(id(p) in held for group in follower.param_groups for p in group["params"])
        else:
            copy = unwrapped(follower)
            fits = shapes == {name: parameter.shape for name, parameter in copy.named_parameters()}
        if not fits:
            raise UserError(
                f"bind: {type(follower).__name__} is neither an optimizer of parameters of this "
                f"network nor a copy of it."
            )
    _bound.setdefault(network, WeakSet()).update(followers)


def unwrapped(copy: nn.Module) -> nn.Module:
    """Return the network inside wrappers such as ``AveragedModel`` and ``DataParallel``."""
    inner = getattr(copy, "module", None)
    return unwrapped(inner) if isinstance(inner, nn.Module) else copy


def bound_to(network: nn.Module) -> list[Follower]:
    """Return what is bound to a network."""
    return list(_bound.get(network, ()))


def announce(change: ParameterChanges, before: Iterable[nn.Parameter]) -> None:
    """Remember which optimizers have to be told of a change.

    Args:
        change: of a network.
        before: the parameters of the network before it.
    """
    _watch_steps()
    for parameter in _left(change):
        _gone[parameter] = str(change)
    identities = {id(parameter) for parameter in before}
    for optimizer, changes in _untold.items():
        held = (id(p) for group in optimizer.param_groups for p in group["params"])
        if not identities.isdisjoint(held):
            changes.append(change)


def told(change: ParameterChanges, optimizer: Optimizer) -> None:
    """Remember that an optimizer has been told of a change."""
    _told.add(change)
    if optimizer in _untold:
        _untold[optimizer] = [entry for entry in _untold[optimizer] if entry is not change]


def check_told(optimizer: Optimizer) -> None:
    """Raise if an optimizer that takes a step has not been told of a change.

    Raises:
        UserError: it holds parameters that were replaced or removed; or no optimizer has been told,
            so that new parameters would never learn.
    """
    if optimizer not in _untold:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if gone := [_gone[p] for p in parameters if p in _gone]:
            raise UserError(
                _untold_message(optimizer, dict.fromkeys(gone), [f"{STALE}: {len(gone)}"])
            )
        _untold[optimizer] = []
    changes = _untold[optimizer]
    if not changes:
        return
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    old = {id(p) for change in changes for p in _left(change)}
    new = {
        id(parameter)
        for change in changes
        if change not in _told
        for parameter in change.added.values()
    }
    stale, missing = len(held & old), len(new - old - held)
    if stale or missing:
        faults = [f"{STALE}: {stale}"] if stale else []
        faults += [f"lacks new ones, which would never learn: {missing}"] if missing else []
        raise UserError(_untold_message(optimizer, changes, faults))
    changes.clear()


def _untold_message(optimizer: Optimizer, changes: Iterable[object], faults: Sequence[str]) -> str:
    """Return what an optimizer has missed, what is wrong with it now, and what to do."""
    return (
        f"{type(optimizer).__name__} has not been told that the network has changed "
        f"({'; '.join(map(str, changes))}): it {' and '.join(faults)}. Call "
        f"network.bind(optimizer) once before, or change.update_optimizer(optimizer) after a "
        f"change, with group=None if another optimizer has the new parameters; or make a new "
        f"optimizer."
    )


def _left(change: ParameterChanges) -> list[nn.Parameter]:
    """Return the parameters that do not exist any more after a change."""
    deleted = [p for name, p in change.removed.items() if name in change.deleted]
    return [*deleted, *(resized.old for resized in change.grown.values())]


@cache
def _watch_steps() -> None:
    """Check every optimizer before every step, from now on."""

    def check(optimizer: Optimizer, *_: Any) -> None:
        check_told(optimizer)

    register_optimizer_step_pre_hook(check)
