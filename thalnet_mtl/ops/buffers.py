"""Large buffers that are used again: fresh pages cost more than what is computed in them."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

LARGE = 1 << 20  # bytes below which it is not worth it
MOST = 2  # buffers of a size that wait, and four times as many sizes
LINE = 64  # bytes of a cache line

_spare: dict[int, list[np.ndarray]] = {}


class Lease(np.ndarray):
    """A buffer in use: it waits for the next one when the last tensor on it is gone."""

    def __del__(self) -> None:
        if self.base is None or _spare is None:  # a copy, or the interpreter is going
            return
        waiting = _spare.pop(self.nbytes, [])
        if len(waiting) < MOST:
            waiting.append(self.base)
        _spare[self.nbytes] = waiting  # the last of all sizes to be forgotten
        while len(_spare) > 4 * MOST:
            _spare.pop(next(iter(_spare)))


def empty(shape: Sequence[int], like: Tensor) -> Tensor:
    """As ``like.new_empty(shape)`` on a CPU."""
    size = math.prod(shape) * like.itemsize
    if size < LARGE:
        return like.new_empty(shape)
    waiting = _spare.get(size)
    memory = waiting.pop() if waiting else np.empty(size + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    lease = memory[start : start + size].view(Lease)
    return torch.from_numpy(lease).view(like.dtype).view(*shape)
