"""Saved networks and saved runs: written whole or not at all, loaded without running code."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils._pytree import tree_map_only

from thalnet_mtl import config as configs
from thalnet_mtl.build import parameters, restore
from thalnet_mtl.config import Config, UserError
from thalnet_mtl.files import read_json, require, write_atomically
from thalnet_mtl.network import Network


def save(path: Path, content: dict[str, Any]) -> None:
    """Save tensors and plain values; of a tensor that is part of another, that part alone."""
    content = tree_map_only(torch.Tensor, _alone, content)
    write_atomically(path, lambda part: torch.save(content, part))


def _alone(tensor: torch.Tensor) -> torch.Tensor:
    whole = tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor if whole else tensor.detach().clone()


def load(path: Path) -> dict[str, Any]:
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


def load_of(path: Path, config: Config, keys: Sequence[str] = BEST) -> dict[str, Any]:
    """Load a checkpoint of a run of this very configuration, that holds these values."""
    content = load(path)
    require(content, ("config", *keys), str(path))
    if content.get("config") != configs.flatten(config):
        raise UserError(f"{path} belongs to a run of another configuration.")
    return content


def load_weights(network: Network, weights: dict[str, torch.Tensor], path: Path) -> None:
    """Put saved weights into a network, or say in one line where they differ."""
    own = network.state_dict()
    missing = sorted(own.keys() - weights.keys()) + sorted(weights.keys() - own.keys())
    changed = [name for name in own if name in weights and own[name].shape != weights[name].shape]
    if missing or changed:
        name = (missing or changed)[0]
        here, there = (tuple(w[name].shape) if name in w else "absent" for w in (own, weights))
        raise UserError(
            f"{path} holds another network: '{name}' is {there} in the file, {here} here."
        )
    network.load_state_dict(weights)


def load_network(content: Mapping[str, Any], path: Path) -> Network:
    """The network of a checkpoint, with the topology that it had by then."""
    try:
        network = restore(content["topology"])
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


def save_model(folder: Path, network: Network, config: Config, result: dict[str, Any]) -> None:
    """Write ``config.json``, ``model.safetensors`` and a model card, as one folder."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    content = {"thalnet_mtl": 2, "topology": network.describe()}
    (part / "config.json").write_text(json.dumps(content, indent=2) + "\n")
    save_tensors(part / "model.safetensors", network.state_dict())
    (part / "README.md").write_text(_card(network, config, result))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)


def save_tensors(
    path: Path, tensors: dict[str, torch.Tensor], about: dict[str, str] | None = None
) -> None:
    """Write a safetensors file that whoever may read the folder may read, too."""
    save_file({k: v.contiguous().cpu() for k, v in tensors.items()}, path, metadata=about)
    path.chmod(path.parent.stat().st_mode & 0o666)


def load_model(folder: Path | str) -> Network:
    """The network that ``save_model`` wrote; needs no data and no configuration.

    Raises:
        UserError: a file is missing or damaged, or the two do not belong together.
    """
    folder = Path(folder)
    path = folder / "config.json"
    content = read_json(path)
    try:
        network = restore(content["topology"])
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged: {type(error).__name__} {error}") from error
    path = folder / "model.safetensors"
    try:
        load_weights(network, load_file(path), path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is missing or damaged: {error}") from error
    return network.eval()


def _card(network: Network, config: Config, result: dict[str, Any]) -> str:
    rows = [
        f"| {one['label']} | {one['metric']} | {one['validation'][one['metric']]:.4f} "
        f"| {one['test'][one['metric']]:.4f} |"
        for one in result["tasks"].values()
    ]
    labels = ", ".join(one["label"] for one in result["tasks"].values())
    return f"""---
library_name: thalnet_mtl
tags: [thalnet, recurrent]
---
# {config.model.body} on {labels}

{parameters(network):,} parameters, trained {result["steps"]:,} steps with seed \
{config.train.seed}; these are the weights of step {result["best_step"]:,}, \
{"the last" if len(config.stream) > 1 else "the best on validation"}.

| task | metric | validation | test |
|---|---|---|---|
{chr(10).join(rows)}

```python
from thalnet_mtl import load_model

network = load_model("model")
logits, state = network("{next(iter(network.ports))}", xs)
```
"""
