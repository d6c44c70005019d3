"""A run in memory: what is trained, how far it is, and how a checkpoint holds all of that."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thalnet_mtl import checkpoint
from thalnet_mtl import config as configs
from thalnet_mtl.config import Config, UserError, flatten
from thalnet_mtl.evaluate import evaluate
from thalnet_mtl.network import Network, build, parameters
from thalnet_mtl.registry import lookup
from thalnet_mtl.tasks import Task

SMALL_NETWORK = 500_000  # parameters below which a second CPU thread costs more than it brings

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "rmsprop": torch.optim.RMSprop,
    "adam": lambda *args, **options: torch.optim.Adam(*args, fused=True, **options),
    "adamw": lambda *args, **options: torch.optim.AdamW(*args, fused=True, **options),
}

# What changes while training, beside weights, moments, losses and random state.
PROGRESS = ("step", "best", "best_step", "untrained", "seconds", "train_seconds")
UNTRAINED_BATCHES = 10  # of the test part: enough to see what guessing scores


@dataclass
class Run:
    """One network on its way through one task."""

    config: Config
    device: torch.device
    task: Task
    network: Network
    optimizer: torch.optim.Optimizer
    losses: Tensor  # of the steps since the last line of the log
    state: Any = None  # carried from chunk to chunk of a text
    step: int = 0
    best: dict[str, float] = field(default_factory=dict)  # on validation
    best_step: int = 0
    untrained: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    train_seconds: float = 0.0

    @property
    def epoch(self) -> int:
        """Steps in a pass over the training part."""
        return self.task.steps("train", self.config.train.batch, self.config.train.chunk)

    @property
    def total(self) -> int:
        """Steps in all."""
        return self.config.train.steps or self.config.train.epochs * self.epoch

    def rate(self) -> float:
        """Learning rate of the next step: linear warm-up, then constant or half a cosine to 0."""
        options = self.config.train
        if self.step < options.warmup:
            return options.learning_rate * (self.step + 1) / options.warmup
        if options.schedule == "constant":
            return options.learning_rate
        progress = (self.step - options.warmup) / max(1, self.total - options.warmup)
        return options.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))

    def score(self, split: str, batches: int | None = None) -> dict[str, float]:
        """Loss, metric and count on one part of the data, as far as the configuration looks."""
        look = self.config.evaluate
        batches = look.batches if batches is None else batches
        chunk = self.config.train.chunk
        return evaluate(self.network, self.task, split, look.batch, chunk, batches)

    def save(self, path: Path, metrics_size: int) -> None:
        """Write a checkpoint; ``metrics_size`` is how much of the log belongs to it."""
        rng = [torch.get_rng_state()]
        if self.device.type == "cuda":
            rng.append(torch.cuda.get_rng_state())
        content = {
            "config": flatten(self.config),
            **{name: getattr(self, name) for name in PROGRESS},
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "losses": self.losses,
            "state": self.state if isinstance(self.state, Tensor | None) else list(self.state),
            "rng": rng,
            "metrics_size": metrics_size,
        }
        checkpoint.save(path, content)

    def restore(self, path: Path) -> int:
        """Read a checkpoint; returns its ``metrics_size``."""
        content = checkpoint.load_of(path, self.config)
        checkpoint.load_weights(self.network, content["network"], path)
        self.optimizer.load_state_dict(content["optimizer"])
        for name in PROGRESS:
            setattr(self, name, content[name])
        self.losses.copy_(content["losses"])
        saved = content["state"]
        if isinstance(saved, list):
            kind = type(self.network.body.initial(torch.zeros(1, 1, 1)))
            self.state = kind(*(part.to(self.device) for part in saved))
        else:
            self.state = saved if saved is None else saved.to(self.device)
        torch.set_rng_state(content["rng"][0])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(content["rng"][1])
        return content["metrics_size"]


def prepare(config: Config, fetch: Callable[[str], None]) -> Run:
    """Build everything that a configuration names; ``fetch`` gets a data set that is missing.

    Raises:
        UserError: something cannot be built or trained.
    """
    device = choose_device(config.train.device)
    task: Task = lookup("task", config.task.name)(config.task)
    torch.manual_seed(config.train.seed)
    network = build(config.model, {task.name: task.interface}).to(device)
    small = parameters(network) < SMALL_NETWORK
    torch.set_num_threads(config.train.threads or (1 if small else os.cpu_count() or 1))
    if task.source:
        fetch(task.source)
    task.to(device)
    options = config.train
    optimizer = OPTIMIZERS[options.optimizer](
        network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
    )
    losses = torch.zeros(config.evaluate.log_every, device=device)
    look = config.evaluate.batch
    for split, size in (("train", options.batch), ("validation", look), ("test", look)):
        task.steps(split, size, options.chunk)  # raises if there is not one batch
    run = Run(config, device, task, network, optimizer, losses)
    if options.warmup >= run.total:
        raise UserError(f"train.warmup {options.warmup} leaves none of the {run.total} steps.")
    return run


@dataclass(frozen=True)
class LoadedRun:
    """What a run directory says: its configuration, its task, its best network so far."""

    folder: Path
    config: Config
    task: Task
    network: Network
    step: int


def load_run(folder: Path) -> LoadedRun:
    """Read a run, finished or not; its data is not loaded."""
    config = configs.load_run(folder)
    task: Task = lookup("task", config.task.name)(config.task)
    network = build(config.model, {task.name: task.interface})
    path = folder / "checkpoint" / "best.pt"
    best = checkpoint.load_of(path, config)
    checkpoint.load_weights(network, best["network"], path)
    return LoadedRun(folder, config, task, network.eval(), best["step"])


def choose_device(name: str) -> torch.device:
    """'auto' takes the GPU where there is one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("train.device 'cuda': no GPU that PyTorch can use. Allowed: auto, cpu.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
