"""The fields of a configuration on optimization, hardware and evaluation."""

from dataclasses import dataclass

from thalnet_mtl.config.overlay import option

# Values that a field allows, with a line on each.
START_WEIGHTS = {
    "best": "those of the best validation, of a stream those of the last one",
    "last": "those after the last step",
}
OPS = {
    "auto": "the fastest of cpp, fused, batched and reference that can run the network",
    "triton": "GPU kernels in Triton, for modules ff_gru under static readings, in tf32 or bf16",
    "cpp": "a CPU kernel in C++, compiled when it is first used",
    "fused": "PyTorch, with gradients of all steps in few large products; static readings",
    "batched": "PyTorch, with equal modules in one product; any reading and design",
    "reference": "PyTorch, one module and one step at a time: the definition of the others",
}
SCHEDULES = {
    "constant": "η after the warm-up",
    "cosine": "half a cosine, η/2 · (1 + cos πt), from η after the warm-up (t = 0) to 0 at the "
    'end of the experience (t = 1); Loshchilov, Hutter, "SGDR", ICLR 2017, without restarts',
    "cooldown": "η after the warm-up, and a line to 0 in the last fifth of the steps after it; "
    'Hägele et al., "Scaling Laws and Compute-Optimal Training", NeurIPS 2024',
}
PRECISIONS = {
    "fp32": "32 bits",
    "tf32": "inputs of products rounded to 10 bits after the point, sums in 32 bits; GPU only",
    "bf16": "products in bfloat16 with autocast, weights in 32 bits",
}
BOUNDARIES = {
    "announced": "the learner is told where an experience ends",
    "hidden": "it is not, all tasks share a head, and each training sequence is used once",
}
DEVICES = {"auto": "a GPU if there is one", "cpu": "the processor", "cuda": "an Nvidia GPU"}


@dataclass(frozen=True)
class StartConfig:
    """The network that training starts from."""

    run: str = option(
        "",
        "run, its model folder, what Network.save wrote, zoo:NAME or hub:OWNER/NAME: its modules, "
        "readings and connections are taken with their weights, the encoders and heads for tasks "
        "of the same name too; --from RUN says the same; default: new weights",
    )
    weights: str = option("best", "which weights of a run", choices=START_WEIGHTS)
    optimizer: bool = option(False, "also take the state of its optimizer, with weights last")
    frozen: bool = option(False, "train encoders and heads alone, and nothing else that is taken")


@dataclass(frozen=True)
class TrainConfig:
    """Optimization and hardware."""

    epochs: int = option(
        10,
        "epochs; with several tasks, passes over the training set of train.epoch_of",
        low=1,
        high=10**9,
    )
    steps: int = option(0, "optimizer steps; 0: as many as train.epochs takes", low=0, high=10**12)
    epoch_of: str = option(
        "shortest",
        "task whose passes are the epochs: that of the fewest batches (shortest), of the most "
        "(longest), or a name; shorter tasks begin again, in a new order",
    )
    batch: int = option(50, "sequences per batch", low=1)
    accumulate: int = option(
        1, "passes in which the batch of a step is computed; more need less memory", low=1
    )
    chunk: int = option(200, "text: bytes per chunk of truncated back-propagation", low=1)
    optimizer: str = option("rmsprop", "optimizer", names="optimizer")
    learning_rate: float = option(1e-3, "peak learning rate", low=0.0)
    weight_decay: float = option(0.0, "weight decay", low=0.0)
    schedule: str = option("constant", "learning rate after warm-up", choices=SCHEDULES)
    warmup: int = option(0, "steps of linear warm-up, in every experience", low=0)
    dropout: float = option(
        0.0,
        "dropout rate for input rows and for the features that heads read (training only)",
        low=0,
        high=0.9,
    )
    clip: float = option(0.0, "maximum gradient norm; 0: no clipping", low=0.0)
    combine: str = option("fixed", "loss weighting of tasks", names="weighting")
    draw: float = option(
        0.0,
        "0: every task in each step; T > 0: one task per step, sampled with probability "
        "∝ size^(1/T)",
        low=0.0,
    )
    strategy: str = option("naive", "continual-learning strategy", names="strategy")
    patience: int = option(
        0,
        "early stopping: validations without improvement before a task stops training; in a "
        "stream, each experience ends so, and with its best weights; 0: off",
        low=0,
    )
    boundaries: str = option(
        "announced",
        "stream: whether the learner is told where an experience ends",
        choices=BOUNDARIES,
    )
    precision: str = option("fp32", "precision of products", choices=PRECISIONS)
    ops: str = option("auto", "backend of a ThalNet", choices=OPS)
    device: str = option(
        "auto", "where the network is trained; for several GPUs, use torchrun", choices=DEVICES
    )
    threads: int = option(
        0,
        "CPU threads; 0: one for small networks, otherwise PyTorch's default",
        low=0,
        high=1024,
    )
    seed: int = option(0, "seed of initial weights and of the order of batches", low=0, high=2**31)


@dataclass(frozen=True)
class EvaluateConfig:
    """Times at which to log, validate and save, and the amount of data to score."""

    every: int = option(0, "steps between validations; 0: once per epoch", low=0)
    batch: int = option(500, "sequences per batch of an evaluation", low=1)
    batches: int = option(0, "maximum number of batches per split; 0: all", low=0)
    log_every: int = option(50, "steps between log entries of the training loss", low=1, high=10**6)
    checkpoint_every: int = option(0, "steps between checkpoints; 0: at every validation", low=0)
