"""Inputs of the next training step: its tasks, their batches, and resets of carried states."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.sequences import map_states
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.batch import Batch
from thalnet_mtl.tasks.random_streams import step_generator
from thalnet_mtl.tasks.sequences import SequenceTask
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
    """Return a batch of each task of the next step, and count it as seen.

    Tasks that share their inputs get the sequences of the first of them.
    """
    batches, options, seen = dict[str, Batch](), run.config.train, run.state.batches_seen
    if (stream := run.task_stream) is not None:
        for name in stream.tasks_at(run.step):
            seen[name] += 1
        batch = stream.training_batch(run.step, options.batch, options.chunk, options.seed)
        return {stream.name: batch}
    names = sample_tasks(run)
    for first, *rest in group_by_inputs(run.config, names):
        step, size = seen[first], run.batch_size(first)
        batches[first] = run.tasks[first].training_batch(step, size, options.chunk, options.seed)
        for name in rest:
            task = whole_sequences(run.tasks[name])
            batches[name] = task.with_targets(batches[first], step, size, options.seed)
    for name in names:
        seen[name] += 1
    return {name: batches[name] for name in names}


def group_by_inputs(config: Config, names: Iterable[str]) -> list[list[str]]:
    """Return tasks in groups that share their inputs (``tasks.*.inputs_of``)."""
    groups: dict[str, list[str]] = {}
    for name in names:
        entry = config.tasks.get(name)
        groups.setdefault(entry.inputs_of or name if entry else name, []).append(name)
    return list(groups.values())


def share_inputs(config: Config, tasks: Mapping[str, Task]) -> None:
    """Let tasks read the inputs of others as configured, and drop their copies.

    Raises:
        UserError: the sequences of two tasks differ, or are not read whole.
    """
    for name, entry in config.tasks.items():
        if entry.inputs_of:
            whole_sequences(tasks[name]).share_inputs(whole_sequences(tasks[entry.inputs_of]))


def whole_sequences(task: Task) -> SequenceTask:
    """Return a task whose sequences are read whole; raise for any other."""
    if not isinstance(task, SequenceTask):
        raise UserError(
            f"task '{task.name}' cannot share its inputs: only tasks whose sequences are read "
            f"whole can, not a {type(task).__name__}."
        )
    return task


def reset_states(run: RunContext, task: str, state: Any, batch: int) -> Any:
    """Reset the carried state of randomly chosen sequences to that before the first step.

    The choice depends only on task, seed and step. Without resets a network may learn to need a
    past that no text begins with.

    Args:
        run: the run.
        task: a text, with ``reset`` as the probability of a reset.
        state: the carried state of all sequences, or of those that this rank computes.
        batch: the number of all.
    """
    probability = run.config.named_tasks[task].reset
    if not probability:
        return state
    generator = step_generator(f"reset {task}", run.seed, run.step)
    keep = (torch.rand(batch, generator=generator) >= probability).to(run.device)
    keep = run.ranks.rows(batch).of(keep)
    start = run.state.network.initial(run.learned_tasks[task].head_name, len(keep))

    def reset(part: Tensor, start: Tensor) -> Tensor:
        return torch.where(keep.view(-1, *[1] * (part.ndim - 1)), part, start)

    return map_states(reset, state, start)
