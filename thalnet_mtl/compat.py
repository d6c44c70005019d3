"""A cure for installations in which torchvision's compiled operators do not load.

A torchvision wheel built for CUDA beside a CPU build of torch stops at import, and with it
everything that imports it (avalanche, torchmetrics). Nothing here needs those operators: their
schemas are enough. On a healthy installation this does nothing.
"""

import importlib
import sys
from types import ModuleType

import torch

_schemas: torch.library.Library | None = None  # the operators live as long as this does


def import_torchvision() -> ModuleType:
    """torchvision; to be called before avalanche or torchmetrics are first imported."""
    global _schemas
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    _schemas = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        _schemas.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("torchvision")
