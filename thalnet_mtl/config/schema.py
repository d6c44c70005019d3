"""What differs from experiment to experiment in number as well as in value: data, not flags.

Tasks, modules, what is learned one after another, how the network grows, and what else is done to
its modules meanwhile. They are parts of a ``config.Config``.
"""

from dataclasses import asdict, dataclass, field, fields

from thalnet_mtl.config.overlay import option
from thalnet_mtl.errors import UserError

GROWTH = ("never", "per_task", "on_plateau")
POLICIES = ("frozen", "shared")


@dataclass(frozen=True)
class TaskConfig:
    """What is learned."""

    name: str = option("permuted_mnist", "see 'thalnet list tasks'")
    permutation: int = option(0, "permuted_mnist: seed of the permutation", low=0, high=2**32 - 1)
    batch: int = option(0, "sequences in a batch; 0: train.batch", low=0)


@dataclass(frozen=True)
class EntryConfig(TaskConfig):
    """One of several tasks: an entry of ``tasks``, by default of the task that has its name."""

    weight: float = option(1.0, "factor of its loss", low=0.0)
    share: float = option(0.0, "what train.draw takes as its size; 0: its batches", low=0.0)
    reset: float = option(0.0, "of a text: odds that a place begins anew", low=0.0, high=1.0)
    head: str = option("", "tasks of the same word share encoders and head; none: its own")

    @classmethod
    def named(cls, name: str) -> "EntryConfig":
        """An entry of ``tasks`` of which nothing is said."""
        return cls(name=name)


@dataclass(frozen=True)
class ModuleConfig:
    """One module of a ThalNet: an entry of ``modules``, where they are not all equal.

    What is 0 or empty is as ``model`` says; ``model.features`` 0 still fills the budget.
    """

    input: bool = option(False, "takes the input of its tasks")
    output: bool = option(False, "feeds the heads of its tasks")
    tasks: tuple[str, ...] = option((), "tasks that it belongs to; none: shared by all")
    reads: tuple[str, ...] = option((), "modules that it reads; none: all of its tasks")
    features: int = option(0, "width of its slot", low=0)
    context: int = option(0, "width of what it reads", low=0)
    hidden: int = option(0, "inner width", low=0)
    module: str = option("", "its design")
    reading: str = option("", "how it reads the center")
    frozen: bool = option(False, "whether it does not learn")

    @classmethod
    def named(cls, name: str) -> "ModuleConfig":
        """An entry of ``modules`` of which nothing is said."""
        return cls()


# What each verb takes beside step and name.
_CHANGES: dict[str, tuple[str, ...]] = {
    "attach": ("read_by", "module"),
    "detach": (),
    "clone": ("source", "module"),
    "freeze": (),
    "unfreeze": (),
    "route": ("source", "open"),
}


@dataclass(frozen=True)
class ChangeConfig:
    """One change of the modules between two steps of the training: an entry of ``changes``."""

    step: int = option(0, "after how many steps", low=1)
    verb: str = option("", "what is done", choices=tuple(_CHANGES))
    name: str = option("", "the module that it is done to; for freeze, unfreeze also a task's")
    source: str = option("", "clone: the module to start from; route: the one that is read or not")
    read_by: tuple[str, ...] = option((), "attach: modules opened to the new one")
    open: bool = option(True, "route: whether name may see source from now on")
    module: ModuleConfig = field(default_factory=ModuleConfig)  # attach, clone: what it is

    def complete(self, where: str) -> "ChangeConfig":
        """The change itself, or an error if it does not say what is to be done."""
        if not (self.step and self.verb and self.name):
            raise UserError(f"{where}: every change needs a step, a verb and a name.")
        own = _CHANGES[self.verb]
        if "source" in own and not self.source:
            raise UserError(f"{where}: {self.verb} {self.name}: it needs a source.")
        for other in fields(self)[3:]:
            if other.name not in own and getattr(self, other.name) != getattr(_NOTHING, other.name):
                raise UserError(f"{where}: {self.verb} {self.name}: it takes no {other.name}.")
        return self


_NOTHING = ChangeConfig()


@dataclass(frozen=True)
class ExperienceConfig:
    """What is learned at a time: an entry of ``stream``."""

    tasks: tuple[str, ...] = option((), "the tasks that are learned, jointly if several")
    steps: int = option(0, "for how many steps; 0: as train says, of its own tasks", low=0)

    def complete(self, where: str) -> "ExperienceConfig":
        """The entry itself, or an error if it names no task."""
        if not self.tasks:
            raise UserError(f"{where}: every experience needs tasks.")
        return self


@dataclass(frozen=True)
class GrowthConfig:
    """How the network grows along a stream.

    Until its first experience begins a task has no head, unless growth is 'never'. A module may
    belong to the new task alone: ``tasks: [new]``.
    """

    when: str = option("never", "when modules are attached", choices=GROWTH)
    policy: str = option("frozen", "what becomes of the older ones", choices=POLICIES)
    modules: dict[str, ModuleConfig] = field(default_factory=dict)  # attached each time
    patience: int = option(3, "on_plateau: validations without a better one", low=1)


@dataclass(frozen=True)
class StrategyConfig:
    """The knobs of ``train.strategy``; each uses some of them."""

    strength: float = option(1.0, "ewc, si, lwf: factor of what keeps the old", low=0.0)
    memory: int = option(500, "replay, gem, agem: sequences that are kept in all", low=1)
    choice: str = option("reservoir", "which are kept", choices=("reservoir", "per_class"))
    decay: float = option(0.9, "online_ewc: what is left of older information", low=0.0, high=1.0)


@dataclass(frozen=True)
class ModelConfig:
    """What is trained."""

    body: str = option("thalnet", "thalnet, or a baseline: gru, lstm, mlp")
    modules: int = option(4, "ThalNet: modules around the center", low=1)
    module: str = option("ff_gru", "ThalNet: design of every module")
    reading: str = option("weight_norm", "ThalNet: how modules read the center")
    features: int = option(0, "width of a slot or layer; 0: the most within budget", low=0)
    context: int = option(0, "ThalNet: width of a context; 0: as features", low=0)
    hidden: int = option(0, "ThalNet: inner width of a module; 0: as features", low=0)
    layers: int = option(4, "baselines: layers", low=1)
    sub_steps: int = option(1, "times that each input is shown", low=1)
    extra_steps: int = option(0, "steps without input after the last one", low=0)
    budget: int = option(50_000, "parameters allowed, encoder and head included; 0: any", low=0)


OPS = ("auto", "triton", "cpp", "fused", "batched", "reference")


@dataclass(frozen=True)
class TrainConfig:
    """How it is learned."""

    epochs: int = option(10, "passes over the training part, the shortest of several", low=1)
    steps: int = option(0, "optimizer steps; 0: as many as epochs says", low=0)
    batch: int = option(50, "sequences in a batch", low=1)
    chunk: int = option(200, "text: bytes between truncations of back-propagation", low=1)
    optimizer: str = option("rmsprop", "update rule", choices=("rmsprop", "adam", "adamw", "sgd"))
    learning_rate: float = option(1e-3, "peak learning rate", low=0.0)
    weight_decay: float = option(0.0, "weight decay", low=0.0)
    schedule: str = option("constant", "after warm-up", choices=("constant", "cosine"))
    warmup: int = option(0, "steps of linear warm-up", low=0)
    dropout: float = option(0.0, "of rows and of what heads read, while learning", low=0, high=0.9)
    clip: float = option(0.0, "largest gradient norm; 0: no clipping", low=0.0)
    combine: str = option("fixed", "several losses: fixed, uncertainty, upgrad, mgda, …")
    draw: float = option(0.0, "0: all tasks each step; T: one, odds by size^(1/T)", low=0.0)
    strategy: str = option("naive", "what keeps old tasks: see 'thalnet list strategies'")
    patience: int = option(0, "validations that a task may not improve; 0: any", low=0)
    precision: str = option("fp32", "of products; tf32: on a GPU", choices=("fp32", "tf32", "bf16"))
    ops: str = option("auto", "how a ThalNet is computed; auto: the fastest", choices=OPS)
    device: str = option("auto", "auto: cuda where there is one", choices=("auto", "cpu", "cuda"))
    threads: int = option(0, "CPU threads; 0: one for small networks, else as PyTorch", low=0)
    seed: int = option(0, "of the initial weights and the order of batches", low=0, high=2**31)


@dataclass(frozen=True)
class EvaluateConfig:
    """When to look, and how closely."""

    every: int = option(0, "steps between validations; 0: once an epoch", low=0)
    batch: int = option(500, "sequences in a batch of evaluation", low=1)
    batches: int = option(0, "at most so many batches of each part; 0: all", low=0)
    log_every: int = option(50, "steps between lines of training loss", low=1, high=10**6)
    checkpoint_every: int = option(0, "steps between checkpoints; 0: at every validation", low=0)


@dataclass(frozen=True)
class Config:
    """One run, complete."""

    model: ModelConfig = field(default_factory=ModelConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    tasks: dict[str, EntryConfig] = field(default_factory=dict)
    modules: dict[str, ModuleConfig] = field(default_factory=dict)
    changes: tuple[ChangeConfig, ...] = ()
    stream: tuple[ExperienceConfig, ...] = ()
    growth: GrowthConfig = field(default_factory=GrowthConfig)
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    @property
    def named_tasks(self) -> dict[str, EntryConfig]:
        """The tasks of this run by the name that they have in it."""
        return self.tasks or {self.task.name: EntryConfig(**asdict(self.task))}
