"""Saved networks and saved runs: written whole or not at all, loaded without running code."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from thalnet_mtl.config.load import flatten
from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.files import require, write_atomically
from thalnet_mtl.models.model_folder import load_weights
from thalnet_mtl.models.network import Network


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Save tensors and plain values; of a tensor that is part of another, that part alone."""
    content = tree_map_only(torch.Tensor, _own_storage, content)
    write_atomically(path, lambda part: torch.save(content, part))


def _own_storage(tensor: torch.Tensor) -> torch.Tensor:
    whole = tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor if whole else tensor.detach().clone()


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load what ``save`` wrote, as tensors and plain values only."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"no checkpoint {path}.") from None
    except Exception as error:
        raise UserError(
            f"{path} is damaged and cannot be read ({type(error).__name__}). Put a good copy in "
            f"its place, or delete the folder of the run to start again."
        ) from error


BEST = ("step", "topology", "network")


def load_matching(path: Path, config: Config, keys: Sequence[str] = BEST) -> dict[str, Any]:
    """Load a checkpoint of a run of this very configuration, that holds these values."""
    content = load_checkpoint(path)
    require(content, ("config", *keys), str(path))
    if content.get("config") != flatten(config):
        raise UserError(f"{path} belongs to a run of another configuration.")
    return content


def load_network(content: Mapping[str, Any], path: Path) -> Network:
    """The network of a checkpoint, with the topology that it had by then."""
    try:
        network = Network.from_description(content["topology"])
        load_weights(network, content["network"], path)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged: {type(error).__name__} {error}") from error
    return network


def optimizer_state(
    optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter]
) -> dict[str, Any]:
    """The state of an optimizer by the names of its parameters, whatever order it has them in."""
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
    """Give an optimizer what ``optimizer_state`` took from one with the same parameters."""
    there = {name for group in saved["groups"] for name in group["params"]}
    learned = {name for name, parameter in named.items() if parameter.requires_grad}
    if there != learned or len(saved["groups"]) != len(optimizer.param_groups):
        which = min(there ^ learned, default="other groups of the same")
        raise UserError(f"the saved optimizer has other parameters: {which}.")
    for group, own in zip(saved["groups"], optimizer.param_groups, strict=True):
        own["params"][:] = [named[name] for name in group["params"]]
    number = {name: k for k, name in enumerate(n for g in saved["groups"] for n in g["params"])}
    groups = [g | {"params": [number[name] for name in g["params"]]} for g in saved["groups"]]
    state = {number[name]: state for name, state in saved["state"].items()}
    optimizer.load_state_dict({"state": state, "param_groups": groups})
