"""The topology of a run while it trains, as Python objects and as ``topology.json``.

The file is all that is read: the modules of a network can be looked at without PyTorch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thalnet_mtl.config.load import check_run_directory, load_run_config
from thalnet_mtl.errors import UserError
from thalnet_mtl.files import read_fields
from thalnet_mtl.json_fields import from_fields, require
from thalnet_mtl.runs.checksums import check_sums


@dataclass(frozen=True, kw_only=True)
class ModuleEntry:
    """A module of the network: its sizes, its design, its reading and its connections."""

    name: str
    features: int
    context: int
    inputs: int  # width of its task input; 0 for a module without one
    output: bool  # whether heads read its features by default
    hidden: int = 0  # width of the design's inner layers; 0: as many as features
    module: str  # name of its design
    reading: str
    reads: Sequence[str]  # modules whose slots it reads
    opened: Sequence[str]  # those among ``reads`` that were opened after it was attached
    tasks: Sequence[str]  # tasks that may run it; () for all
    frozen: bool
    slot: tuple[int, int]  # first feature of its slot in the center, and the one after the last
    parameters: int


@dataclass(frozen=True, kw_only=True)
class TaskEntry:
    """A task of the network: the modules it uses, and the size of its encoders and its head."""

    shape: Mapping[str, Any]  # the fields of its ``TaskSpec``
    sub_steps: int
    extra_steps: int
    frozen: bool
    encode: bool = False  # whether inputs have an encoder even if they are as wide as the body
    input_modules: Sequence[str]
    output_modules: Sequence[str]
    active: Sequence[str]  # modules that run for this task
    parameters: int

    def to_json(self) -> dict[str, Any]:
        """Return the entry of the task in ``topology.json``."""
        return {_TASK_KEYS.get(key, key): value for key, value in vars(self).items()}

    @classmethod
    def from_json(cls, content: Any, where: str) -> "TaskEntry":
        """Read the entry of a task in ``topology.json``."""
        require(content, ("into", "out_of"), where)
        attributes = {key: attribute for attribute, key in _TASK_KEYS.items()}
        content = {"shape": {}} | {attributes.get(key, key): content[key] for key in content}
        return from_fields(cls, content, where)


_TASK_KEYS = {"shape": "task", "input_modules": "into", "output_modules": "out_of"}


@dataclass(frozen=True)
class ChangeEntry:
    """A change of the topology in training."""

    step: int
    seconds: float  # of training until then
    parameters: int  # of the network after it
    verb: str  # 'attach', 'detach', 'freeze', …
    about: str  # the module and its connections


@dataclass(frozen=True)
class CandidateEntry:
    """A candidate of a decision of the search."""

    experience: int
    task: str
    candidate: str  # what the task would get
    parameters: int  # that are new
    steps: int  # that it has trained in the race
    score: float  # loss relative to guessing, plus the price of its parameters
    chosen: bool


@dataclass(frozen=True)
class TopologySnapshot:
    """The modules and tasks of a network after a step, and all changes until then."""

    modules: Sequence[ModuleEntry]  # in the order of their slots in the center
    tasks: Mapping[str, TaskEntry]
    step: int
    history: Sequence[ChangeEntry]
    candidates: Sequence[CandidateEntry] = ()  # of all decisions of the search

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``topology.json``."""
        return {
            "modules": [vars(module) for module in self.modules],
            "tasks": {name: task.to_json() for name, task in self.tasks.items()},
            "step": self.step,
            "history": [vars(change) for change in self.history],
            "candidates": [vars(candidate) for candidate in self.candidates],
        }

    @classmethod
    def from_json(cls, content: Any, where: str) -> "TopologySnapshot":
        """Read the content of ``topology.json``; ``where`` names the file in errors.

        Raises:
            UserError: a key is missing or a value has another type.
        """
        return from_fields(cls, content, where)


def read_topology(folder: Path) -> TopologySnapshot:
    """Read the topology of a run as it was when the run last wrote it.

    Raises:
        UserError: there is no run, it has no modules (yet), or the file is damaged.
    """
    check_run_directory(folder)
    check_sums(folder, ["config.yaml", "topology.json"])
    body = load_run_config(folder).model.body
    path = folder / "topology.json"
    if not path.exists():
        why = "the run has not started" if body == "thalnet" else f"a {body} has no modules"
        raise UserError(f"{folder} has no topology.json: {why}.")
    return TopologySnapshot.from_json(read_fields(path), str(path))
