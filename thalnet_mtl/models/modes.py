"""Training and evaluation mode: of frozen modules, and of modules that are only looked at."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Self

import torch
from torch import nn

from thalnet_mtl.models.parts import named_parts, parameters

_looked_at: set[int] = set()  # modules that are in an ``evaluation_mode``


class Freezable(nn.Module):
    """A module that can be frozen: it is not trained, and it stays in evaluation mode.

    So its buffers stand still as well, such as the running statistics of a ``BatchNorm1d``, and its
    outputs do not depend on ``network.train()``.
    """

    _frozen: bool = False
    _requested_mode: bool = True  # by the last call of ``train`` or ``eval``

    def train(self, mode: bool = True) -> Self:
        """Set the mode; if the module is frozen, the one that it gets when it is no longer."""
        self._requested_mode = mode
        return super().train(mode and not self._frozen)

    def set_frozen(self, frozen: bool) -> None:
        """Freeze the module, or train it again."""
        self._frozen = frozen
        self.requires_grad_(not frozen)
        self.train(self._requested_mode)


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode within a context that leaves no trace in it.

    Afterwards each submodule has its own mode and its own buffers again, and the random state is
    that of before. Within such a context of the same module, another one costs nothing: scores of
    many tasks share one.
    """
    if id(module) in _looked_at:
        yield
        return
    parts = [part for _, part in named_parts(module)]
    modes = [part.training for part in parts]
    buffers = [(part, dict(part._buffers)) for part in parts if part._buffers]
    devices = {p.device for p in parameters(module) if p.is_cuda}
    with torch.random.fork_rng(devices):
        _looked_at.add(id(module))
        try:
            _set_modes(parts, [False] * len(parts))
            for part, saved in buffers:
                for name, buffer in saved.items():
                    part._buffers[name] = None if buffer is None else buffer.clone()
            yield
        finally:
            _looked_at.remove(id(module))
            _set_modes(parts, modes)
            for part, saved in buffers:
                for name, buffer in saved.items():
                    part._buffers[name] = buffer


def _set_modes(parts: Sequence[nn.Module], modes: Sequence[bool]) -> None:
    for part, mode in zip(parts, modes, strict=True):
        if part.training != mode:  # to set it takes longer than to look
            part.training = mode
