"""The topology of a run while it trains, as Python objects and as ``topology.json``.

The file is all that is read: the modules of a network can be looked at without PyTorch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

from thalnet_mtl.config.load import check_run_directory, load_run_config
from thalnet_mtl.errors import UserError
from thalnet_mtl.files import read_fields
from thalnet_mtl.json_fields import from_fields, require
from thalnet_mtl.metrics.metric import list_names
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
    options: Mapping[str, Any] = field(default_factory=dict)  # those that are not at their default
    slot: tuple[int, int]  # first feature of its slot in the center, and the one after the last
    parameters: int

    def to_json(self) -> dict[str, Any]:
        """Return the entry of the module in ``topology.json``."""
        return {key: value for key, value in vars(self).items() if key != "options" or value}


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
class EarlierModule:
    """A module as it was before a change of the topology."""

    reads: Sequence[str]
    inputs: int
    output: bool
    frozen: bool


@dataclass(frozen=True)
class ChangeEntry:
    """A change of the topology in training."""

    step: int
    seconds: float  # of training until then
    parameters: int  # of the network after it
    verb: str  # 'attach', 'detach', 'freeze', …
    about: str  # the module and its connections
    before: Mapping[str, EarlierModule | None] = field(default_factory=dict)
    """Modules that it changed or removed, as they were; None for those that it added."""


@dataclass(frozen=True, kw_only=True)
class CandidateEntry:
    """A candidate of a decision: something that the network could get, lose or keep as it is."""

    candidate: str  # what that is, in words: 'probe of digits', 'edge low → high', 'keep'
    parameters: int  # that are new; negative: that are removed
    steps: int = 0  # that it has trained before the decision
    score: float  # the loss relative to guessing, plus the price; lower is better
    price: float = 0.0  # of the new parameters, part of the score
    scores: Sequence[float] = ()  # after each round of a race, the last one is ``score``
    error: float | None = None  # standard error of the difference of its loss to the chosen's,
    # both after the last round
    p_value: float | None = None  # of a test that it lowers the loss, or does no harm
    chosen: bool


@dataclass(frozen=True, kw_only=True)
class DecisionEntry:
    """A decision on the topology: its candidates, what they scored, and why one was chosen.

    Every decision in training is recorded like that, in ``run.state.growth.decisions`` as
    ``asdict(DecisionEntry(...))``, and shown by ``thalnet inspect`` and ``thalnet report``. What it
    changed is not repeated here: ``history`` has it. ``changes`` is ``len(run.state.topology_log)``
    at that time.
    """

    step: int  # optimizer steps of the run before it
    changes: int  # of ``history`` before it: those that follow until the next decision are its
    experience: int  # its number, from 1
    task: str  # whose modules are decided on
    about: str  # 'task': what a new task gets; 'growth': within a task; 'pruning': what it loses
    reason: str  # a plain sentence with the numbers that decided, without a period
    candidates: Sequence[CandidateEntry]  # exactly one of them is chosen
    skipped: int = 0  # steps of the run that the chosen one had not to train: it was fitted
    gradients: int = 0  # batches whose gradients were computed beside the steps of the candidates
    prior: Mapping[str, float] = field(default_factory=dict)
    """By earlier task, the loss of a linear head on its path relative to guessing; {} if none."""

    @property
    def chosen(self) -> CandidateEntry:
        """The chosen candidate."""
        return next(entry for entry in self.candidates if entry.chosen)

    def line(self) -> str:
        """Return the decision in a line."""
        ordered = sorted(self.candidates, key=attrgetter("score"))
        shown = ", ".join(f"{entry.candidate} {entry.score:.3f}" for entry in ordered)
        return f"decision on {self.task}: {self.chosen.candidate} (scores, 1 is guessing: {shown})"

    @property
    def extra_steps(self) -> int:
        """Steps that the decision took beside those that the run goes on from."""
        others = sum(entry.steps for entry in self.candidates if not entry.chosen)
        return others + self.gradients - self.skipped

    @classmethod
    def from_json(cls, content: Any, where: str) -> "DecisionEntry":
        """Read a decision in ``topology.json``.

        Raises:
            UserError: a key is missing, a value has another type, or not one candidate is chosen.
        """
        decision = from_fields(cls, content, where)
        if (count := sum(entry.chosen for entry in decision.candidates)) != 1:
            raise UserError(f"{where} is damaged: {count} of its candidates are chosen, not 1.")
        return decision


@dataclass(frozen=True, repr=False)
class TopologySnapshot:
    """The modules and tasks of a network after a step, and all changes until then."""

    modules: Sequence[ModuleEntry]  # in the order of their slots in the center
    tasks: Mapping[str, TaskEntry]
    step: int
    history: Sequence[ChangeEntry]
    decisions: Sequence[DecisionEntry] = ()  # of the search

    def __repr__(self) -> str:
        modules = list_names([module.name for module in self.modules])
        return (
            f"TopologySnapshot({len(self.modules)} modules: {modules}; tasks: "
            f"{list_names(list(self.tasks))}; step {self.step:,}, {len(self.history)} changes)"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``topology.json``."""
        return {
            "modules": [module.to_json() for module in self.modules],
            "tasks": {name: task.to_json() for name, task in self.tasks.items()},
            "step": self.step,
            "history": [asdict(change) for change in self.history],
            "decisions": [asdict(decision) for decision in self.decisions],
        }

    @classmethod
    def from_json(cls, content: Any, where: str) -> "TopologySnapshot":
        """Read the content of ``topology.json``; ``where`` names the file in errors.

        Raises:
            UserError: a key is missing or a value has another type.
        """
        snapshot = from_fields(cls, content, where)
        changes = [*(decision.changes for decision in snapshot.decisions), len(snapshot.history)]
        if changes != sorted(changes) or changes[0] < 0:
            raise UserError(f"{where} is damaged: decisions and history are in another order.")
        return snapshot


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
