"""Counts of parameters."""

from torch import nn


def count_parameters(module: nn.Module) -> int:
    """Return the number of scalars in the parameters of a module, frozen or not."""
    return sum(parameter.numel() for parameter in module.parameters())


def parameter_counts(module: nn.Module) -> dict[str, int]:
    """Return the numbers of all, of trainable and of frozen parameters."""
    total = count_parameters(module)
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return {"total": total, "trainable": trainable, "frozen": total - trainable}
