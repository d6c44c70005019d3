"""ThalNet: recurrent modules around a routing center, for one task or many.

>>> from thalnet_mtl import ThalNet
>>> ThalNet(inputs=28, modules=4, features=32).outputs
32
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thalnet_mtl.config.schema import Config as Config
    from thalnet_mtl.errors import UserError as UserError
    from thalnet_mtl.models.body import Body as Body
    from thalnet_mtl.models.network import Network as Network
    from thalnet_mtl.models.saving import load_model as load_model
    from thalnet_mtl.models.thalnet import ThalNet as ThalNet
    from thalnet_mtl.registry import register as register
    from thalnet_mtl.tasks.rows import RowsTask as RowsTask
    from thalnet_mtl.tasks.text import TextTask as TextTask
    from thalnet_mtl.topology.spec import ModuleSpec as ModuleSpec
    from thalnet_mtl.topology.spec import TaskSpec as TaskSpec

# Imported at first use, so that the command line answers without torch.
_HOMES = {
    "Body": "models.body",
    "Config": "config.schema",
    "TaskSpec": "topology.spec",
    "ModuleSpec": "topology.spec",
    "Network": "models.network",
    "RowsTask": "tasks.rows",
    "TextTask": "tasks.text",
    "ThalNet": "models.thalnet",
    "UserError": "errors",
    "load_model": "models.saving",
    "register": "registry",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'thalnet_mtl' has no attribute '{name}'")
    return getattr(import_module(f"thalnet_mtl.{_HOMES[name]}"), name)
