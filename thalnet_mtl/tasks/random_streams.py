"""Independent random streams for the draws of a training step."""

import zlib

import numpy as np
import torch


def step_generator(purpose: str, seed: int, step: int) -> torch.Generator:
    """Return a generator that depends only on what is drawn, the seed of a run and the step.

    Draws for different purposes come from independent streams (NumPy's ``SeedSequence`` over the
    three values), so that the task that is sampled says nothing of what is replayed.

    Args:
        purpose: a name of what is drawn, such as ``"replay"``.
        seed: ``train.seed``.
        step: number of the step.
    """
    entropy = [zlib.crc32(purpose.encode()), seed, step]
    (state,) = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state))
