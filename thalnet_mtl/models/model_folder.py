"""Folders of saved networks: written whole or not at all, read without running code from them."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from thalnet_mtl.errors import UnknownName, UserError
from thalnet_mtl.files import read_json, recover, staged, write_atomically
from thalnet_mtl.json_fields import require
from thalnet_mtl.models.shapes import shapes_only

FORMAT = 4  # of config.json
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
PATHS = "paths.safetensors"  # of a ``PathChooser``
FILES = {CONFIG, WEIGHTS, CARD, PATHS, "reading_weights.safetensors"}  # the last two in runs only

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def write_model(
    folder: Path, topology: Mapping[str, Any], weights: dict[str, torch.Tensor], card: str
) -> None:
    """Write a model folder in one step; an older saved model is replaced, anything else refused."""
    if folder.exists() and not _replaceable(folder):
        raise UserError(f"{folder} exists and is not a saved model; choose another folder.")
    with staged(folder) as part:
        part.mkdir()
        for name, content in model_files(topology, weights, card).items():
            (part / name).write_bytes(content)


def model_files(
    topology: Mapping[str, Any], weights: Mapping[str, torch.Tensor], card: str
) -> dict[str, bytes]:
    """Return the contents of the files of a saved model by name."""
    content = {"thalnet_mtl": FORMAT, "topology": topology}
    return {
        CONFIG: (json.dumps(content, indent=2) + "\n").encode(),
        WEIGHTS: _serialized(weights),
        CARD: card.encode(),
    }


def read_model(folder: Path, make: Callable[[Mapping[str, Any]], AnyModule]) -> AnyModule:
    """Return ``make(topology)`` with the weights of a model folder, or of a run's ``model/``.

    Nothing that the folder holds is executed. Its sizes are compared with those of its tensors
    before memory is taken.

    Raises:
        UserError: a file is missing or damaged, or the two do not belong together.
    """
    folder = find_model(folder)
    path = folder / CONFIG
    content = _read_config(path)
    weights = read_tensors(folder / WEIGHTS)
    with read_from(path):
        skeleton = _skeleton(content["topology"], make)
    if skeleton:
        with read_from(folder / WEIGHTS):
            _check_shapes(skeleton, weights)
    with read_from(path):
        network = make(content["topology"])
    path = folder / WEIGHTS
    dtypes = {weight.dtype for weight in weights.values() if weight.is_floating_point()}
    if len(dtypes) == 1:
        network.to(dtypes.pop())
    with read_from(path):
        load_weights(network, weights)
    return network


def _skeleton(
    topology: Mapping[str, Any], make: Callable[[Mapping[str, Any]], AnyModule]
) -> AnyModule | None:
    """Return ``make(topology)`` without numbers, None if a body of a plug-in needs them."""
    try:
        with shapes_only():
            return make(topology)
    except UnknownName as error:
        raise UserError(
            f"{error} If its author registers it in a file or package, import that first."
        ) from error
    except (NotImplementedError, RuntimeError):  # of ``item`` and the like on the device meta
        return None


@contextmanager
def read_from(path: Path) -> Iterator[None]:
    """Turn what a damaged value of a file leads to into one line that names the file."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (torch.OutOfMemoryError, OSError):
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{path} is damaged: {type(error).__name__} {reason}") from error


def load_weights(network: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Load saved weights into a network, or say in one line where they differ."""
    _check_shapes(network, weights)
    network.load_state_dict(weights)


def _check_shapes(network: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Raise unless saved weights have the names and shapes of those of a network."""
    current = network.state_dict()
    absent = sorted(current.keys() - weights.keys()) + sorted(weights.keys() - current.keys())
    changed = [k for k in current if k in weights and current[k].shape != weights[k].shape]
    if absent or changed:
        name = (absent or changed)[0]
        expected, saved = (
            tuple(state[name].shape) if name in state else "absent" for state in (current, weights)
        )
        raise UserError(
            f"it holds another network: '{name}' is {saved} in the file, {expected} here."
        )


def save_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file atomically."""
    content = _serialized(tensors, metadata)
    write_atomically(path, lambda file: file.write(content))


def _serialized(
    tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None
) -> bytes:
    """Return the content of a safetensors file."""
    return save({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, metadata)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file; a UserError says that it is missing or damaged."""
    try:
        return load_file(path)
    except (FileNotFoundError, SafetensorError) as error:
        raise UserError(f"{path} is missing or damaged: {error}") from error


def find_model(folder: Path) -> Path:
    """Return a model folder itself, or the one of a run."""
    recover(folder)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}.")
    if (folder / CONFIG).exists():
        return folder
    if (folder / "model").is_dir():
        return folder / "model"
    if (folder / "config.yaml").exists():
        raise UserError(f"{folder} is not finished: it has no model/ yet.")
    return folder


def _read_config(path: Path) -> dict[str, Any]:
    content = read_json(path)
    require(content, ("thalnet_mtl", "topology"), str(path))
    if content["thalnet_mtl"] != FORMAT:
        raise UserError(
            f"{path} has format {content['thalnet_mtl']}, that of another version of thalnet_mtl; "
            f"this version reads format {FORMAT}."
        )
    fields: dict[str, Any] = content
    return fields


def _replaceable(folder: Path) -> bool:
    """Return whether a path is an empty folder, or a saved model without foreign files in it."""
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    if not names:
        return True
    try:
        return names <= FILES and "thalnet_mtl" in read_json(folder / CONFIG)
    except (UserError, OSError, TypeError):
        return False
