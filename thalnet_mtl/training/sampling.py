"""One step of a run: a batch of each task, their losses, and the optimizer."""

from typing import Any

import torch

from thalnet_mtl.models.body import map_state
from thalnet_mtl.tasks.base import Batch
from thalnet_mtl.training.state import Run


def next_batches(run: Run) -> dict[str, Batch]:
    """A batch of each task of the next step."""
    batches = {}
    for name in run.sample_tasks():
        options, count = run.config.train, run.batches_seen[name]
        size = run.batch_size(name)
        batches[name] = run.tasks[name].training_batch(count, size, options.chunk, options.seed)
        run.batches_seen[name] += 1
    return batches


def reset_states(run: Run, task: str, state: Any, batch: int) -> Any:
    """The state of a text, without that of some places, as a function of seed and step.

    A net that is only ever carried on may come to need a past that no text begins with.
    """
    odds = run.config.named_tasks[task].reset
    if not odds:
        return state
    generator = torch.Generator().manual_seed(1_000_003 * run.config.train.seed + run.step)
    kept = (torch.rand(batch, generator=generator) >= odds).to(run.device)
    return map_state(lambda part: part * kept.view(-1, *[1] * (part.ndim - 1)), state)
