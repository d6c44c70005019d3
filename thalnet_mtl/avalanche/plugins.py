"""Plugins for programs of Avalanche: growth of a ThalNet, metrics of a stream, and a logger."""

import math
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

from thalnet_mtl.avalanche.model import rows_by_task
from thalnet_mtl.config.schema import Config, GrowthConfig, ModelConfig
from thalnet_mtl.console import Console
from thalnet_mtl.errors import UserError
from thalnet_mtl.metrics.continual import AccuracyMatrix
from thalnet_mtl.metrics.summary import MEASURES
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.evaluation import Evaluation
from thalnet_mtl.training.growth.modules import add_tasks, check_trainable


class Growth(SupervisedPlugin):
    """Growth before the experience of a new task: modules, encoders and a head are added for it.

    The optimizer keeps the moments of existing parameters, which no plugin of Avalanche does, and
    drops parameters that are frozen.

    Args:
        growth: which modules are attached, and whether old tasks are frozen.
        model: defaults for the new modules.

    Raises:
        UserError: a rule that needs scores on validation data; before an experience,
            that nothing can be trained in it.
    """

    supports_distributed = False

    def __init__(self, growth: GrowthConfig, model: ModelConfig | None = None):
        super().__init__()
        if growth.when not in ("never", "per_task"):
            raise UserError(
                f"growth.when '{growth.when}' needs validation scores, which Avalanche does not "
                f"pass to plugins; use 'per_task'."
            )
        self.config = replace(Config(), growth=growth, model=model or ModelConfig())

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        model = strategy.model
        heads = list(dict.fromkeys(model.heads[k] for k in strategy.experience.task_labels))
        attach = self.config.growth.when == "per_task"
        for change in add_tasks(model.network, self.config, model.specs, heads, attach):
            change.update_optimizer(strategy.optimizer)
        check_trainable(model.network, self.config.growth, heads)
        sync_parameters(strategy)


def sync_parameters(strategy: Any) -> None:
    """Make a strategy's optimizer hold the trainable parameters only, after a change.

    Avalanche adds all parameters that it does not know to the optimizer before each experience,
    frozen ones too; therefore tell it that the trainable ones are those that it knows.
    """
    for group in strategy.optimizer.param_groups:
        group["params"] = [p for p in group["params"] if p.requires_grad]
    trainable = {n: p for n, p in strategy.model.named_parameters() if p.requires_grad}
    strategy.optimized_param_id = trainable


class StreamMetrics(PluginMetric[dict[str, float]]):
    """ACC, AIA, forgetting (two definitions), BWT and FWT of this package after each evaluation.

    The scores are in each task's main metric. Every stream has measures of its own, named as
    Avalanche names them: ``ACC/eval_phase/test_stream``. Only those that are defined are emitted:
    FWT needs an evaluation of all tasks before the first experience and after each experience. One
    that was emitted earlier and is no longer defined is NaN.
    """

    def __init__(self, tasks: Mapping[str, Task]):
        super().__init__()
        self.tasks, self.names = tasks, list(tasks)
        self.trained: list[list[str]] = []
        self.rows: dict[str, list[dict[str, float]]] = {}  # of scores, by stream and experience
        self.emitted: set[str] = set()
        self.reset()

    def reset(self) -> None:
        """Start a new evaluation."""
        self.evaluations: dict[str, dict[str, Evaluation]] = {}  # by stream and task

    def result(self) -> dict[str, float]:
        """Return the measures that are defined, by name, of the streams evaluated since a reset."""
        seen = {name for names in self.trained for name in names}
        names = [name for name in self.names if name in seen]
        metrics = {name: self.tasks[name].metric for name in names}
        means: dict[str, float] = {}
        for stream in self.evaluations if names else ():
            scores = [[row.get(name) for name in names] for row in self._rows(stream)]
            matrix = AccuracyMatrix(metrics, self.trained, scores)
            for label, measure in MEASURES.values():
                mean = measure(matrix).mean
                means |= {} if mean is None else {f"{label}/eval_phase/{stream}_stream": mean}
        return means

    def _rows(self, stream: str) -> list[dict[str, float]]:
        """Return the scores on a stream: before training, and after each experience so far."""
        rows = self.rows.setdefault(stream, [])
        rows += [{} for _ in range(1 + len(self.trained) - len(rows))]
        return rows

    def before_training_exp(self, strategy: Any) -> None:
        self.trained.append([self.names[k] for k in strategy.experience.task_labels])

    def before_eval(self, strategy: Any) -> None:
        self.reset()

    def after_eval_iteration(self, strategy: Any) -> None:
        of_stream = self.evaluations.setdefault(strategy.experience.origin_stream.name, {})
        tasks, labels = list(self.tasks.values()), strategy.mb_task_id.tolist()
        rows = rows_by_task(tasks, labels, strategy.mb_output, strategy.mb_y)
        for (task, outputs, batch), label in zip(rows, dict.fromkeys(labels), strict=True):
            of_stream.setdefault(self.names[label], Evaluation(task)).update(outputs, batch)

    def after_eval(self, strategy: Any) -> list[MetricValue]:
        for stream, evaluations in self.evaluations.items():
            for name, evaluation in evaluations.items():
                score = evaluation.compute()[self.tasks[name].metric.name]
                self._rows(stream)[-1][name] = score
        measures, step = self.result(), strategy.clock.train_iterations
        ends = tuple(f"/{stream}_stream" for stream in self.evaluations)
        undefined = {name for name in self.emitted if name.endswith(ends)} - measures.keys()
        self.emitted |= measures.keys()
        values = measures | dict.fromkeys(sorted(undefined), math.nan)
        return [MetricValue(self, name, value, step) for name, value in values.items()]


class RichLogger(BaseLogger):
    """A logger with a progress bar for each experience; plain lines if there is no terminal."""

    def __init__(self, console: Console | None = None):
        super().__init__()
        self.console, self.bar = console or Console(), ExitStack()
        self.first_step = 0

    def log_single_metric(self, name: str, value: Any, x_plot: int) -> None:
        if isinstance(value, float) and not math.isnan(value):
            self.console.print(f"  step {x_plot:,}  {name} {value:.4f}")

    def before_training_exp(self, strategy: Any, metrics: Any, **kwargs: Any) -> None:
        model, experience = strategy.model, strategy.experience
        names = ", ".join(model.names[k] for k in experience.task_labels)
        self.console.print(f"experience {experience.current_experience + 1}: {names} …")
        self.first_step = strategy.clock.train_iterations
        total = len(strategy.dataloader) * strategy.train_epochs
        self.bar.enter_context(self.console.progress(names, 0, total))

    def after_training_iteration(self, strategy: Any, metrics: Any, **kwargs: Any) -> None:
        self.console.advance(strategy.clock.train_iterations - self.first_step)

    def after_training_exp(self, strategy: Any, metrics: Any, **kwargs: Any) -> None:
        self.bar.close()
