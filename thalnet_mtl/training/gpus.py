"""The GPUs that runs may use."""

import os

from thalnet_mtl.sweep.devices import VISIBLE


def visible_gpus() -> tuple[str, ...]:
    """Return the GPUs that PyTorch can use, as ``CUDA_VISIBLE_DEVICES`` names them.

    CUDA is not initialized where the driver's management library can count them.
    """
    import torch

    count = torch.cuda.device_count()  # of those that the variable leaves visible
    names = os.environ.get(VISIBLE)
    if names is None:
        return tuple(map(str, range(count)))
    return tuple(name.strip() for name in names.split(","))[:count]
