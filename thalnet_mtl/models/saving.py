"""Functions that save and load a network, for those who prefer them to ``Network.save``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thalnet_mtl.config.schema import Config
from thalnet_mtl.models.network import Network


def save_model(
    network: Network,
    folder: Path | str,
    config: Config | None = None,
    result: Mapping[str, Any] | None = None,
) -> None:
    """Write a network to a folder; see ``Network.save``."""
    network.save(folder, config=config, result=result)


def load_model(folder: Path | str) -> Network:
    """Return a saved network, that of a finished run, or a published one; see ``Network.load``."""
    return Network.load(folder)
