"""A run in memory: what is trained, how far it is, and how a checkpoint holds all of that."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thalnet_mtl.config.load import flatten
from thalnet_mtl.config.schema import ChangeConfig, Config, StrategyConfig
from thalnet_mtl.models.build import configure_network
from thalnet_mtl.models.change import TopologyChange
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.size import count_parameters
from thalnet_mtl.registry import lookup
from thalnet_mtl.strategies.base import Strategy
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.stream import Experience, make_stream
from thalnet_mtl.training.checkpoint import (
    load_matching,
    load_network,
    load_optimizer_state,
    optimizer_state,
    save_checkpoint,
)
from thalnet_mtl.training.cuda_graphs import StepGraphs
from thalnet_mtl.training.evaluate import evaluate
from thalnet_mtl.training.flat_optimizer import FlatOptimizer
from thalnet_mtl.training.optimizers import optimizer_for
from thalnet_mtl.training.topology_changes import apply
from thalnet_mtl.training.weighting import LossWeighting

# What changes while training, beside weights, moments, losses and random state.
PROGRESS = ("step", "batches_seen", "best_level", "best_step", "best_by_task", "untrained",
            "history", "matrix", "costs", "grown", "grown_rng", "seconds", "train_seconds")  # fmt: skip
NOT_TRAINED = -1.0  # in place of a loss
SAVED = (*PROGRESS, "topology", "network", "combination", "optimizer", "losses", "states",
         "strategy", "rng", "metrics_size")  # fmt: skip


@dataclass
class Run:
    """One network on its way through its tasks."""

    config: Config
    device: torch.device
    tasks: dict[str, Task]
    network: Network
    combination: LossWeighting
    optimizer: torch.optim.Optimizer
    losses: Tensor  # (step, task), of the steps since the last line of the log
    states: dict[str, Any] = field(default_factory=dict)  # carried from chunk to chunk of a text
    step: int = 0
    batches_seen: dict[str, int] = field(default_factory=dict)  # batches of each task so far
    best_level: float = -math.inf  # on validation, of the best weights
    best_step: int = 0
    best_by_task: dict[str, dict[str, float]] = field(default_factory=dict)  # of each task alone
    untrained: dict[str, dict[str, float]] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)  # of the topology
    matrix: list[dict[str, float]] = field(default_factory=list)  # test scores, by experience
    costs: list[dict[str, Any]] = field(default_factory=list)  # costs, by row of the matrix
    grown: list[int] = field(default_factory=list)  # experiences in which a plateau was left
    grown_rng: Tensor | None = None  # random state of what grows, apart from all else
    seconds: float = 0.0
    train_seconds: float = 0.0
    stream: list[Experience] = field(init=False)
    strategy: Strategy = field(init=False)
    trainable_tasks: set[str] = field(init=False)  # tasks of which something learns
    # What the next step moves and how it is repeated, made when it is needed, until a change.
    joined: FlatOptimizer | None = None
    graphs: StepGraphs | None = None

    def __post_init__(self) -> None:
        self.stream = make_stream(self.config, lambda tasks: min(map(self.batches, tasks)))
        self.update_trainable_tasks()
        self.strategy = lookup("strategy", self.config.train.strategy)(self)

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.config.train.seed

    @property
    def chunk(self) -> int:
        """The number of tokens in a training sequence of a text."""
        return self.config.train.chunk

    @property
    def options(self) -> StrategyConfig:
        """The configured options of the strategy."""
        return self.config.strategy

    def configure_network(self, network: Network) -> None:
        """Give a network the dropout rate and the backend of this run."""
        configure_network(network, self.config.train)

    def update_trainable_tasks(self) -> None:
        """Note the tasks of which something learns, after any change of the network."""
        self.trainable_tasks = {
            name
            for name in self.attached_tasks
            if any(p.requires_grad for p in self.task_parameters(name).values())
        }

    @property
    def attached_tasks(self) -> list[str]:
        """The tasks that are plugged in."""
        return [
            name for name, task in self.tasks.items() if task.head_name in self.network.adapters
        ]

    @property
    def experience(self) -> Experience:
        """The one that the next step belongs to, or the last one."""
        return next((one for one in self.stream if self.step < one.stop), self.stream[-1])

    @property
    def continual(self) -> bool:
        """Whether there are several experiences."""
        return len(self.stream) > 1

    @property
    def epoch(self) -> int:
        """Steps in a pass over the training part, the shortest one of several tasks."""
        return min(map(self.batches, self.experience.tasks))

    @property
    def total(self) -> int:
        """Steps in all."""
        return self.stream[-1].stop

    @property
    def active_tasks(self) -> list[str]:
        """Tasks of this experience that are neither frozen nor stopped early."""
        patience = self.config.train.patience
        return [
            name
            for name in self.experience.tasks
            if name in self.trainable_tasks
            and (not patience or self.best_by_task.get(name, {"since": 0})["since"] < patience)
        ]

    def batch_size(self, task: str | None = None) -> int:
        """Return the sequences in a training batch of a task; without one, ``train.batch``."""
        default = self.config.train.batch
        return default if task is None else self.config.named_tasks[task].batch or default

    def batches(self, task: str) -> int:
        """Training batches in a pass over a task."""
        return self.tasks[task].batches_per_epoch(
            "train", self.batch_size(task), self.config.train.chunk
        )

    def sample_tasks(self) -> list[str]:
        """The tasks of the next step: all, or one by its odds, as a function of seed and step."""
        names, temperature = self.active_tasks, self.config.train.draw
        if not temperature or len(names) < 2:
            return names
        shares = [self.config.named_tasks[name].share or self.batches(name) for name in names]
        sizes = torch.tensor(shares, dtype=torch.float64).log()
        odds = ((sizes - sizes.max()) / temperature).softmax(0)  # no overflow at a small T
        generator = torch.Generator().manual_seed(1_000_003 * self.config.train.seed + self.step)
        return [names[int(torch.multinomial(odds, 1, generator=generator))]]

    def rate(self) -> float:
        """Learning rate of the next step: linear warm-up, then constant or half a cosine to 0.

        Every experience begins anew.
        """
        options, now = self.config.train, self.experience
        step, total = self.step - now.start, now.stop - now.start
        if step < options.warmup:
            return options.learning_rate * (step + 1) / options.warmup
        if options.schedule == "constant":
            return options.learning_rate
        progress = (step - options.warmup) / max(1, total - options.warmup)
        return options.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))

    def score(self, task: str, split: str, batches: int | None = None) -> dict[str, float]:
        """Loss, metric and count on one part of the data, as far as the configuration looks."""
        look = self.config.evaluate
        batches = look.batches if batches is None else batches
        chunk = self.config.train.chunk
        return evaluate(self.network, self.tasks[task], split, look.batch, chunk, batches)

    @contextmanager
    def separate_rng(self) -> Iterator[None]:
        """Draw what grows so that what learns on, dropout say, draws as if nothing had grown."""
        now = torch.get_rng_state()
        torch.set_rng_state(now if self.grown_rng is None else self.grown_rng)
        try:
            yield
        finally:
            self.grown_rng = torch.get_rng_state()
            torch.set_rng_state(now)

    def change(self, what: ChangeConfig) -> TopologyChange:
        """Change the network as configured, and bring along all that depends on it."""
        with self.separate_rng():
            change = apply(self.network, what, self.config)
        self.on_topology_change(change)
        return change

    def on_topology_change(self, change: TopologyChange) -> None:
        """Bring along all that depends on the network."""
        change.update_optimizer(self.optimizer)
        self.joined = self.graphs = None
        self.update_trainable_tasks()
        ports = {name: task.head_name for name, task in self.tasks.items()}
        self.states = {name: change.update_state(ports[name], s) for name, s in self.states.items()}
        self.strategy.after_topology_change(change)
        size = count_parameters(self.network)
        entry = {"step": self.step, "seconds": round(self.train_seconds, 2), "parameters": size}
        self.history.append(entry | {"verb": change.verb, "about": change.about})

    def task_parameters(self, task: str) -> dict[str, nn.Parameter]:
        """The parameters that a task's logits can depend on, by name."""
        return self.network.task_parameters(self.tasks[task].head_name)

    def flat_optimizer(self) -> FlatOptimizer:
        """The optimizer in few tensors, until the network changes."""
        if self.joined is None:
            weights = dict(self.combination.named_parameters())
            used = {
                task: [
                    *self.task_parameters(task).values(),
                    *(p for name, p in weights.items() if name.endswith(f".{task}")),
                ]
                for task in self.attached_tasks
            }
            # cuDNN wants its weights in one piece of its own.
            apart = [
                parameter
                for module in self.network.modules()
                if isinstance(module, nn.RNNBase) and self.device.type == "cuda"
                for parameter in module.parameters()
            ]
            self.joined = FlatOptimizer(self.optimizer, used, apart)
        return self.joined

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """All that is learned, by name."""
        own = {f"combination.{n}": p for n, p in self.combination.named_parameters()}
        return dict(self.network.named_parameters()) | own

    def save(self, path: Path, metrics_size: int) -> None:
        """Write a checkpoint; ``metrics_size`` is how much of the log belongs to it."""
        rng = [torch.get_rng_state()]
        if self.device.type == "cuda":
            rng.append(torch.cuda.get_rng_state())
        content = {
            "config": flatten(self.config),
            **{name: getattr(self, name) for name in PROGRESS},
            "topology": self.network.describe(),
            "network": self.network.state_dict(),
            "combination": self.combination.state_dict(),
            "optimizer": optimizer_state(self.optimizer, self.named_parameters()),
            "losses": self.losses,
            "strategy": self.strategy.state_dict(),
            "states": {
                task: state if isinstance(state, Tensor) else list(state)
                for task, state in self.states.items()
            },
            "rng": rng,
            "metrics_size": metrics_size,
        }
        save_checkpoint(path, content)

    def restore(self, path: Path) -> int:
        """Read a checkpoint; returns its ``metrics_size``."""
        content = load_matching(path, self.config, SAVED)
        self.network = load_network(content, path).to(self.device)
        configure_network(self.network, self.config.train)
        self.combination.load_state_dict(content["combination"])
        self.optimizer = optimizer_for(self.config, self.network, self.combination)
        self.joined = self.graphs = None
        named = self.named_parameters()
        load_optimizer_state(self.optimizer, content["optimizer"], named)
        for name in PROGRESS:
            setattr(self, name, content[name])
        self.update_trainable_tasks()
        self.strategy.load_state_dict(content["strategy"])
        self.losses.copy_(content["losses"])
        for task, saved in content["states"].items():
            parts = [saved] if isinstance(saved, Tensor) else saved
            parts = [part.to(self.device) for part in parts]
            kind = type(self.network.initial(self.tasks[task].head_name, 1))
            self.states[task] = parts[0] if isinstance(saved, Tensor) else kind(*parts)
        torch.set_rng_state(content["rng"][0])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(content["rng"][1])
        return content["metrics_size"]
