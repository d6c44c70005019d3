"""What PyTorch demands of a backend while it traces, transforms or simulates a computation.

``reference`` can do all of it. Kernels read the memory of tensors, which is then not
there or not all that counts, and hand-written gradients are unknown to forward-mode derivatives.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters
from torch.autograd import forward_ad
from torch.nn.modules.module import _has_any_global_hook

from thalnet_mtl.ops.layout import PLAIN

# By demand why a backend cannot meet it.
TRACING = "it cannot be traced by torch.compile, torch.export or torch.jit.trace"
INTERCEPTING = "it cannot run where operations are intercepted, such as in FakeTensorMode"
TRANSFORMING = "it cannot run under torch.func.grad, jvp and what is made of them"
BATCHING = "it cannot run under torch.vmap"
NESTING = "it cannot run under torch.vmap within torch.vmap"
HOOKING = "it does not call the layers, and there are hooks on the calls of all modules"

# The demands that a backend can meet; ``reference`` can meet all.
ABLE: dict[str, frozenset[str]] = {
    "triton": frozenset(),
    "cpp": frozenset({BATCHING}),
    "fused": frozenset(),
    "batched": frozenset({TRACING, INTERCEPTING, TRANSFORMING, BATCHING, NESTING}),
}


def unmet(name: str, like: Tensor) -> str | None:
    """Return why a backend cannot run at this moment, None if it can.

    ``like`` is a tensor of the computation.
    """
    able = ABLE.get(name)
    if able is None:
        return None
    return next((demand for demand in demands(like) if demand not in able), None)


def demands(like: Tensor) -> Iterator[str]:
    """Yield what PyTorch demands at this moment."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        yield TRACING
        return
    if _has_any_global_hook():
        yield HOOKING
    if type(like) not in PLAIN or torch._C._len_torch_dispatch_stack() or like.is_meta:
        yield INTERCEPTING
    if forward_ad._current_level >= 0:
        yield TRANSFORMING
    if torch._C._functorch.peek_interpreter_stack() is None:
        return
    kinds = [level.key().name for level in retrieve_all_functorch_interpreters()]
    if set(kinds) - {"Vmap"}:
        yield TRANSFORMING
    yield NESTING if len(kinds) > 1 else BATCHING
