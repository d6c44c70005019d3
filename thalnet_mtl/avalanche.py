"""The one bridge to Avalanche: our stream, network, growth and metrics as parts of theirs.

Any of its strategies trains our network, and any of its users gets our host:

>>> from thalnet_mtl import Network, ThalNet, config, prepare
>>> from thalnet_mtl.avalanche import Growth, Loss, RichLogger, StreamMetrics, as_avalanche
>>> from thalnet_mtl.avalanche import benchmark  # before avalanche itself: see compat.py
>>> from thalnet_mtl.experiment import GrowthConfig, ModuleConfig
>>> from torch.optim import Adam
>>> from avalanche.training import Replay
>>> from avalanche.training.plugins import EvaluationPlugin
>>> tasks = prepare.make_tasks(config.load(["joint/digits"])[""])
>>> tasks = {name: task.to("cpu") for name, task in tasks.items()}
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

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalnet_mtl.compat import import_torchvision
from thalnet_mtl.config import Config, ModelConfig, StrategyConfig, UserError
from thalnet_mtl.continual import MEASURES
from thalnet_mtl.continual_metrics import AccuracyMatrix
from thalnet_mtl.experiment import GrowthConfig
from thalnet_mtl.growth import begin
from thalnet_mtl.mixed import Mixed, Sequences, collate, together
from thalnet_mtl.network import Network
from thalnet_mtl.tasks import Task
from thalnet_mtl.tracking import Screen

import_torchvision()

from avalanche.benchmarks import (
    CLScenario,
    benchmark_from_datasets,
    with_classes_timeline,
    with_task_labels,
)
from avalanche.benchmarks.utils import AvalancheDataset, _make_taskaware_classification_dataset
from avalanche.core import SupervisedPlugin
from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue
from avalanche.logging import BaseLogger
from avalanche.models import MultiTaskModule
from avalanche.training import plugins
from avalanche.training.determinism.rng_manager import RNGManager as RNGManager
from avalanche.training.plugins import EvaluationPlugin as EvaluationPlugin
from avalanche.training.supervised import Cumulative
from avalanche.training.templates import SupervisedTemplate

UNUSED = -1000.0  # logit of a class that a task does not have; as Avalanche's own masks


# Data


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
        part = Sequences(tasks[name], split, chunk, limit if split == "train" else 0)
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


# Network


class AvalancheNetwork(MultiTaskModule):
    """Our network in Avalanche's hands: task labels are places in ``names``, outputs are logits.

    In a batch of several tasks classes that a task does not have get a logit of −1000.
    """

    def __init__(self, network: Network, tasks: Mapping[str, Task]):
        super().__init__()
        self.network = network
        self.names = list(tasks)
        self.ports = [task.port for task in tasks.values()]
        self.shapes = {task.port: task.interface for task in tasks.values()}

    def adaptation(self, experience: Any) -> None:
        """Note the tasks. Avalanche also calls this to evaluate, when nothing may change."""
        if self.training:
            self.known_train_tasks_labels |= set(experience.task_labels)

    def forward(self, x: Any, task_labels: Any) -> Any:
        """Logits of every sequence, by its task; for labels None those of all tasks seen."""
        if task_labels is None:
            return self.forward_all_tasks(x)
        labels = torch.as_tensor(task_labels).flatten().tolist()
        if len(set(labels)) == 1:
            return self.forward_single_task(x, labels[0])
        rows: list[Any] = [None] * len(labels)
        for label in dict.fromkeys(labels):
            places = [k for k, other in enumerate(labels) if other == label]
            found = self.forward_single_task(x[torch.tensor(places)], label)
            for place, row in zip(places, found, strict=True):
                rows[place] = row
        if all(row.ndim == 1 for row in rows):
            most = max(len(row) for row in rows)
            rows = [F.pad(row, (0, most - len(row)), value=UNUSED) for row in rows]
        return together(rows)

    def forward_single_task(self, x: Any, task_label: int) -> Tensor:
        """Logits (batch, classes) or (batch, time, classes)."""
        port = self.ports[task_label]
        if port not in self.network.ports:
            raise UserError(
                f"task '{self.names[task_label]}' has no head yet: evaluate it after its "
                f"experience, or add_task before the first."
            )
        return self.network(port, x)[0]

    def forward_all_tasks(self, x: Any) -> dict[int, Tensor]:
        """Logits by task label, of the tasks seen that take inputs of this shape."""
        tokens, width = not x.is_floating_point(), x.shape[-1]
        takes = [
            shape.tokens if tokens else not shape.tokens and shape.inputs == width
            for shape in (self.shapes[port] for port in self.ports)
        ]
        seen = sorted(self.known_train_tasks_labels)
        return {label: self.forward_single_task(x, label) for label in seen if takes[label]}


def as_avalanche(network: Network, tasks: Mapping[str, Task]) -> AvalancheNetwork:
    """The model of an Avalanche strategy; ``tasks`` are those of its ``benchmark``."""
    return AvalancheNetwork(network, tasks)


class Loss(nn.Module):
    """Mean cross-entropy of the sequences of a batch, whatever their tasks."""

    def forward(self, logits: Any, ys: Any) -> Tensor:
        if isinstance(logits, Mixed) or isinstance(ys, Mixed):
            pairs = list(zip(logits, ys, strict=True))
            return torch.stack([self(row[None], target[None]) for row, target in pairs]).mean()
        return F.cross_entropy(logits.flatten(0, -2).float(), ys.flatten())


# Plugins


class Growth(SupervisedPlugin):
    """Growth with every new task: its modules, encoders and head before its experience begins.

    The optimizer keeps its moments, as nowhere else in Avalanche, and lets go of what is frozen.
    """

    supports_distributed = False

    def __init__(self, growth: GrowthConfig, model: ModelConfig | None = None):
        super().__init__()
        if growth.when == "on_plateau":
            raise UserError("growth on_plateau needs validation, which Avalanche does not give.")
        self.config = replace(Config(), growth=growth, model=model or ModelConfig())

    def before_training_exp(self, strategy: Any, *args: Any, **options: Any) -> None:
        model = strategy.model
        ports = list(dict.fromkeys(model.ports[k] for k in strategy.experience.task_labels))
        for change in begin(model.network, self.config, model.shapes, ports):
            change.carry(strategy.optimizer)
        settle(strategy)


def settle(strategy: Any) -> None:
    """Tell a strategy what its optimizer holds after a change: all that learns, nothing frozen.

    Before every experience Avalanche adds all parameters that it does not find.
    """
    for group in strategy.optimizer.param_groups:
        group["params"] = [p for p in group["params"] if p.requires_grad]
    learning = {n: p for n, p in strategy.model.named_parameters() if p.requires_grad}
    strategy.optimized_param_id = learning


class StreamMetrics(PluginMetric[dict[str, float]]):
    """ACC, AIA, forgetting (two definitions), BWT and FWT after each evaluation, ours.

    Scores are of the task's own metric. Emitted is what is defined: FWT needs an evaluation of all
    tasks before the first experience and after every other.
    """

    def __init__(self, tasks: Mapping[str, Task]):
        super().__init__()
        self.tasks, self.names = tasks, list(tasks)
        self.trained: list[list[str]] = []
        self.rows: list[dict[str, float]] = [{}]
        self.reset()

    def reset(self) -> None:
        """Begin a row."""
        self.sums: dict[str, list[float]] = {}

    def result(self) -> dict[str, float]:
        """The measures that are defined, by their short names."""
        if not self.trained:
            return {}
        names = [name for name in self.names if any(name in one for one in self.trained)]
        metrics = {name: self.tasks[name].metric for name in names}
        scores = [[row.get(name) for name in names] for row in self.rows]
        matrix = AccuracyMatrix(metrics, self.trained, scores)
        found = {label: measure(matrix).mean for label, measure in MEASURES.values()}
        return {label: mean for label, mean in found.items() if mean is not None}

    def before_training_exp(self, strategy: Any) -> None:
        self.trained.append([self.names[k] for k in strategy.experience.task_labels])
        self.rows.append({})

    def before_eval(self, strategy: Any) -> None:
        self.reset()

    def after_eval_iteration(self, strategy: Any) -> None:
        labels = strategy.mb_task_id.tolist()
        for label, logits, ys in zip(labels, strategy.mb_output, strategy.mb_y, strict=True):
            logits, ys = logits.view(-1, logits.shape[-1]).float(), ys.flatten()
            sums = self.sums.setdefault(self.names[label], [0.0, 0, 0])
            sums[0] += float(F.cross_entropy(logits, ys, reduction="sum"))
            sums[1] += int((logits.argmax(-1) == ys).sum())
            sums[2] += len(ys)

    def after_eval(self, strategy: Any) -> list[MetricValue]:
        for name, (nats, correct, count) in self.sums.items():
            self.rows[-1][name] = self.tasks[name].metric.value(nats, int(correct), int(count))
        at = strategy.clock.train_iterations
        return [MetricValue(self, f"{k}/eval_phase", v, at) for k, v in self.result().items()]


class RichLogger(BaseLogger):
    """A bar while an experience is learned, and every metric; plain lines where no one looks."""

    def __init__(self, screen: Screen | None = None):
        super().__init__()
        self.screen, self.bar = screen or Screen(), ExitStack()

    def log_single_metric(self, name: str, value: Any, x_plot: int) -> None:
        if isinstance(value, float):
            self.screen.line(f"  step {x_plot:,}  {name} {value:.4f}")

    def before_training_exp(self, strategy: Any, metrics: Any, **options: Any) -> None:
        model, now = strategy.model, strategy.experience
        names = [model.names[k] for k in now.task_labels]
        self.screen.line(f"experience {now.current_experience + 1}: {', '.join(names)} …")
        self.begin = strategy.clock.train_iterations
        total = len(strategy.dataloader) * strategy.train_epochs
        self.bar.enter_context(self.screen.progress(", ".join(names), 0, total))

    def after_training_iteration(self, strategy: Any, metrics: Any, **options: Any) -> None:
        self.screen.advance(strategy.clock.train_iterations - self.begin)

    def after_training_exp(self, strategy: Any, metrics: Any, **options: Any) -> None:
        self.bar.close()


# Strategies, as ``--train.strategy avalanche:NAME`` names them

Made = Callable[[StrategyConfig, int, int], list[Any]]  # of the knobs, a batch, the experiences
PLUGINS: dict[str, Made] = {
    "naive": lambda knobs, batch, count: [],
    "cumulative": lambda knobs, batch, count: [],
    "replay": lambda knobs, batch, count: [plugins.ReplayPlugin(knobs.memory)],
    "gdumb": lambda knobs, batch, count: [plugins.GDumbPlugin(knobs.memory)],
    "ewc": lambda knobs, batch, count: [plugins.EWCPlugin(knobs.strength)],
    "online_ewc": lambda knobs, batch, count: [
        plugins.EWCPlugin(knobs.strength, "online", knobs.decay)
    ],
    "mas": lambda knobs, batch, count: [plugins.MASPlugin(knobs.strength)],
    "rwalk": lambda knobs, batch, count: [plugins.RWalkPlugin(knobs.strength)],
    "lwf": lambda knobs, batch, count: [plugins.LwFPlugin(knobs.strength)],
    "agem": lambda knobs, batch, count: [plugins.AGEMPlugin(knobs.memory // count, batch)],
    "gem": lambda knobs, batch, count: [plugins.GEMPlugin(knobs.memory // count, 0.5)],
}


def strategy(
    name: str, knobs: StrategyConfig, experiences: int, first: SupervisedPlugin, **arguments: Any
) -> SupervisedTemplate:
    """A strategy of Avalanche by its name here; the plugin ``first`` is called before its own.

    ``strength`` is its λ or α, ``memory`` all sequences that it keeps, of which GEM and A-GEM give
    as many to each of the ``experiences``. ``arguments`` are those of ``SupervisedTemplate``.
    """
    own = PLUGINS[name](knobs, arguments["train_mb_size"], experiences)
    template = Cumulative if name == "cumulative" else SupervisedTemplate
    return template(plugins=[first, *own], **arguments)
