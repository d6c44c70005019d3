"""Counts of parameters, and the memory that their training takes."""

import os
import sys

from torch import nn

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.parts import parameters

BYTES = 12  # of a parameter with its gradient and one moment of the optimizer


def count_parameters(module: nn.Module) -> int:
    """Return the number of scalars in the parameters of a module, frozen or not."""
    return sum(parameter.numel() for parameter in parameters(module))


def parameter_counts(module: nn.Module) -> dict[str, int]:
    """Return the numbers of all, of trainable and of frozen parameters."""
    sizes = [(p.numel(), p.requires_grad) for p in parameters(module)]
    total = sum(size for size, _ in sizes)
    trainable = sum(size for size, trained in sizes if trained)
    return {"total": total, "trainable": trainable, "frozen": total - trainable}


def check_memory(count: int) -> None:
    """Raise if this machine has too little memory to train so many parameters.

    Raises:
        UserError: with both sizes.
    """
    needed, available = BYTES * count, memory_limit()
    if needed > available:
        raise UserError(
            f"a network of {count:,} parameters takes at least {needed / 1e9:,.0f} GB to "
            f"train; there are {available / 1e9:,.0f} GB."
        )


def memory_limit() -> int:
    """Return the bytes of memory that this process may have: those of the machine or its limit."""
    if sys.platform == "win32":
        return sys.maxsize
    import resource

    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return machine if limit == resource.RLIM_INFINITY else min(machine, limit)
