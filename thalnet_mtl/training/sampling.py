"""Inputs of the next training step: its tasks, their batches, and resets of carried states."""

from typing import Any

import torch

from thalnet_mtl.models.sequences import map_state
from thalnet_mtl.tasks.base import Batch
from thalnet_mtl.tasks.random_streams import step_generator
from thalnet_mtl.training.context import RunContext


def sample_tasks(run: RunContext) -> list[str]:
    """Return the tasks of the next step: all, or with ``train.draw`` T > 0 a random one.

    A task is drawn with a probability ∝ size^(1/T), as a function of seed and step.
    """
    names, temperature = run.active_tasks, run.config.train.draw
    if not temperature or len(names) < 2:
        return names
    named = run.config.named_tasks
    sizes = [named[name].share or run.batches_per_epoch(name) for name in names]
    logs = torch.tensor(sizes, dtype=torch.float64).log()
    odds = ((logs - logs.max()) / temperature).softmax(0)  # no overflow at a small T
    generator = step_generator("task", run.seed, run.step)
    return [names[int(torch.multinomial(odds, 1, generator=generator))]]


def next_batches(run: RunContext) -> dict[str, Batch]:
    """Return a batch of each task of the next step, and count it as seen."""
    batches, options, seen = {}, run.config.train, run.state.batches_seen
    for name in sample_tasks(run):
        batches[name] = run.tasks[name].training_batch(
            seen[name], run.batch_size(name), options.chunk, options.seed
        )
        seen[name] += 1
    return batches


def reset_states(run: RunContext, task: str, state: Any, batch: int) -> Any:
    """Reset the carried state of randomly chosen sequences to zero.

    The choice depends only on task, seed and step. Without resets a network may learn to need a
    past that no text begins with.

    Args:
        run: the run.
        task: a text, with ``reset`` as the probability of a reset.
        state: the carried state of all sequences.
        batch: their number.
    """
    probability = run.config.named_tasks[task].reset
    if not probability:
        return state
    generator = step_generator(f"reset {task}", run.seed, run.step)
    keep = (torch.rand(batch, generator=generator) >= probability).to(run.device)
    return map_state(lambda part: part * keep.view(-1, *[1] * (part.ndim - 1)), state)
