"""A run before its first step: built and checked as its configuration says."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from thalnet_mtl.config.options import check_options, field_names
from thalnet_mtl.config.schema import Config, EntryConfig
from thalnet_mtl.console import Console
from thalnet_mtl.data import datasets
from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.models import build
from thalnet_mtl.models.body import check_name
from thalnet_mtl.models.build import configure_network, selected_backend
from thalnet_mtl.models.network import Network
from thalnet_mtl.registry import lookup
from thalnet_mtl.strategies.base import Strategy
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.metrics import UndefinedScore
from thalnet_mtl.tasks.splits.sequences import SPLITS
from thalnet_mtl.tasks.stream import check_experiences
from thalnet_mtl.topology.spec import TaskSpec
from thalnet_mtl.training.checks import check_joint_options
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.devices import check_precision, choose_device, configure_process
from thalnet_mtl.training.dry_run import dry_run_changes, dry_run_growth
from thalnet_mtl.training.growth.base import check_rule, make_rule, rule_class
from thalnet_mtl.training.hidden_boundaries import check_boundaries
from thalnet_mtl.training.optimizers import optimizer_for
from thalnet_mtl.training.ranks import ALONE, Ranks
from thalnet_mtl.training.sampling import share_inputs
from thalnet_mtl.training.start import Start
from thalnet_mtl.training.start_folder import network_at_start, read_start
from thalnet_mtl.training.state import NOT_TRAINED, TrainState
from thalnet_mtl.training.stream_checks import check_early_stopping, check_stream
from thalnet_mtl.training.tracking.callbacks import make_callbacks
from thalnet_mtl.training.unknown_task import check_unknown_tasks
from thalnet_mtl.training.weighting import LossWeighting, make_weighting


def set_up(
    config: Config,
    fetch: Callable[[str], None],
    folder: Path | None = None,
    ranks: Ranks = ALONE,
) -> RunContext:
    """Build and check everything that a configuration names, and load the data.

    Args:
        config: of a single run.
        fetch: called with the name of each data set, to download it if it is missing.
        folder: the directory of the run. If it was saved there, it does not need the network any
            more that it started from.
        ranks: the processes that train the run.

    Raises:
        UserError: something cannot be built or trained.
    """
    check_joint_options(config)
    if ranks.several:
        check_takes_no_steps(config.train.strategy)
    device = choose_device(config.train.device)
    check_precision(config.train.precision, device)
    tasks = make_tasks(config)
    check_boundaries(config, tasks)
    torch.manual_seed(config.train.seed)
    network = network_at_start(folder)
    start = read_start(config) if network is None else None
    network = (network or make_network(config, tasks, start)).to(device)
    configure_network(network, config.train)
    weighting = weighting_for(config, tasks).to(device)
    configure_process(config, network, device)
    for task in tasks.values():
        if task.source:
            fetch(task.source)
        task.load(device)
    share_inputs(config, tasks)
    check_unknown_tasks(config, tasks)
    check_tasks(config, tasks)
    check_backends(config, network)
    state = TrainState(
        network=network,
        weighting=weighting,
        optimizer=optimizer_for(config, network, weighting),
        loss_log=torch.full((config.evaluate.log_every, len(tasks)), NOT_TRAINED, device=device),
        batches_seen=dict.fromkeys(tasks, 0),
    )
    if start:
        start.load_optimizer(state.optimizer, state.named_parameters())
    run = RunContext(config, device, tasks, state, start, ranks)
    check_metrics(run)
    state.strategy = make_strategy(run)
    state.rule = make_rule(run)
    check_stream(config, run.stream)
    check_early_stopping(run)
    if state.rule.grows:
        dry_run_growth(run)
    dry_run_changes(config, network, run.stream)
    return run


def fetch_with(console: Console) -> Callable[[str], None]:
    """Return a function that fetches a data set by its name and shows the progress."""

    def fetch(name: str) -> None:
        with console.downloads() as report:
            datasets.fetch(name, report)

    return fetch


def check_buildable(config: Config) -> None:
    """Raise if a configuration names something that cannot be built; no data is loaded."""
    check_joint_options(config)
    check_experiences(config)
    tasks = make_tasks(config)
    check_boundaries(config, tasks)
    check_unknown_tasks(config, tasks)
    make_network(config, tasks, read_start(config))
    weighting_for(config, tasks)
    lookup("optimizer", config.train.optimizer)
    check_strategy(config)
    check_rule(config)
    make_callbacks(config)


def make_tasks(config: Config) -> dict[str, Task]:
    """Return the tasks of a run by their names in it; their data is not loaded."""
    if config.tasks and config.task != Config().task:
        raise UserError("both 'task' and 'tasks' are given; where there are several, use 'tasks'.")
    tasks: dict[str, Task] = {}
    for name, task in config.named_tasks.items():
        check_name("task", name)
        where = f"tasks.{name}" if config.tasks else "task"
        allowed = field_names(task if config.tasks else config.task)
        options = check_options("task", task.name, task.options, where, allowed)
        try:
            built: Task = lookup("task", task.name)(**options)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        built = _with_loss(built.named(name, task.head), task.loss, f"{where}.loss")
        tasks[name] = _with_metrics(built, task.metrics, f"{where}.metrics")
    heads = [task.head_name for task in tasks.values()]
    for built in tasks.values():
        built.shares_head = heads.count(built.head_name) > 1
    return tasks


def _with_loss(task: Task, loss: EntryConfig, where: str) -> Task:
    """Return a task with the configured loss, or as it is if none is given."""
    if not loss.name:
        return task
    options = check_options("loss", loss.name, loss.options, where, field_names(loss))
    return task.with_loss(loss.name, **options)


def _with_metrics(task: Task, metrics: Sequence[EntryConfig], where: str) -> Task:
    """Return a task with the configured metrics, or as it is if none are given."""
    if not metrics:
        return task
    return task.with_metrics(
        [
            check_options("metric", metric.name, metric.options, where, field_names(metric))
            | {"name": metric.name}
            for metric in metrics
        ]
    )


def make_strategy(run: RunContext) -> Strategy:
    """Return the configured strategy of a run."""
    options = check_strategy(run.config)
    strategy: Strategy = lookup("strategy", run.config.train.strategy)(run.learner, **options)
    return strategy


def check_strategy(config: Config) -> dict[str, Any]:
    """Return the options of the configured strategy; raise if it or an option does not exist."""
    name, section = config.train.strategy, config.strategy
    return check_options("strategy", name, section.options, "strategy", field_names(section))


def make_network(config: Config, tasks: Mapping[str, Task], start: Start | None = None) -> Network:
    """Return the network before the first step, new or from the one that the run starts from.

    If it grows, it has only the tasks of the first experience.
    """
    grows = config.stream and rule_class(config).grows
    first = config.stream[0].tasks if grows else config.trained_tasks
    for name in first:
        if name not in tasks:
            raise UserError(f"stream: {unknown('task', name, tasks)}")
    shapes: dict[str, TaskSpec] = {}
    for name, task in tasks.items():
        if shapes.setdefault(task.head_name, task.spec) != task.spec:
            raise UserError(
                f"task '{name}' cannot share head '{task.head_name}': its shape differs."
            )
    heads = {tasks[name].head_name for name in first}
    shapes = {head: shape for head, shape in shapes.items() if head in heads}
    if start:
        return start.adapt(shapes, config)
    return build.build(config.model, shapes, config.modules)


def weighting_for(config: Config, tasks: Mapping[str, Task]) -> LossWeighting:
    """Return the configured combination of losses."""
    weights = {name: config.named_tasks[name].weight for name in config.trained_tasks}
    targets = {name: tasks[name].target.name for name in weights}
    if config.train.boundaries != "announced":  # the stream is one task, with the name of the head
        weights = {tasks[name].head_name: 1.0 for name in weights}
        targets = dict.fromkeys(weights, *set(targets.values()))
    return make_weighting(config.train.combine, weights, targets)


def check_takes_no_steps(strategy: str) -> None:
    """Raise if a strategy takes the steps of a run itself, which several processes cannot share."""
    entry: Any = lookup("strategy", strategy)
    fits = getattr(entry, "fit", Strategy.fit) is not Strategy.fit
    if getattr(entry, "takes_steps", fits):
        raise UserError(
            f"train.strategy {strategy} takes the steps itself, in one process only; train it "
            f"without torchrun."
        )


def check_tasks(config: Config, tasks: Mapping[str, Task]) -> None:
    """Raise if options do not fit the data of a task: its kind, or too few for a batch."""
    for name, task in tasks.items():
        options = config.named_tasks[name]
        if options.reset and not task.carries_state:
            raise UserError(f"tasks.{name}.reset: only a text carries a state to reset.")
        if options.only_scored:
            task.check_batch_sizes(1, config.evaluate.batch, config.train.chunk)
            continue
        batch, passes = options.batch or config.train.batch, config.train.accumulate
        if passes > batch:
            raise UserError(
                f"train.accumulate {passes}: a batch of task '{name}' has only {batch} sequences; "
                f"use at most so many passes."
            )
        task.check_batch_sizes(batch, config.evaluate.batch, config.train.chunk)


def check_metrics(run: RunContext) -> None:
    """Raise if a metric has no value on a split, or guessing has the perfect score already."""
    for name, task in run.tasks.items():
        check_computed(task)
        shared = run.continual and task.shares_head  # an experience may have a single class
        for split in SPLITS if task.scorer().may_be_undefined else ("validation", "test"):
            try:
                guess = run.guess(name, split)
            except UndefinedScore as error:
                raise UserError(f"task '{name}', {split}: {error}. Use another metric.") from None
            for metric in task.metrics:
                if not math.isfinite(guess[metric.name]):
                    raise UserError(
                        f"task '{name}', {split}: metric '{metric.name}' is {guess[metric.name]} "
                        f"for constant answers. Give the score of guessing where the metric is "
                        f"registered: guess=…."
                    )
            if guess[task.metric.name] == task.metric.perfect and split != "train" and not shared:
                raise UserError(
                    f"task '{name}', {split}: the best constant answer already has the perfect "
                    f"{task.metric.name}, {task.metric.format(task.metric.perfect)}. Use another "
                    f"main metric, or other data."
                )


def check_computed(task: Task) -> None:
    """Raise if a class of task has its own attribute ``metric`` or ``metrics``."""
    for metric in (task.metric, *task.metrics):
        if metric.name not in task.guesses:
            raise UserError(
                f"task '{task.name}': nothing computes its metric '{metric.name}'. Register it "
                f"under that name, and give the task the name: metrics=['{metric.name}']."
            )


def check_backends(config: Config, network: Network) -> None:
    """Raise if the configured backend cannot run the network."""
    for head in network.adapters:
        selected_backend(config, network, head)
