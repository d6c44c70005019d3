"""What a run directory says: its configuration, its tasks, its best network so far."""

from dataclasses import dataclass
from pathlib import Path

from thalnet_mtl.config.load import load_run_config
from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.models.network import Network
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.training.checkpoint import load_matching, load_network
from thalnet_mtl.training.setup import make_tasks


@dataclass(frozen=True)
class TrainedRun:
    """What a run directory says: its configuration, its tasks, its best network so far."""

    folder: Path
    config: Config
    tasks: dict[str, Task]
    network: Network
    step: int

    def task(self, name: str | None = None) -> Task:
        """One of the tasks; without a name, the only one."""
        if name is None and len(self.tasks) > 1:
            raise UserError(f"which task? Give --task NAME; there are {', '.join(self.tasks)}.")
        name = name or next(iter(self.tasks))
        if name not in self.tasks:
            raise unknown("task", name, self.tasks)
        return self.tasks[name]


def load_run(folder: Path) -> TrainedRun:
    """Read a run, finished or not; its data is not loaded."""
    config = load_run_config(folder)
    path = folder / "checkpoint" / "best.pt"
    best = load_matching(path, config)
    network = load_network(best, path)
    return TrainedRun(folder, config, make_tasks(config), network.eval(), best["step"])
