"""Tasks as a benchmark of Avalanche: streams of experiences with task labels."""

from collections.abc import Mapping, Sequence
from typing import Any

from thalnet_mtl.compat import import_torchvision

import_torchvision()

from avalanche.benchmarks import (
    CLScenario,
    benchmark_from_datasets,
    with_classes_timeline,
    with_task_labels,
)
from avalanche.benchmarks.utils import AvalancheDataset, _make_taskaware_classification_dataset

from thalnet_mtl.avalanche.ragged import SequenceDataset, collate
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.class_groups import ClassGroups


def benchmark(
    tasks: Mapping[str, Task],
    stream: Sequence[Sequence[str]] = (),
    chunk: int = 200,
    limit: int = 0,
) -> CLScenario:
    """Return the training, validation and test streams of tasks; labels are their positions.

    Args:
        tasks: by name, with their data loaded.
        stream: names of the tasks of each experience; by default one task after another.
        chunk: for text, tokens in a sequence.
        limit: maximum number of training sequences of a task, drawn at random; 0 for all.

    Raises:
        UserError: a task has several inputs.
    """
    order = list(tasks)
    groups = {name: ClassGroups(task, chunk) for name, task in tasks.items()}

    def task_data(name: str, split: str) -> AvalancheDataset[Any]:
        data = SequenceDataset(tasks[name], split, chunk, limit if split == "train" else 0)
        classes = groups[name].of(data.data.ys).tolist()  # what GDumb balances
        return _make_taskaware_classification_dataset(
            data, task_labels=order.index(name), targets=classes, collate_fn=collate
        )

    def experience_data(names: Sequence[str], split: str) -> AvalancheDataset[Any]:
        first, *rest = [task_data(name, split) for name in names]
        for data in rest:
            first = first.concat(data)
        return first

    experiences = stream or [[name] for name in order]
    streams = {
        name: [experience_data(names, split) for names in experiences]
        for name, split in (("train", "train"), ("valid", "validation"), ("test", "test"))
    }
    scenario = with_classes_timeline(with_task_labels(benchmark_from_datasets(**streams)))
    for experience in (part for parts in scenario.streams.values() for part in parts):
        # Avalanche makes this a set, but its own multi-head classifier needs a list.
        classes = experience.classes_in_this_experience
        experience.classes_in_this_experience = sorted(classes)
    return scenario
