"""Saved networks and saved runs: written whole or not at all, loaded without running code."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.files import read_json
from thalnet_mtl.models.build import count_parameters, restore
from thalnet_mtl.models.network import Network


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

{count_parameters(network):,} parameters, trained {result["steps"]:,} steps with seed \
{config.train.seed}; these are the weights of step {result["best_step"]:,}, \
{"the last" if len(config.stream) > 1 else "the best on validation"}.

| task | metric | validation | test |
|---|---|---|---|
{chr(10).join(rows)}

```python
from thalnet_mtl import load_model

network = load_model("model")
logits, state = network("{next(iter(network.adapters))}", xs)
```
"""
