"""A pool of large CPU buffers, since writing to fresh pages can cost more than the computation."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

MIN_BYTES = 1 << 20  # smaller buffers are not worth pooling
PER_SIZE = 2  # free buffers of a size that the pool holds
SIZES = 8  # sizes that it holds
CACHE_LINE = 64  # bytes

_free: dict[int, list[np.ndarray]] = {}  # by size in bytes, the one used last at the end


class PooledArray(np.ndarray):
    """A buffer in use; it returns to the pool when the last tensor on it is gone."""

    def __del__(self) -> None:
        if self.base is None or _free is None:  # a copy, or the interpreter is shutting down
            return
        buffers = _free.pop(self.nbytes, [])
        if len(buffers) < PER_SIZE:
            buffers.append(self.base)
        _free[self.nbytes] = buffers
        while len(_free) > SIZES:
            _free.pop(next(iter(_free)))


def empty(shape: Sequence[int], like: Tensor) -> Tensor:
    """Return an uninitialized tensor like ``like.new_empty(shape)`` on a CPU, pooled if large."""
    size = math.prod(shape) * like.itemsize
    if size < MIN_BYTES:
        return like.new_empty(shape)
    buffers = _free.get(size)
    buffer = buffers.pop() if buffers else np.empty(size + CACHE_LINE, np.uint8)
    start = -buffer.ctypes.data % CACHE_LINE
    array = buffer[start : start + size].view(PooledArray)
    return torch.from_numpy(array).view(like.dtype).view(*shape)
