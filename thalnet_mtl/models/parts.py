"""The parts of a module: itself and all modules in it, listed fast where there are thousands."""

from collections.abc import Iterator

from torch import nn


def named_parts(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield a module and all in it, each once, with how the names of its tensors begin.

    The order is that of ``named_modules``, whose nested generators are much slower.
    """
    seen, remaining = set[int](), [("", module)]
    while remaining:
        start, part = remaining.pop()
        if id(part) not in seen:
            seen.add(id(part))
            yield start, part
            children = [(f"{start}{n}.", m) for n, m in part._modules.items() if m is not None]
            remaining += reversed(children)


def parameters(module: nn.Module) -> list[nn.Parameter]:
    """Return all parameters of a module, each once, in the order of ``module.parameters()``."""
    parts = (part for _, part in named_parts(module))
    return list(dict.fromkeys(p for m in parts for p in m._parameters.values() if p is not None))
