"""ThalNet: recurrent modules around a routing center, for multi-task and continual learning.

To build networks:      ``ThalNet``, ``Network``, ``ModuleSpec``, ``TaskSpec``,
                        ``PathChooser``
To define tasks:        ``SequenceTask``, ``TextTask``, ``Task``
To add your own parts:  ``Reading``, ``Design``, ``Strategy``, ``LossWeighting``, ``Body``,
                        ``RecurrentBody``, ``GrowthRule``, ``Search``, ``register``
To follow a run:        ``Callback``, ``Tracker``
To train:               ``Config``, ``load_config``, ``train``
To read and draw runs:  ``load_run``, ``load_runs``
To let a network grow:  ``search``
In your own loop:       ``StrategyLoop``
To compare runs:        ``table``
To save networks:       ``save_model``, ``load_model``
Mistakes raise:         ``UserError``

>>> from thalnet_mtl import ThalNet
>>> ThalNet(inputs=28, modules=4, features=32).outputs
32

To train from Python::

    result = train(load_config("digits"), "runs/a")
    result.tasks["digits_rows"].test  # the test accuracy
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thalnet_mtl.config.load import load_config as load_config
    from thalnet_mtl.config.schema import Config as Config
    from thalnet_mtl.errors import UserError as UserError
    from thalnet_mtl.models.body import Body as Body
    from thalnet_mtl.models.designs.base import Design as Design
    from thalnet_mtl.models.network import Network as Network
    from thalnet_mtl.models.path_choice import PathChooser as PathChooser
    from thalnet_mtl.models.readings.base import Reading as Reading
    from thalnet_mtl.models.recurrent import RecurrentBody as RecurrentBody
    from thalnet_mtl.models.saving import load_model as load_model
    from thalnet_mtl.models.saving import save_model as save_model
    from thalnet_mtl.models.thalnet import ThalNet as ThalNet
    from thalnet_mtl.registry import register as register
    from thalnet_mtl.report.make_table import table as table
    from thalnet_mtl.report.run_list import load_runs as load_runs
    from thalnet_mtl.strategies.base import Strategy as Strategy
    from thalnet_mtl.strategies.by_hand import StrategyLoop as StrategyLoop
    from thalnet_mtl.tasks.base import Task as Task
    from thalnet_mtl.tasks.sequences import SequenceTask as SequenceTask
    from thalnet_mtl.tasks.text import TextTask as TextTask
    from thalnet_mtl.topology.spec import ModuleSpec as ModuleSpec
    from thalnet_mtl.topology.spec import TaskSpec as TaskSpec
    from thalnet_mtl.training.growth.base import GrowthRule as GrowthRule
    from thalnet_mtl.training.search.by_hand import search as search
    from thalnet_mtl.training.search.rule import Search as Search
    from thalnet_mtl.training.tracking.callback import Callback as Callback
    from thalnet_mtl.training.tracking.tracker import Tracker as Tracker
    from thalnet_mtl.training.trained_run import load_run as load_run
    from thalnet_mtl.training.trainer import train as train
    from thalnet_mtl.training.weighting import LossWeighting as LossWeighting

    __version__: str

# Imported at first use, so that the command line answers without torch.
_HOMES = {
    "ThalNet": "models.thalnet",
    "Network": "models.network",
    "ModuleSpec": "topology.spec",
    "TaskSpec": "topology.spec",
    "PathChooser": "models.path_choice",
    "Body": "models.body",
    "RecurrentBody": "models.recurrent",
    "SequenceTask": "tasks.sequences",
    "TextTask": "tasks.text",
    "Task": "tasks.base",
    "Reading": "models.readings.base",
    "Design": "models.designs.base",
    "Strategy": "strategies.base",
    "StrategyLoop": "strategies.by_hand",
    "LossWeighting": "training.weighting",
    "GrowthRule": "training.growth.base",
    "Search": "training.search.rule",
    "search": "training.search.by_hand",
    "register": "registry",
    "Callback": "training.tracking.callback",
    "Tracker": "training.tracking.tracker",
    "table": "report.make_table",
    "Config": "config.schema",
    "load_config": "config.load",
    "train": "training.trainer",
    "load_run": "training.trained_run",
    "load_runs": "report.run_list",
    "load_model": "models.saving",
    "save_model": "models.saving",
    "UserError": "errors",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOMES:
        raise AttributeError(f"module 'thalnet_mtl' has no attribute '{name}'")
    return getattr(import_module(f"thalnet_mtl.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*_HOMES, "__version__"]


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("thalnet-mtl")
    except PackageNotFoundError:  # a checkout on the path, not installed
        return "unknown"
