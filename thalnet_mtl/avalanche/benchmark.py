"""The one bridge to Avalanche: our stream, network, growth and metrics as parts of theirs.

Any of its strategies trains our network, and any of its users gets our host:

>>> from thalnet_mtl import Network, ThalNet
>>> from thalnet_mtl.avalanche.benchmark import benchmark  # before avalanche: see compat.py
>>> from thalnet_mtl.avalanche.model import Loss, as_avalanche
>>> from thalnet_mtl.avalanche.plugins import Growth, RichLogger, StreamMetrics
>>> from thalnet_mtl.config.load import load_configs
>>> from thalnet_mtl.config.schema import GrowthConfig, ModuleConfig
>>> from thalnet_mtl.training.setup import make_tasks
>>> from torch.optim import Adam
>>> from avalanche.training import Replay
>>> from avalanche.training.plugins import EvaluationPlugin
>>> tasks = make_tasks(load_configs(["joint/digits"])[""])
>>> tasks = {name: task.load("cpu") for name, task in tasks.items()}
>>> stream = benchmark(tasks, limit=320)
>>> network = Network(ThalNet(inputs=8, modules=2, features=8))
>>> growth = GrowthConfig("per_task", "frozen", {"own": ModuleConfig(features=8, output=True)})
>>> evaluator = EvaluationPlugin(StreamMetrics(tasks), loggers=[RichLogger()])
>>> strategy = Replay(
...     model=as_avalanche(network, tasks), optimizer=Adam(network.parameters(), 0.01),
...     criterion=Loss(), mem_size=100, train_mb_size=32, eval_mb_size=100,
...     plugins=[Growth(growth)], evaluator=evaluator,
... )
>>> for experience in stream.train_stream:
...     _ = strategy.train(experience)
...     found = strategy.eval(stream.test_stream[: experience.current_experience + 1])
... # doctest: +ELLIPSIS
experience 1: digits_rows …
  step 10  ACC/eval_phase 0...
>>> 0 < found["ACC/eval_phase"] <= 1
True

Tasks of different shapes may meet in a batch, which is then a ``Mixed``. Avalanche 0.6 asks for
nothing else; what fits of its strategies, and what is wrong in some, is in the README of
``benchmarks/continual``.
"""

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

UNUSED = -1000.0  # logit of a class that a task does not have; as Avalanche's own masks


def benchmark(
    tasks: Mapping[str, Task],
    stream: Sequence[Sequence[str]] = (),
    chunk: int = 200,
    limit: int = 0,
) -> CLScenario:
    """Experiences with the training, validation and test parts of tasks, labelled by their order.

    Args:
        tasks: by name, with their data loaded.
        stream: names of the tasks of each experience; by default one after another.
        chunk: for text, tokens of a sequence.
        limit: at most so many training sequences of a task, drawn at random; 0 for all.
    """
    order = list(tasks)

    def data(name: str, split: str) -> AvalancheDataset[Any]:
        part = SequenceDataset(tasks[name], split, chunk, limit if split == "train" else 0)
        # A text has a target at every step, and is of one class where classes are balanced.
        classes = part.ys.tolist() if part.ys.ndim == 1 else [0] * len(part)
        return _make_taskaware_classification_dataset(
            part, task_labels=order.index(name), targets=classes, collate_fn=collate
        )

    def experience(names: Sequence[str], split: str) -> AvalancheDataset[Any]:
        first, *others = [data(name, split) for name in names]
        for other in others:
            first = first.concat(other)
        return first

    parts = stream or [[name] for name in order]
    streams = {
        name: [experience(names, split) for names in parts]
        for name, split in (("train", "train"), ("valid", "validation"), ("test", "test"))
    }
    made = with_classes_timeline(with_task_labels(benchmark_from_datasets(**streams)))
    for found in made.streams.values():
        for one in found:  # a set by accident: Avalanche's own multi-head classifier wants a list
            one.classes_in_this_experience = sorted(one.classes_in_this_experience)
    return made
