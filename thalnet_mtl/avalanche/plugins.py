"""Our growth and our metrics as plug-ins of Avalanche, and lines for a terminal."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from thalnet_mtl.compat import import_torchvision

import_torchvision()

from avalanche.core import SupervisedPlugin
from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue
from avalanche.logging import BaseLogger
from torch.nn import functional as F

from thalnet_mtl.config.schema import Config, GrowthConfig, ModelConfig
from thalnet_mtl.console import Console
from thalnet_mtl.errors import UserError
from thalnet_mtl.metrics.continual import AccuracyMatrix
from thalnet_mtl.metrics.summary import MEASURES
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.training.growth import add_new_tasks


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
        ports = list(dict.fromkeys(model.adapters[k] for k in strategy.experience.task_labels))
        for change in add_new_tasks(model.network, self.config, model.shapes, ports):
            change.update_optimizer(strategy.optimizer)
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

    def __init__(self, screen: Console | None = None):
        super().__init__()
        self.screen, self.bar = screen or Console(), ExitStack()

    def log_single_metric(self, name: str, value: Any, x_plot: int) -> None:
        if isinstance(value, float):
            self.screen.print(f"  step {x_plot:,}  {name} {value:.4f}")

    def before_training_exp(self, strategy: Any, metrics: Any, **options: Any) -> None:
        model, now = strategy.model, strategy.experience
        names = [model.names[k] for k in now.task_labels]
        self.screen.print(f"experience {now.current_experience + 1}: {', '.join(names)} …")
        self.begin = strategy.clock.train_iterations
        total = len(strategy.dataloader) * strategy.train_epochs
        self.bar.enter_context(self.screen.progress(", ".join(names), 0, total))

    def after_training_iteration(self, strategy: Any, metrics: Any, **options: Any) -> None:
        self.screen.advance(strategy.clock.train_iterations - self.begin)

    def after_training_exp(self, strategy: Any, metrics: Any, **options: Any) -> None:
        self.bar.close()
