"""A run before its first step: device, tasks and network, as a configuration names them."""

from collections.abc import Callable
from dataclasses import asdict

import torch

from thalnet_mtl.config.schema import Config
from thalnet_mtl.console import Console
from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.models import build
from thalnet_mtl.models.body import check_name
from thalnet_mtl.models.build import configure_network, selected_backend
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.size import count_parameters
from thalnet_mtl.registry import lookup
from thalnet_mtl.tasks import datasets
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.topology.spec import TaskSpec
from thalnet_mtl.training import growth
from thalnet_mtl.training.dry_run import dry_run
from thalnet_mtl.training.optimizers import optimizer_for
from thalnet_mtl.training.state import NOT_TRAINED, Run
from thalnet_mtl.training.weighting import make_weighting

# Parameters below which more CPU threads than one are not worth their price: waiting for each other
# on a busy machine. On a quiet one our own kernel gains by --train.threads.
SMALL_NETWORK = 500_000
THREADS = torch.get_num_threads()  # PyTorch's choice: the cores, or what OMP_NUM_THREADS says


def set_up(config: Config, fetch: Callable[[str], None]) -> Run:
    """Build everything that a configuration names; ``fetch`` gets a data set that is missing.

    Raises:
        UserError: something cannot be built or trained.
    """
    device = choose_device(config.train.device)
    set_matmul_precision(config.train.precision, device)
    tasks = make_tasks(config)
    torch.manual_seed(config.train.seed)
    network = make_network(config, tasks).to(device)
    configure_network(network, config.train)
    combined = make_weighting(
        config.train.combine, {name: task.weight for name, task in config.named_tasks.items()}
    ).to(device)
    small = count_parameters(network) < SMALL_NETWORK
    torch.set_num_threads(config.train.threads or (1 if small else THREADS))
    for task in tasks.values():
        if task.source:
            fetch(task.source)
        task.load(device)
    for name, task in tasks.items():
        if config.named_tasks[name].reset and task.spec.target != "every":
            raise UserError(f"tasks.{name}.reset: only a text goes on from chunk to chunk.")
    for port in network.adapters:
        selected_backend(config, network, port)  # raises if what is asked for cannot
    losses = torch.full((config.evaluate.log_every, len(tasks)), NOT_TRAINED, device=device)
    optimizer = optimizer_for(config, network, combined)
    run = Run(config, device, tasks, network, combined, optimizer, losses)
    for name, task in tasks.items():
        task.check_batch_sizes(run.batch_size(name), config.evaluate.batch, config.train.chunk)
    run.batches_seen = dict.fromkeys(tasks, 0)
    shortest = min(one.stop - one.start for one in run.stream)
    if config.train.warmup >= shortest:
        raise UserError(f"train.warmup {config.train.warmup} leaves none of the {shortest} steps.")
    if run.continual and config.train.patience:
        raise UserError("train.patience ends a run, not an experience: not with a stream.")
    if config.growth.when != "never":
        if config.changes:
            raise UserError("growth and changes: give one of them.")
        growth.dry_run(config, network, {t.head_name: t.spec for t in tasks.values()}, run.stream)
    dry_run(config, network, run.stream)
    return run


def fetch_with(console: Console) -> Callable[[str], None]:
    """Return a function that fetches a data set by its name and shows the progress."""

    def fetch(name: str) -> None:
        with console.downloads() as report:
            datasets.fetch(name, report)

    return fetch


def check_buildable(config: Config) -> None:
    """Raise ``UserError`` if a configuration names something that cannot be built."""
    tasks = make_tasks(config)
    make_network(config, tasks)
    weights = {name: task.weight for name, task in config.named_tasks.items()}
    make_weighting(config.train.combine, weights)
    lookup("strategy", config.train.strategy)


def make_tasks(config: Config) -> dict[str, Task]:
    """The tasks of a run by their names in it; their data is not loaded."""
    if config.tasks and asdict(config.task) != asdict(Config().task):
        raise UserError("both 'task' and 'tasks' are given; where there are several, use 'tasks'.")
    tasks: dict[str, Task] = {}
    for name, options in config.named_tasks.items():
        check_name("task", name)
        tasks[name] = lookup("task", options.name)(options).named(name, options.head)
    return tasks


def make_network(config: Config, tasks: dict[str, Task]) -> Network:
    """The network as it is before the first step: of the first experience's tasks if it grows."""
    first = config.stream[0].tasks if config.stream and config.growth.when != "never" else tasks
    for name in first:
        if name not in tasks:
            raise UserError(f"stream: {unknown('task', name, tasks)}")
    shapes: dict[str, TaskSpec] = {}
    for name, task in tasks.items():
        known = shapes.setdefault(task.head_name, task.spec)
        if known != task.spec:
            raise UserError(
                f"task '{name}' cannot share head '{task.head_name}': its shape differs."
            )
    there = {tasks[name].head_name for name in first}
    shapes = {port: shape for port, shape in shapes.items() if port in there}
    return build.build(config.model, shapes, config.modules)


def choose_device(name: str) -> torch.device:
    """'auto' takes the GPU where there is one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("train.device 'cuda': no GPU that PyTorch can use. Allowed: auto, cpu.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def set_matmul_precision(precision: str, device: torch.device) -> None:
    """Have a GPU round the inputs of products to tf32, or not; those of cuDNN alike."""
    if precision == "tf32" and device.type != "cuda":
        raise UserError("train.precision 'tf32': only a GPU has it. Allowed here: fp32, bf16.")
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
