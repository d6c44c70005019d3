"""The fields of a configuration, each with its default, its help and the values that it allows.

Sections with a fixed set of fields (``model``, ``task``, ``train``, …) are set in YAML, by flags
(``--train.batch 64``) or from Python. Sections with any number of entries (``tasks``, ``modules``,
``changes``, ``stream``) are set in YAML or from Python.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from thalnet_mtl.config.change import WIDEST, ChangeConfig, ModuleConfig
from thalnet_mtl.config.experience import ExperienceConfig
from thalnet_mtl.config.overlay import option, options_field
from thalnet_mtl.config.shown import ShownConfig
from thalnet_mtl.config.training import EvaluateConfig, StartConfig, TrainConfig
from thalnet_mtl.errors import UserError

POLICIES = {
    "frozen": "they stay as they are, and so do the scores of older tasks",
    "shared": "they are trained on, and may read the new ones",
}
MOST_PARAMETERS = 10**10


@dataclass(frozen=True)
class ModelConfig:
    """The body between encoders and heads. Further keys are options of a body of your own."""

    body: str = option("thalnet", "a ThalNet, or a baseline", names="body")
    modules: int = option(4, "thalnet: number of modules around the center", low=1, high=1000)
    module: str = option("ff_gru", "thalnet: design of the modules", names="module")
    reading: str = option("weight_norm", "thalnet: reading", names="reading")
    features: int = option(
        0,
        "features per module, or units per layer; 0: the most that the budget allows",
        low=0,
        high=WIDEST,
    )
    context: int = option(0, "thalnet: context size per module; 0: as features", low=0, high=WIDEST)
    hidden: int = option(
        0, "thalnet: hidden size inside a module; 0: as features", low=0, high=WIDEST
    )
    layers: int = option(4, "baselines: number of layers", low=1, high=1000)
    sub_steps: int = option(1, "steps of the network per input", low=1, high=1000)
    extra_steps: int = option(0, "steps without input after the last input", low=0, high=10_000)
    budget: int = option(
        50_000,
        "maximum number of parameters, encoders and heads included; 0: no limit",
        low=0,
        high=MOST_PARAMETERS,
    )
    options: dict[str, Any] = options_field("body", "option of the body")


@dataclass(frozen=True)
class EntryConfig:
    """A name of the registry with options: ``huber``, or ``{name: huber, delta: 0.5}``."""

    name: str = option("", "name")
    options: dict[str, Any] = options_field("name", "option of what it names")

    def checked(self, where: str) -> "EntryConfig":
        """Return the entry, or raise if it has no name."""
        if not self.name:
            raise UserError(f"{where}: every entry needs a name.")
        return self


@dataclass(frozen=True)
class TaskConfig:
    """The task, where there is only one. Further keys are options of the task."""

    name: str = option("permuted_mnist", "task to train", names="task")
    batch: int = option(0, "batch size of this task; 0: train.batch", low=0)
    loss: EntryConfig = option(EntryConfig(), "loss; default: that of the task", names="loss")
    metrics: tuple[EntryConfig, ...] = option(
        (),
        "metrics, the main one first; default: those of the task",
        names="metric",
    )
    options: dict[str, Any] = options_field("name", "option of the task")


@dataclass(frozen=True)
class NamedTaskConfig(TaskConfig):
    """An entry of ``tasks``: one task among several."""

    name: str = option("", "task to train; default: the name of the entry", names="task")
    weight: float = option(1.0, "factor of its loss", low=0.0)
    share: float = option(
        0.0, "size of the task for train.draw; 0: number of its training batches", low=0.0
    )
    reset: float = option(
        0.0,
        "text: probability of resetting a carried state before a step, so that the network also "
        "learns to start from an empty state",
        low=0.0,
        high=1.0,
    )
    head: str = option("", "tasks with the same value share encoders and head; default: none")
    inputs_of: str = option(
        "", "task whose sequences it shares: one pass of the body serves both; default: none"
    )
    only_scored: bool = option(False, "validated and tested, never trained")
    unknown: bool = option(
        False,
        "also test it without being told the task: inputs choose the path; costs one more pass "
        "over the test split, of a text one for each path",
    )


@dataclass(frozen=True)
class NamedStream:
    """A stream by name, as ``stream: {name: permuted_mnist, n_experiences: 100}``.

    It stands for its experiences and their tasks until the configuration is complete: see
    ``config.named_stream``. Further keys are options of the stream.
    """

    name: str = option("", "stream of tasks", names="stream")
    each: NamedTaskConfig = field(
        default_factory=NamedTaskConfig, metadata={"help": "fields that all of its tasks get"}
    )
    options: dict[str, Any] = options_field("name", "option of the stream")


@dataclass(frozen=True)
class GrowthConfig:
    """Growth of the network along a stream. Further keys are options of the rule.

    Unless ``when`` is 'never', a task gets its head when its first experience begins. ``tasks:
    [new]`` makes an attached module belong to the new task alone.
    """

    when: str = option("never", "rule of growth", names="growth")
    policy: str = option(
        "frozen", "modules of older tasks, when the network grows", choices=POLICIES
    )
    modules: dict[str, ModuleConfig] = field(
        default_factory=dict, metadata={"help": "modules to attach each time, by name"}
    )
    options: dict[str, Any] = options_field("when", "option of the rule")


@dataclass(frozen=True)
class PluginConfig:
    """An entry of ``plugins``: a Python file that registers entries of your own."""

    name: str = option("", "path of the file, in a YAML file relative to it: mine.py")

    def checked(self, where: str) -> "PluginConfig":
        """Return the entry, or raise if it names no file."""
        if not self.name:
            raise UserError(f"{where}: every plugin needs the path of a Python file.")
        return self


@dataclass(frozen=True)
class TrackerConfig:
    """An entry of ``trackers``: ``csv``, or ``{name: wandb, project: mine, mode: offline}``."""

    name: str = option("", "tracker, or callback of your own", names="tracker")
    options: dict[str, Any] = options_field("name", "option of the tracker")

    def checked(self, where: str) -> "TrackerConfig":
        """Return the entry, or raise if it has no name."""
        if not self.name:
            raise UserError(f"{where}: every tracker needs a name.")
        return self


@dataclass(frozen=True)
class StrategyConfig:
    """Options of the continual-learning strategy ``train.strategy``; each has its own."""

    options: dict[str, Any] = options_field("", "option of the strategy", names="strategy")


@dataclass(frozen=True, repr=False)
class Config(ShownConfig):
    """The complete configuration of one run.

    >>> config = Config(task=TaskConfig("digits_rows"), train=TrainConfig(steps=100))
    >>> config.model.body, config.train.steps
    ('thalnet', 100)
    """

    model: ModelConfig = field(
        default_factory=ModelConfig, metadata={"help": "the body between encoders and heads"}
    )
    task: TaskConfig = field(
        default_factory=TaskConfig, metadata={"help": "the task, where there is only one"}
    )
    tasks: dict[str, NamedTaskConfig] = field(
        default_factory=dict, metadata={"help": "several tasks, by name"}
    )
    modules: dict[str, ModuleConfig] = field(
        default_factory=dict,
        metadata={"help": "modules of a ThalNet, by name; default: model.modules equal ones"},
    )
    changes: tuple[ChangeConfig, ...] = field(
        default_factory=tuple, metadata={"help": "changes of the topology during training"}
    )
    stream: tuple[ExperienceConfig, ...] = field(
        default_factory=tuple,
        metadata={
            "help": "experiences, trained one after another; default: one, of all tasks; or "
            "{name: STREAM, each: {…}} with options of that stream",
            "named": NamedStream,
        },
    )
    growth: GrowthConfig = field(
        default_factory=GrowthConfig, metadata={"help": "growth of the network along a stream"}
    )
    strategy: StrategyConfig = field(
        default_factory=StrategyConfig, metadata={"help": "options of train.strategy"}
    )
    start: StartConfig = field(
        default_factory=StartConfig, metadata={"help": "network to start from, as of another run"}
    )
    train: TrainConfig = field(
        default_factory=TrainConfig, metadata={"help": "optimization and hardware"}
    )
    evaluate: EvaluateConfig = field(
        default_factory=EvaluateConfig, metadata={"help": "logging, validation and checkpoints"}
    )
    trackers: tuple[TrackerConfig, ...] = field(
        default=(TrackerConfig("tensorboard"),),
        metadata={
            "help": "programs that a run is logged to, beside its own metrics.jsonl; [] for none"
        },
    )
    plugins: tuple[PluginConfig, ...] = field(
        default_factory=tuple,
        metadata={
            "help": "Python files with entries of your own, imported first; on the command line "
            "beside the configurations: thalnet train digits mine.py"
        },
    )

    def __post_init__(self) -> None:
        if isinstance(self.tasks, dict):  # wrong types get their error from ``check_config``
            unnamed = [key for key, task in self.tasks.items() if not getattr(task, "name", key)]
            named = {key: replace(self.tasks[key], name=key) for key in unnamed}
            object.__setattr__(self, "tasks", self.tasks | named)

    @property
    def named_tasks(self) -> dict[str, NamedTaskConfig]:
        """Tasks of the run by name, whether it has one or several."""
        return self.tasks or {self.task.name: NamedTaskConfig(**vars(self.task))}

    @property
    def unknown_tasks(self) -> list[str]:
        """Names of the tasks that are also tested without being told the task."""
        return [name for name, task in self.named_tasks.items() if task.unknown]

    @property
    def trained_tasks(self) -> list[str]:
        """Names of the tasks that are trained, which are all but those that are only scored."""
        return [name for name, task in self.named_tasks.items() if not task.only_scored]
