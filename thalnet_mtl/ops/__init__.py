"""The sequence of a ThalNet in several backends with one signature, from definition to kernels.

Each backend is a file with two functions: ``sequence`` runs the modules over all steps, and
``unsupported`` says why it cannot run some modules on some device, or returns None. All backends
compute the same function, which ``reference`` defines.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.ops import batched, cpp, fused, reference, triton
from thalnet_mtl.ops.cell import Placement
from thalnet_mtl.ops.demands import unmet
from thalnet_mtl.ops.derivatives import differentiable_again
from thalnet_mtl.ops.reference import Outcome

# The fastest first.
BACKENDS: dict[str, ModuleType] = {
    "triton": triton,
    "cpp": cpp,
    "fused": fused,
    "batched": batched,
    "reference": reference,
}

# Their nodes in the graph of autograd belong to packed weights, not to those of the modules.
AS_NODES = "triton", "fused"

# Never chosen by ``auto``. ThalNets trained with Triton on an H100 learned more slowly than in fp32
# on a CPU. Those runs shared a GPU in a faulty way (see ``training.cuda_graphs``); no run that had
# the GPU to itself has been compared.
OPT_IN = ("triton",)


def explain(placement: Placement, like: Tensor) -> dict[str, str | None]:
    """Return for every backend why it cannot run these modules, None if it can; fastest first.

    ``like`` has the type and the device of the computation.
    """
    return {name: _why_unsupported(name, placement, like) for name in BACKENDS}


def select_backend(backend: str, placement: Placement, like: Tensor) -> str:
    """Return the name of the backend to use; for ``auto`` the fastest that can run these modules.

    Raises:
        UserError: there is no such backend, or it cannot run these modules.
    """
    if backend not in ("auto", *BACKENDS):
        raise unknown("backend", backend, ["auto", *BACKENDS])
    if backend == "auto":
        candidates = (name for name in BACKENDS if name not in OPT_IN)
        return next(name for name in candidates if not _why_unsupported(name, placement, like))
    reason = _why_unsupported(backend, placement, like)
    if reason:
        supported = [name for name, why in explain(placement, like).items() if why is None]
        raise UserError(f"backend '{backend}': {reason}. Use one of auto, {', '.join(supported)}.")
    return backend


def run(backend: str, placement: Placement, *call: Any) -> Outcome:
    """Run the modules over all steps; the other arguments are those of ``reference.sequence``."""
    outcome = BACKENDS[backend].sequence(placement, *call)
    if backend in AS_NODES and torch.is_grad_enabled():
        return differentiable_again(outcome, placement, *call)
    return outcome


def _why_unsupported(name: str, placement: Placement, like: Tensor) -> str | None:
    """Return why a backend cannot run these modules at this moment."""
    return unmet(name, like) or BACKENDS[name].unsupported(placement, like)
