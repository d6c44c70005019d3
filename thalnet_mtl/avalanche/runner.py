"""Runs whose steps Avalanche takes: ``--train.strategy avalanche:NAME``.

Data, network, growth, evaluation and everything that a run writes are ours; the loop and the
strategy are Avalanche's. Its loader draws the batches, with text in chunks that start from an
empty state, and the logged loss is the one that it minimizes, penalties included. Its strategies
cannot be saved: an interrupted run starts again.
"""

import time
import warnings
from typing import Any, ClassVar

from thalnet_mtl.compat import import_torchvision

import_torchvision()

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.determinism.rng_manager import RNGManager
from avalanche.training.plugins import EvaluationPlugin
from torch.nn.utils import clip_grad_norm_

from thalnet_mtl.avalanche.benchmark import benchmark
from thalnet_mtl.avalanche.model import Loss, as_avalanche
from thalnet_mtl.avalanche.plugins import sync_parameters
from thalnet_mtl.avalanche.strategies import make_strategy
from thalnet_mtl.config.declarations import declaration
from thalnet_mtl.errors import UserError
from thalnet_mtl.strategies.base import Strategy
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.growth.base import rule_class
from thalnet_mtl.training.loop import Trainer
from thalnet_mtl.training.optimizers import make_optimizer
from thalnet_mtl.training.state import NOT_TRAINED
from thalnet_mtl.training.support import (
    BASIC,
    GROWTH_OPTIONS,
    STREAM,
    Supported,
    fields,
    unsupported,
)

# Strategies that fail inside Avalanche 0.6.0 when a network grows, or when old tasks are frozen.
FAILS_WITH_GROWTH = {
    "online_ewc": "it needs the same parameters in the same order. Use 'online_ewc' instead",
    "rwalk": "it needs the same parameters throughout",
    "gdumb": "it begins each experience with a copy of the first network",
}
FAILS_WITH_FROZEN = {
    "agem": "it needs gradients of frozen tasks. Use 'agem' instead",
    "gem": "it needs gradients of frozen tasks. Use 'gem' instead",
}

OURS = {  # the nearest of our own strategies
    "naive": "naive",
    "cumulative": "replay",
    "replay": "replay",
    "gdumb": "replay",
    "ewc": "ewc",
    "online_ewc": "online_ewc",
    "mas": "si",
    "rwalk": "si",
    "lwf": "lwf",
    "agem": "agem",
    "gem": "gem",
}

SUPPORTED: Supported = {
    **BASIC,
    **STREAM,
    **GROWTH_OPTIONS,
    **fields("model", "body"),
    **fields("task", "loss"),
    **fields("tasks.*", "share loss"),
    **fields("train", "optimizer dropout ops strategy"),
    "growth.when": ("never", "per_task", "on_plateau"),  # others may train, or replace networks
}


class AvalancheStrategy(Strategy):
    """A strategy of Avalanche that trains a run in Avalanche's loop.

    Args:
        context: of the run.
        options: of the strategy, as ``names`` declares them.

    Raises:
        UserError: the configuration asks for something that Avalanche's loop does not do.
    """

    resumable: ClassVar[bool] = False

    def __init__(self, context: RunContext, **options: Any):
        defaults = declaration("strategy", context.config.train.strategy).options
        self.options = {name: p.default for name, p in defaults.items()} | options
        check(context, self.options.get("memory", 0))
        super().__init__(context)

    def stored_bytes(self) -> None:
        """Return None: the size of what Avalanche stores is unknown."""

    def fit(self, trainer: Trainer) -> None:  # type: ignore[override]
        """Train all experiences with Avalanche, from the first step."""
        run, options = trainer.run, trainer.run.config.train
        RNGManager.set_random_seeds(options.seed)
        limit = max(part.stop - part.start for part in run.stream) * options.batch
        tasks_by_experience = [part.tasks for part in run.stream]
        stream = benchmark(run.tasks, tasks_by_experience, options.chunk, limit)
        model = as_avalanche(run.network, run.tasks)
        run.state.optimizer = make_optimizer(
            options.optimizer,
            [p for p in model.parameters() if p.requires_grad],
            lr=options.learning_rate,
            weight_decay=options.weight_decay,
        )
        strategy = make_strategy(
            options.strategy.partition(":")[2],
            self.options,
            len(run.stream),
            TrainerPlugin(trainer),
            model=model,
            optimizer=run.state.optimizer,
            criterion=Loss(model),
            train_mb_size=options.batch,
            train_epochs=run.total_steps,  # an upper bound: TrainerPlugin stops each experience
            device=run.device,
            evaluator=EvaluationPlugin(loggers=[_SilentLogger()]),
        )
        with warnings.catch_warnings():
            # Avalanche calls deprecated functions of its own, and indexes with lists of slices.
            for message in ("Call to deprecated function", "Using a non-tuple sequence"):
                warnings.filterwarnings("ignore", message, module="avalanche")
            for experience in stream.train_stream:
                strategy.train(experience, eval_streams=[])


def check(context: RunContext, memory: int) -> None:
    """Raise ``UserError`` if a run asks for something that Avalanche's loop cannot do.

    Args:
        context: of the run.
        memory: the number of sequences that the strategy stores.
    """
    config = context.config
    growth, strategy = config.growth, config.train.strategy
    if field := unsupported(config, SUPPORTED):
        advice = "leave it at its default."
        if field == "growth.when":
            advice = "it knows never and per_task. Strategies of our own go with any rule."
        raise UserError(f"{strategy} does not support {field}; {advice}")
    name, grows = strategy.partition(":")[2], rule_class(config).grows
    if grows and name in FAILS_WITH_GROWTH:
        raise UserError(f"{strategy} does not support growth: {FAILS_WITH_GROWTH[name]}.")
    if grows and growth.policy == "frozen" and name in FAILS_WITH_FROZEN:
        reason = FAILS_WITH_FROZEN[name]
        raise UserError(f"{strategy} does not support growth.policy 'frozen': {reason}.")
    if name in ("agem", "gem") and memory < len(config.stream):
        raise UserError(
            f"strategy.memory {memory}: must be at least {len(config.stream)} for "
            f"{strategy}, a sequence for each experience."
        )
    for task in context.tasks.values():
        if reason := unsuitable(name, task, context.chunk):
            raise UserError(
                f"{strategy} does not support task '{task.name}': {reason}. Use '{OURS[name]}' "
                f"instead."
            )
    for experience in context.stream:
        specs = {context.tasks[task].spec for task in experience.tasks}
        if name in ("gem", "lwf") and len(specs) > 1:
            raise UserError(f"{strategy} needs tasks of one shape in each experience.")
        shapes = {(spec.every_step, spec.every_step and spec.steps) for spec in specs}
        if name == "mas" and len(shapes) > 1:
            raise UserError(
                f"{strategy} needs outputs of one shape in each experience: all after the last "
                f"step, or at every step. Use 'si' instead."
            )


def unsuitable(name: str, task: Task, chunk: int) -> str:
    """Return why a strategy cannot learn from the data of a task, or ''."""
    if task.spec.input_names:
        return "it has several inputs, and a data set of Avalanche holds one tensor a sequence"
    if name == "lwf" and (task.spec.every_step or task.target.name != "class"):
        return "it distills one class for each sequence"
    if name in ("gem", "lwf") and task.sequences("train", chunk).lengths is not None:
        return "its sequences have unequal lengths, and it needs a batch in one tensor"
    return ""


class _SilentLogger:
    """A logger that does nothing; without one, Avalanche warns."""

    def log_metrics(self, metric_values: Any) -> None:
        pass


class TrainerPlugin(SupervisedPlugin):
    """A plugin that does everything around Avalanche's steps which our own loop does.

    That is growth, learning rate, gradient clipping, logging, validation, and tests at the end of
    an experience.
    """

    supports_distributed = False

    def __init__(self, trainer: Trainer):
        super().__init__()
        self.trainer, self.run = trainer, trainer.run

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.trainer.step_start = time.monotonic()
        self.run.state.network = strategy.model.network  # some strategies replace it by a copy
        self.grow_if_due(strategy)

    def before_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        if self.run.step > self.run.experience.start:
            self.grow_if_due(strategy)
        for group in strategy.optimizer.param_groups:
            group["lr"] = self.run.learning_rate()

    def grow_if_due(self, strategy: Any) -> None:
        """Grow the network if it is time, and tell Avalanche the new parameters."""
        if self.trainer.begin_experience_or_grow():
            sync_parameters(strategy)
            strategy.model.to(strategy.device).train()

    def before_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        if self.run.config.train.clip:
            norm = clip_grad_norm_(strategy.model.parameters(), self.run.config.train.clip)
            self.trainer.train_step.norm_before_clipping.copy_(norm)

    def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        run, experience = self.run, self.run.experience
        loss = strategy.loss.detach().reshape(())
        absent = torch.full_like(loss, NOT_TRAINED)
        losses = torch.stack([loss if name in experience.tasks else absent for name in run.tasks])
        for name in experience.tasks:
            run.state.batches_seen[name] += 1
        self.trainer.after_step(losses)
        if run.step == run.last_experience.stop:
            strategy.stop_training()
