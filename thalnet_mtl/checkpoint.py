"""Saved networks and saved runs: written whole or not at all, loaded without running code."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from thalnet_mtl import config as configs
from thalnet_mtl.body import Interface
from thalnet_mtl.config import Config, UserError
from thalnet_mtl.network import Network, build, parameters


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` make a file beside ``path``, then move it there in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        write(part)
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_atomically(path, lambda part: part.write_text(text))


def read_json(path: Path) -> Any:
    """Read a JSON file of a run, or say in one line what is wrong with it."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"no {path.name} in {path.parent}.") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error


def save(path: Path, content: dict[str, Any]) -> None:
    """Save tensors and plain values."""
    write_atomically(path, lambda part: torch.save(content, part))


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


def load_of(path: Path, config: Config) -> dict[str, Any]:
    """Load a checkpoint of a run of this very configuration."""
    content = load(path)
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


def save_model(folder: Path, network: Network, config: Config, result: dict[str, Any]) -> None:
    """Write ``config.json``, ``model.safetensors`` and a model card, as one folder."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    tasks = {name: asdict(network.port(name).task) for name in network.ports}
    content = {"thalnet_mtl": 1, "model": asdict(network.model or config.model), "tasks": tasks}
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
        model = configs.overlay(Config().model, content["model"], str(path))
        tasks = {str(name): Interface(**task) for name, task in content["tasks"].items()}
        network = build(model, tasks)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged: {type(error).__name__} {error}") from error
    path = folder / "model.safetensors"
    try:
        load_weights(network, load_file(path), path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is missing or damaged: {error}") from error
    return network.eval()


def _card(network: Network, config: Config, result: dict[str, Any]) -> str:
    task, metric = result["task"], result["metric"]
    return f"""---
library_name: thalnet_mtl
tags: [thalnet, recurrent]
---
# {config.model.body} on {task}

{parameters(network):,} parameters, trained {result["steps"]:,} steps with seed \
{config.train.seed}; these are the weights of step {result["best_step"]:,}, the best on validation.

| part | {metric} |
|---|---|
| validation | {result["validation"][metric]:.4f} |
| test | {result["test"][metric]:.4f} |

```python
from thalnet_mtl import load_model

network = load_model("model")
logits, state = network("{config.task.name}", xs)
```
"""
