"""Scores where nobody says which task test sequences belong to: their inputs choose the path."""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import torch

from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.modes import evaluation_mode
from thalnet_mtl.models.path_choice import SAMPLES
from thalnet_mtl.runs.results import UnknownTaskScores
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.evaluation import Evaluation
from thalnet_mtl.tasks.random_streams import step_generator
from thalnet_mtl.training.context import RunContext


def check_unknown_tasks(config: Config, tasks: Mapping[str, Task]) -> None:
    """Raise if a task that nobody tells has no other path to choose, or its scaling tells it.

    Args:
        config: of the run.
        tasks: by name; of those whose data is loaded, it is checked as well.
    """
    for name in config.unknown_tasks:
        where, task = f"tasks.{name}.unknown", tasks[name]
        others = [tasks[other] for other in config.trained_tasks]
        others = [o for o in others if o.head_name != task.head_name and _same_inputs(o, task)]
        if not others:
            raise UserError(
                f"{where}: there is no path to choose, as no trained task with another head has "
                f"inputs of its shape; leave the option out."
            )
        for other in others:
            if other.scalings[0] != task.scalings[0]:
                raise UserError(
                    f"{where}: its inputs and those of '{other.name}' are scaled by their own mean "
                    f"and deviation, which already tells the task; use standardize: false."
                )
        for each in (task, *others):
            if each.splits and len(each.sequences("train", config.train.chunk)) < 2:
                raise UserError(f"{where}: task '{each.name}' has a single training sequence.")


def _same_inputs(first: Task, second: Task) -> bool:
    return (first.spec.inputs, first.spec.tokens) == (second.spec.inputs, second.spec.tokens)


def fit_paths(run: RunContext, tasks: Iterable[str]) -> None:
    """Fit densities to up to 1,000 training sequences of each task; of a text, to chunks.

    Nothing happens if all tasks are told at test time.
    """
    for name in tasks if run.config.unknown_tasks else ():
        task, chooser = run.tasks[name], run.state.paths
        # That of a task that returns would be the same; one that never began has no path.
        if name not in chooser.tasks and name in run.attached_tasks:
            data = task.sequences("train", run.chunk)
            generator = step_generator("paths", run.seed, 0)
            places = torch.randperm(len(data), generator=generator)[:SAMPLES].sort().values
            batch = task.to_batch(data.select(places))
            chooser.fit(name, task.spec, batch.xs, batch.lengths)


@torch.no_grad()
def unknown_task_scores(run: RunContext, name: str) -> UnknownTaskScores:
    """Return the scores of a task on its test split, where its sequences choose their path.

    The paths of all tasks whose inputs have the same shape compete. The answer of another path
    counts as it is if it means the same; otherwise it is wrong: a class or a label that is not the
    target, or the mean of numbers.

    Args:
        run: with the densities of its tasks.
        name: of the task.
    """
    task, options = run.tasks[name], run.config.evaluate
    attached = run.attached_tasks
    names = [other for other in run.state.paths.fitting(task.spec) if other in attached]
    heads = [run.tasks[other].head_name for other in names]
    constant = task.target.constant(task.sequences("train", run.chunk).ys, task.spec.outputs)
    evaluation, batches, states = Evaluation(task), list[str](), dict[str, Any]()
    counts = dict.fromkeys([task.head_name, *heads], 0)
    with evaluation_mode(run.network):
        for batch in islice(
            task.iterate("test", options.batch, run.chunk), options.batches or None
        ):
            states = {} if batch.starts_sequence else states
            values = run.state.paths.log_likelihoods(batch.xs, batch.lengths, names)
            chosen = values.argmax(1)
            batches.append(heads[int(values.sum(0).argmax())])
            outputs = task.target.wrong(batch.ys, constant)
            for place, other in enumerate(names):
                rows = (chosen == place).nonzero().flatten()
                counts[heads[place]] += len(rows)
                if not means_the_same(task, run.tasks[other]):
                    continue
                if task.carries_state:  # a path goes on where other sequences had chosen it
                    answers, states[other] = run.network(heads[place], batch.xs, states.get(other))
                    outputs[rows] = answers[rows].to(outputs)
                elif len(rows):
                    part = batch.select(rows)
                    answers, _ = run.network(heads[place], part.xs, None, part.lengths)
                    outputs[rows] = answers.to(outputs)
            evaluation.update(outputs, batch)
    scores, total = evaluation.compute(), sum(counts.values())
    return UnknownTaskScores(
        path=task.head_name,
        values={metric.name: scores[metric.name] for metric in task.metrics},
        chosen={head: count / total for head, count in counts.items()},
        own_batches=batches.count(task.head_name) / len(batches),
    )


def means_the_same(first: Task, second: Task) -> bool:
    """Return whether the answers to two tasks can stand for each other."""
    if first.head_name == second.head_name:
        return True
    shapes = [(t.target.name, t.spec.outputs, t.spec.every_step) for t in (first, second)]
    return bool(first.meaning) and first.meaning == second.meaning and shapes[0] == shapes[1]
