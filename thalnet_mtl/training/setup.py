"""A run before its first step: device, tasks and network, as a configuration names them."""

from collections.abc import Callable
from dataclasses import asdict

import torch

from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.models import build
from thalnet_mtl.models.body import check_name
from thalnet_mtl.models.build import equip, level
from thalnet_mtl.models.network import Network
from thalnet_mtl.registry import lookup
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.topology.spec import Interface
from thalnet_mtl.training import growth
from thalnet_mtl.training.dry_run import rehearse
from thalnet_mtl.training.optimizers import optimizer_for
from thalnet_mtl.training.state import NOT_DRAWN, Run
from thalnet_mtl.training.weighting import combination

# Parameters below which more CPU threads than one are not worth their price: waiting for each other
# on a busy machine. On a quiet one our own kernel gains by --train.threads.
SMALL_NETWORK = 500_000
THREADS = torch.get_num_threads()  # PyTorch's choice: the cores, or what OMP_NUM_THREADS says


def prepare(config: Config, fetch: Callable[[str], None]) -> Run:
    """Build everything that a configuration names; ``fetch`` gets a data set that is missing.

    Raises:
        UserError: something cannot be built or trained.
    """
    device = choose_device(config.train.device)
    choose_products(config.train.precision, device)
    tasks = make_tasks(config)
    torch.manual_seed(config.train.seed)
    network = make_network(config, tasks).to(device)
    equip(network, config.train)
    combined = combination(
        config.train.combine, {name: task.weight for name, task in config.named_tasks.items()}
    ).to(device)
    small = build.parameters(network) < SMALL_NETWORK
    torch.set_num_threads(config.train.threads or (1 if small else THREADS))
    for task in tasks.values():
        if task.source:
            fetch(task.source)
        task.to(device)
    for name, task in tasks.items():
        if config.named_tasks[name].reset and task.interface.target != "every":
            raise UserError(f"tasks.{name}.reset: only a text goes on from chunk to chunk.")
    for port in network.ports:
        level(config, network, port)  # raises if what is asked for cannot
    losses = torch.full((config.evaluate.log_every, len(tasks)), NOT_DRAWN, device=device)
    optimizer = optimizer_for(config, network, combined)
    run = Run(config, device, tasks, network, combined, optimizer, losses)
    for name, task in tasks.items():
        run.batches(name)  # raises if there is not one batch
        for split in ("validation", "test"):
            task.steps(split, config.evaluate.batch, config.train.chunk)
    run.taken = dict.fromkeys(tasks, 0)
    shortest = min(one.stop - one.start for one in run.stream)
    if config.train.warmup >= shortest:
        raise UserError(f"train.warmup {config.train.warmup} leaves none of the {shortest} steps.")
    if run.continual and config.train.patience:
        raise UserError("train.patience ends a run, not an experience: not with a stream.")
    if config.growth.when != "never":
        if config.changes:
            raise UserError("growth and changes: give one of them.")
        growth.rehearse(config, network, {t.port: t.interface for t in tasks.values()}, run.stream)
    rehearse(config, network, run.stream)
    return run


def make_tasks(config: Config) -> dict[str, Task]:
    """The tasks of a run by their names in it; their data is not loaded."""
    if config.tasks and asdict(config.task) != asdict(Config().task):
        raise UserError("both 'task' and 'tasks' are given; where there are several, use 'tasks'.")
    tasks: dict[str, Task] = {}
    for name, options in config.named_tasks.items():
        check_name("task", name)
        tasks[name] = lookup("task", options.name)(options)
        tasks[name].name, tasks[name].head = name, options.head
    return tasks


def make_network(config: Config, tasks: dict[str, Task]) -> Network:
    """The network as it is before the first step: of the first experience's tasks if it grows."""
    first = config.stream[0].tasks if config.stream and config.growth.when != "never" else tasks
    for name in first:
        if name not in tasks:
            raise UserError(f"stream: {unknown('task', name, tasks)}")
    shapes: dict[str, Interface] = {}
    for name, task in tasks.items():
        known = shapes.setdefault(task.port, task.interface)
        if known != task.interface:
            raise UserError(f"task '{name}' cannot share head '{task.port}': its shape differs.")
    there = {tasks[name].port for name in first}
    shapes = {port: shape for port, shape in shapes.items() if port in there}
    return build.build(config.model, shapes, config.modules)


def choose_device(name: str) -> torch.device:
    """'auto' takes the GPU where there is one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("train.device 'cuda': no GPU that PyTorch can use. Allowed: auto, cpu.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def choose_products(precision: str, device: torch.device) -> None:
    """Have a GPU round the inputs of products to tf32, or not; those of cuDNN alike."""
    if precision == "tf32" and device.type != "cuda":
        raise UserError("train.precision 'tf32': only a GPU has it. Allowed here: fp32, bf16.")
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
