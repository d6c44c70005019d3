"""Folders that a run can start from: run directories, and what ``Network.save`` wrote."""

from pathlib import Path
from typing import Any

from thalnet_mtl.config.load import check_run_directory, load_run_config
from thalnet_mtl.config.schema import Config
from thalnet_mtl.config.training import StartConfig
from thalnet_mtl.errors import UserError
from thalnet_mtl.files import read_fields
from thalnet_mtl.json_fields import require
from thalnet_mtl.models.model_folder import read_from
from thalnet_mtl.models.network import Network
from thalnet_mtl.published import is_published
from thalnet_mtl.runs.checksums import BEST, check_sums
from thalnet_mtl.training.checkpoint import load_checkpoint, load_network
from thalnet_mtl.training.start import Start

FILE = "start.json"  # of a run directory: the topology before the first step


def read_start(config: Config) -> Start | None:
    """Read the network that a run starts from; None if it starts from new weights.

    Raises:
        UserError: there is none, or it does not have what is asked for.
    """
    options = config.start
    if not options.run:
        return None
    if is_published(options.run):
        return _only_network(options, Path(options.run))
    folder = Path(options.run).expanduser()
    of_run = folder.name == "model" and (folder.parent / "config.yaml").is_file()
    run = folder.parent if of_run else folder
    path = run / "checkpoint" / f"{options.weights}.pt"
    if not path.is_file():
        return _read_saved(options, folder)
    check_sums(run, BEST if options.weights == "best" else ())
    content = load_checkpoint(path)
    require(content, ("step", "topology", "network"), str(path))
    network, moments = load_network(content, path), dict[str, Any]()
    if options.optimizer:
        there = load_run_config(run).train.optimizer
        if there != config.train.optimizer:
            raise UserError(
                f"start.optimizer: train.optimizer is {config.train.optimizer}, and {run} was "
                f"trained with {there}. Use the same, or leave start.optimizer out."
            )
        with read_from(path):
            moments = dict(content["optimizer"]["state"])
    return Start(options, run, network, content["step"], moments)


def _read_saved(options: StartConfig, folder: Path) -> Start:
    """Read a folder that ``Network.save`` wrote, or the model of a run without its checkpoints."""
    check_run_directory(folder)
    if not any((folder / name).exists() for name in ("config.yaml", "config.json")):
        raise UserError(
            f"start.run: {folder} is no run and no saved network: it has neither config.yaml nor "
            f"config.json."
        )
    return _only_network(options, folder)


def _only_network(options: StartConfig, folder: Path) -> Start:
    """Read a saved network without checkpoints beside it, in a folder or published."""
    if options.weights != "best":
        raise UserError(
            f"start.weights {options.weights}: {folder} has only one network, and no "
            f"checkpoint/{options.weights}.pt. Leave start.weights out."
        )
    return Start(options, folder, Network.load(folder))


def network_at_start(folder: Path | None) -> Network | None:
    """Return a network of the topology that a saved run took over; None if there is no such run.

    Its weights are new: the run has its own by now, and does not need the network any more that it
    started from.
    """
    if not folder or not all((folder / name).exists() for name in (FILE, "checkpoint/last.pt")):
        return None
    path = folder / FILE
    content = read_fields(path)
    require(content, ("topology",), str(path))
    with read_from(path):
        return Network.from_description(content["topology"])
