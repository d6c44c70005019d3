"""Optimizers by name, their learning-rate schedule, and their state by parameter name."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from thalnet_mtl.config.schema import Config
from thalnet_mtl.config.training import TrainConfig
from thalnet_mtl.errors import UserError
from thalnet_mtl.json_fields import typed
from thalnet_mtl.models.network import Network
from thalnet_mtl.registry import lookup, register
from thalnet_mtl.tasks.stream import Experience
from thalnet_mtl.training.weighting import LossWeighting

Groups = Iterable[nn.Parameter] | Iterable[dict[str, Any]]  # of parameters
COOLDOWN = 0.2  # share of the steps after warm-up


@register("optimizer", "rmsprop")
def rmsprop(groups: Groups, lr: float = 1e-3, weight_decay: float = 0.0) -> torch.optim.Optimizer:
    """RMSprop: v ← 0.99 v + 0.01 g², θ ← θ − η g / (√v + 10⁻⁸), with ``torch.optim.RMSprop``.

    Tieleman, Hinton, "Lecture 6.5: RMSprop", Coursera 2012.
    """
    return torch.optim.RMSprop(groups, lr=lr, weight_decay=weight_decay)


@register("optimizer", "adam")
def adam(groups: Groups, lr: float = 1e-3, weight_decay: float = 0.0) -> torch.optim.Optimizer:
    """Adam: θ ← θ − η m / (√v + 10⁻⁸), averages m of g (0.9) and v of g² (0.999), bias-corrected.

    Kingma, Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015; ``torch.optim.Adam``.
    """
    return torch.optim.Adam(groups, lr=lr, weight_decay=weight_decay, fused=True)


@register("optimizer", "adamw")
def adamw(groups: Groups, lr: float = 1e-3, weight_decay: float = 0.0) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay: θ ← (1 − η λ) θ before the step of Adam.

    Loshchilov, Hutter, "Decoupled Weight Decay Regularization", ICLR 2019; ``torch.optim.AdamW``.
    """
    return torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay, fused=True)


@register("optimizer", "sgd")
def sgd(groups: Groups, lr: float = 1e-3, weight_decay: float = 0.0) -> torch.optim.Optimizer:
    """Gradient descent with momentum: v ← 0.9 v + g, θ ← θ − η v, with ``torch.optim.SGD``."""
    return torch.optim.SGD(groups, lr=lr, momentum=0.9, weight_decay=weight_decay)


def make_optimizer(
    name: str, groups: Groups, lr: float = 1e-3, weight_decay: float = 0.0
) -> torch.optim.Optimizer:
    """Return the optimizer with a name.

    Networks that change need an elementwise state, see ``TopologyChange.update_optimizer``.

    Raises:
        UserError: there is none.
    """
    optimizer: torch.optim.Optimizer = lookup("optimizer", name)(
        groups, lr=lr, weight_decay=weight_decay
    )
    return optimizer


def optimizer_for(
    config: Config, network: Network, weighting: LossWeighting
) -> torch.optim.Optimizer:
    """Return the configured optimizer for all parameters that are not frozen."""
    options = config.train
    groups: list[dict[str, Any]] = [
        {"params": [p for p in network.parameters() if p.requires_grad]},
        {"params": list(weighting.parameters()), "weight_decay": 0.0},
    ]
    return make_optimizer(
        options.optimizer, groups, lr=options.learning_rate, weight_decay=options.weight_decay
    )


def learning_rate(options: TrainConfig, experience: Experience, step: int) -> float:
    """Return the learning rate of a step: linear warm-up, then as ``train.schedule`` says.

    See ``SCHEDULES``. The schedule starts again with every experience.
    """
    step, total = step - experience.start, experience.stop - experience.start
    if step < options.warmup:
        return options.learning_rate * (step + 1) / options.warmup
    if options.schedule == "constant":
        return options.learning_rate
    progress = (step - options.warmup) / max(1, total - options.warmup)
    if options.schedule == "cooldown":
        return options.learning_rate * min(1.0, (1 - progress) / COOLDOWN)
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def optimizer_state(
    optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter]
) -> dict[str, Any]:
    """Return the state of an optimizer by parameter name, independent of parameter order."""
    names = {id(parameter): name for name, parameter in named.items()}
    groups = [
        group | {"params": [names[id(parameter)] for parameter in group["params"]]}
        for group in optimizer.param_groups
    ]
    state = {names[id(parameter)]: state for parameter, state in optimizer.state.items()}
    return {"groups": groups, "state": state}


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, saved: Mapping[str, Any], named: Mapping[str, nn.Parameter]
) -> None:
    """Load what ``optimizer_state`` returned for an optimizer of the same parameters."""
    saved_names = {name for group in saved["groups"] for name in group["params"]}
    trainable = {name for name, parameter in named.items() if parameter.requires_grad}
    if saved_names != trainable or len(saved["groups"]) != len(optimizer.param_groups):
        difference = min(saved_names ^ trainable, default="other groups of the same")
        raise UserError(f"the saved optimizer has other parameters: {difference}.")
    for group, current in zip(saved["groups"], optimizer.param_groups, strict=True):
        current["params"][:] = [named[name] for name in group["params"]]
    number = {name: k for k, name in enumerate(n for g in saved["groups"] for n in g["params"])}
    # The options follow from the configuration, and some from the device.
    groups = [
        group | current | {"params": [number[name] for name in group["params"]]}
        for group, current in zip(saved["groups"], optimizer.param_groups, strict=True)
    ]
    state = {number[name]: state for name, state in saved["state"].items()}
    for name, values in saved["state"].items():
        _check_state(name, values, named[name])
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def load_moments(
    optimizer: torch.optim.Optimizer,
    saved: Mapping[str, Any],
    named: Mapping[str, nn.Parameter],
    names: Iterable[str],
) -> None:
    """Load the saved state of some parameters; the others, and all options, stay as they are.

    Args:
        optimizer: of the same kind as the one that was saved.
        saved: states by parameter name, as in ``optimizer_state``.
        named: all parameters by name.
        names: those to load.
    """
    groups = optimizer.state_dict()["param_groups"]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    places = {id(parameter): place for place, parameter in enumerate(parameters)}
    state = {}
    for name in names:
        if name in saved and name in named and id(named[name]) in places:
            _check_state(name, saved[name], named[name])
            state[places[id(named[name])]] = saved[name]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _check_state(name: str, values: Any, parameter: nn.Parameter) -> None:
    """Raise ``UserError`` unless the state of a parameter fits it: tensors, numbers or None."""
    for key, value in typed(values, dict[str, Any], f"optimizer: {name}").items():
        shape = getattr(value, "shape", ()) if value is not None else ()
        kinds = torch.Tensor | float | None
        typed(value, kinds, f"optimizer: {name}: {key}")
        if shape not in ((), parameter.shape):
            raise UserError(
                f"optimizer: {name}: {key} is damaged: its shape is {tuple(shape)}, not "
                f"{tuple(parameter.shape)}."
            )
