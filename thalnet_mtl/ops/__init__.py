"""The sequence of a ThalNet on several levels, from its definition to kernels, one signature.

Each level is a file with ``sequence`` and with ``unsupported``, which says why it cannot run some
modules on some inputs. All compute the same function; ``reference`` is the definition.
"""

from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.ops import batched, cpp, fused, reference, triton
from thalnet_mtl.ops.reference import Cell

# The fastest first.
BACKENDS: dict[str, ModuleType] = {
    "triton": triton,
    "cpp": cpp,
    "fused": fused,
    "batched": batched,
    "reference": reference,
}

# Only where it is asked for: nets that it trained on an H100 learned more slowly than in fp32 on a
# processor. They went side by side, which was wrong (``graphs.recorder``); alone none was compared.
OPT_IN = ("triton",)


def explain(cells: Sequence[Cell], like: Tensor) -> dict[str, str | None]:
    """By level, why it cannot run these modules, or None if it can; the fastest comes first.

    ``like`` is of the type and on the device of what is computed.
    """
    return {name: _why_not(name, cells, like) for name in BACKENDS}


def select_backend(level: str, cells: Sequence[Cell], like: Tensor) -> str:
    """The level itself or, of ``auto``, the fastest that can.

    Raises:
        UserError: the level cannot run these modules.
    """
    if level not in ("auto", *BACKENDS):
        raise unknown("level of ops", level, ["auto", *BACKENDS])
    if level == "auto":
        free = (name for name in BACKENDS if name not in OPT_IN)
        return next(name for name in free if not _why_not(name, cells, like))
    why = _why_not(level, cells, like)
    if why:
        able = [name for name, no in explain(cells, like).items() if no is None]
        raise UserError(f"ops {level}: {why}. Able to: auto, {', '.join(able)}.")
    return level


def _why_not(name: str, cells: Sequence[Cell], like: Tensor) -> str | None:
    """Kernels and nodes of our own cannot be traced by ``torch.compile`` and ``torch.export``."""
    if torch.compiler.is_compiling() and name not in ("batched", "reference"):
        return "it cannot be traced"
    return BACKENDS[name].unsupported(cells, like)
