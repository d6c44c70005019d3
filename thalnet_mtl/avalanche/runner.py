"""A run whose steps are Avalanche's: ``--train.strategy avalanche:NAME``.

Data, network, growth, evaluation and everything that a run writes are ours, the loop and the
strategy theirs. A batch is drawn by their loader, text in chunks that begin without a state, and
the loss that is logged is what they minimize, penalties included. Their strategies cannot be saved:
an interrupted run starts anew.
"""

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from thalnet_mtl.compat import import_torchvision

import_torchvision()

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.determinism.rng_manager import RNGManager
from avalanche.training.plugins import EvaluationPlugin
from torch.nn.utils import clip_grad_norm_

from thalnet_mtl.avalanche.benchmark import benchmark
from thalnet_mtl.avalanche.model import Loss, as_avalanche
from thalnet_mtl.avalanche.plugins import settle
from thalnet_mtl.avalanche.strategies import strategy
from thalnet_mtl.config.schema import Config
from thalnet_mtl.console import Console
from thalnet_mtl.errors import UserError
from thalnet_mtl.runs.directory import RunDirectory
from thalnet_mtl.training.optimizers import OPTIMIZERS
from thalnet_mtl.training.setup import make_tasks
from thalnet_mtl.training.state import NOT_TRAINED, Run
from thalnet_mtl.training.trainer import Interrupted, after_step, begin_experience, start
from thalnet_mtl.training.trainer import train as train_as_ours

# What stops inside Avalanche 0.6.0 when a network grows, and when the old is frozen: why.
GROWS = {
    "online_ewc": "it wants the parameters of before, in that order; 'online_ewc' is ours",
    "rwalk": "it wants the parameters of before and no others",
    "gdumb": "it begins every experience with a copy of the first network",
}
FROZEN = {
    "agem": "it wants gradients of old tasks, of which nothing learns; 'agem' is ours",
    "gem": "it wants gradients of old tasks, of which nothing learns",
}


def train(config: Config, folder: Path, screen: Console | None = None) -> dict[str, Any]:
    """As ``train.train``, but that it cannot go on where it stopped."""
    check(config)
    return train_as_ours(config, folder, screen, begin=begin_anew, learn=learn)


def check(config: Config) -> None:
    """Raise if something is asked for that their loop does not do."""
    options, growth, full = config.train, config.growth, config.train.strategy
    asked = {
        "train.combine": options.combine != "fixed",
        "train.draw": options.draw,
        "train.patience": options.patience,
        "train.precision": options.precision != "fp32",
        "changes": config.changes,
        "tasks.….reset": any(task.reset for task in config.named_tasks.values()),
        "tasks.….batch": any(task.batch for task in config.named_tasks.values()),
        "tasks.….weight": any(task.weight != 1 for task in config.named_tasks.values()),
    }
    for key in (key for key, found in asked.items() if found):
        raise UserError(f"{key}: not with {full}, whose loop is Avalanche's. Leave it as it is.")
    name, grows = full.partition(":")[2], growth.when != "never"
    if grows and name in GROWS:
        raise UserError(f"{full} stops when a network grows: {GROWS[name]}.")
    if grows and growth.policy == "frozen" and name in FROZEN:
        raise UserError(f"{full} stops when the old is frozen: {FROZEN[name]}.")
    if name in FROZEN and config.strategy.memory < len(config.stream):
        raise UserError(f"strategy.memory: must be at least {len(config.stream)} for {full}.")
    shapes = {name: task.spec for name, task in make_tasks(config).items()}
    steps = [task for task, shape in shapes.items() if shape.target == "every"]
    if name == "lwf" and steps:
        raise UserError(
            f"{full} distils one answer a sequence, and '{steps[0]}' has one a step; 'lwf' is ours."
        )
    mixed = any(len({shapes.get(task) for task in one.tasks}) > 1 for one in config.stream)
    if name in ("gem", "lwf") and mixed:
        raise UserError(f"{full}: the tasks of an experience must be of one shape.")


def begin_anew(run: Run, directory: RunDirectory, screen: Console) -> None:
    """Forget what an interrupted run has left."""
    directory.rewind(0, anew=True)
    start(run, directory, screen)


def learn(run: Run, directory: RunDirectory, screen: Console, stopped: Callable[[], bool]) -> None:
    """All experiences, one after another."""
    options = run.config.train
    RNGManager.set_random_seeds(options.seed)
    most = max(one.stop - one.start for one in run.stream) * options.batch
    stream = benchmark(run.tasks, [one.tasks for one in run.stream], options.chunk, most)
    model = as_avalanche(run.network, run.tasks)
    run.optimizer = OPTIMIZERS[options.optimizer](
        [p for p in model.parameters() if p.requires_grad],
        lr=options.learning_rate,
        weight_decay=options.weight_decay,
    )
    made = strategy(
        options.strategy.partition(":")[2],
        run.config.strategy,
        len(run.stream),
        TrainerPlugin(run, directory, screen, stopped),
        model=model,
        optimizer=run.optimizer,
        criterion=Loss(),
        train_mb_size=options.batch,
        train_epochs=run.total,  # it is stopped before
        device=run.device,
        evaluator=EvaluationPlugin(loggers=[_Silent()]),
    )
    with warnings.catch_warnings():
        # Of its calls of its own methods, and of lists of slices as an index, which still work.
        for message in ("Call to deprecated function", "Using a non-tuple sequence"):
            warnings.filterwarnings("ignore", message, module="avalanche")
        for experience in stream.train_stream:
            made.train(experience, eval_streams=[])


class _Silent:
    """A logger, without which Avalanche warns."""

    def log_metrics(self, metric_values: Any) -> None:
        pass


class TrainerPlugin(SupervisedPlugin):
    """What our loop does around a step: growth, rate, clipping, log, validation, rows of R."""

    supports_distributed = False

    def __init__(
        self, run: Run, directory: RunDirectory, screen: Console, stopped: Callable[[], bool]
    ):
        super().__init__()
        self.run, self.directory, self.screen, self.stopped = run, directory, screen, stopped

    def before_training_exp(self, strategy: Any, *args: Any, **options: Any) -> None:
        self.begin = time.monotonic()
        self.run.network = strategy.model.network  # some strategies begin with another one
        self.grow(strategy)

    def before_training_iteration(self, strategy: Any, *args: Any, **options: Any) -> None:
        if self.run.step > self.run.experience.start:
            self.grow(strategy)
        for group in strategy.optimizer.param_groups:
            group["lr"] = self.run.rate()

    def grow(self, strategy: Any) -> None:
        """If it is time."""
        before = len(self.run.history)
        begin_experience(self.run, self.directory, self.screen)
        if len(self.run.history) > before:
            settle(strategy)
            strategy.model.to(strategy.device).train()

    def before_update(self, strategy: Any, *args: Any, **options: Any) -> None:
        if self.run.config.train.clip:
            clip_grad_norm_(strategy.model.parameters(), self.run.config.train.clip)

    def after_training_iteration(self, strategy: Any, *args: Any, **options: Any) -> None:
        run, now = self.run, self.run.experience
        loss = strategy.loss.detach().reshape(())
        nothing = torch.full_like(loss, NOT_TRAINED)
        losses = torch.stack([loss if name in now.tasks else nothing for name in run.tasks])
        for name in now.tasks:
            run.batches_seen[name] += 1
        after_step(run, self.directory, self.screen, losses, run.rate(), self.begin)
        self.begin = time.monotonic()
        if self.stopped() and run.step < run.total:
            raise Interrupted(
                f"stopped at step {run.step:,} of {run.total:,}; Avalanche's strategies cannot be "
                f"saved, the same command starts anew"
            )
        if run.step == now.stop:
            strategy.stop_training()
