"""A workaround for installations in which the compiled operators of torchvision do not load.

A torchvision wheel built for CUDA, next to a CPU build of torch, fails at import, and with it
everything that imports it (avalanche, torchmetrics). This package does not use those operators; it
is enough to declare their schemas. On a healthy installation nothing is changed.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

_schemas: Any = None  # the declarations live as long as this object


def import_torchvision() -> ModuleType:
    """Import torchvision; call this before avalanche or torchmetrics is first imported."""
    global _schemas
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    import torch

    _schemas = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        _schemas.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("torchvision")
