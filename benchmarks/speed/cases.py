"""Training steps to measure: networks of equal size on the same inputs, with their optimizers."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.ops import BACKENDS
from thalnet_mtl.ops.lengths import last_steps
from thalnet_mtl.ops.parameter_rows import gradients_by_row
from thalnet_mtl.training.cuda_graphs import WARM, cuda_recorder
from thalnet_mtl.training.flat_optimizer import FlatOptimizer

# Class and number of layers; ratios are relative to the first.
BASELINES: dict[str, tuple[type[nn.GRU | nn.LSTM], int]] = {
    "gru4": (nn.GRU, 4),
    "gru1": (nn.GRU, 1),
    "lstm4": (nn.LSTM, 4),
}
WIDE_TOLERANCE = 0.04  # small networks and LSTMs have no width that comes closer


@dataclass(frozen=True)
class Case:
    """The shape of a task, the ThalNet for it, and what it is compared with.

    ``every_step``: the target is a class at every step, not only at the last one.
    """

    time: int
    batch: int
    inputs: int
    net: dict[str, Any] = field(default_factory=dict)
    classes: int = 10
    every_step: bool = False
    baselines: tuple[str, ...] = ("gru4",)
    paths: tuple[str, ...] = ("triton", "cpp", "fused", "batched")
    targets: tuple[tuple[str, float], ...] = ()  # ratios to the GRU to reach, by backend
    tolerance: float = 0.02  # relative difference in parameters that a baseline may have

    def thalnet(self) -> ThalNet:
        """Return the ThalNet."""
        return ThalNet(self.inputs, **self.net)

    def baseline(self, name: str) -> nn.RNNBase:
        """Return the recurrent network of that name whose size is closest."""
        kind, layers = BASELINES[name]
        tolerance = WIDE_TOLERANCE if kind is nn.LSTM else self.tolerance
        target = size(self.thalnet())
        width = min(
            range(4, 3000),
            key=lambda h: abs(_rnn_size(kind, self.inputs, h, layers) - target),
        )
        net = kind(self.inputs, width, layers, batch_first=True)
        assert abs(size(net) - target) <= tolerance * target, (name, size(net), target)
        return net


def size(net: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in net.parameters())


def _rnn_size(kind: type[nn.RNNBase], inputs: int, width: int, layers: int) -> int:
    gates = 3 if kind is nn.GRU else 4
    rows = [inputs + width, *[2 * width] * (layers - 1)]
    return sum(gates * width * (row + 2) for row in rows)


def _equal(modules: int, features: int, **options: Any) -> dict[str, Any]:
    return {"modules": modules, "features": features} | options


IMAGE = (*BACKENDS,)
LARGE = {"features": 288, "hidden": 288, "context": 192}
HUGE = {"features": 600, "hidden": 400, "context": 400}

CASES = {
    "mnist50": Case(28, 50, 28, _equal(4, 32), baselines=tuple(BASELINES), paths=IMAGE,
                    targets=(("cpp", 0.165), ("fused", 0.65))),
    "mnist256": Case(28, 256, 28, _equal(4, 32), baselines=tuple(BASELINES), paths=IMAGE,
                     targets=(("cpp", 0.24),)),
    "cifar50": Case(32, 50, 96, _equal(4, 32), baselines=tuple(BASELINES), paths=IMAGE,
                    targets=(("cpp", 0.17), ("fused", 0.65))),
    "text8": Case(100, 100, 256, {"modules": 4} | LARGE, 256, True, tuple(BASELINES),
                  targets=(("cpp", 0.76),)),
    "text8-12M": Case(100, 100, 256, {"modules": 4} | HUGE, 256, True, tuple(BASELINES)),
} | {
    f"center256-modules{modules}": Case(28, 50, 28, _equal(modules, 256 // modules))
    for modules in (4, 8, 16, 32, 64)
} | {
    f"features16-modules{modules}": Case(28, 50, 28, _equal(modules, 16), tolerance=WIDE_TOLERANCE)
    for modules in (4, 16, 64)
} | {
    f"steps{steps}": Case(steps, 50, 28, _equal(4, 32), paths=("cpp", "fused"))
    for steps in (28, 112, 784)
} | {
    f"{reading}-features{features}": Case(28, 50, 28, _equal(4, features, reading=reading),
                                          paths=("cpp", "batched"), tolerance=WIDE_TOLERANCE)
    for features in (16, 32)
    for reading in ("linear", "fast_softmax", "fast_gaussian")
}  # fmt: skip
HEAVY = "text8-12M"  # for a GPU


class Step:
    """A training step: forward, cross-entropy of a linear head, backward, fused Adam.

    With ``lengths``, which only a body takes, the head reads the last real step of every sequence.
    """

    lengths: Tensor | None = None

    def __init__(self, case: Case, path: str, device: str, precision: str):
        torch.manual_seed(0)
        net = case.baseline(path) if path in BASELINES else case.thalnet()
        if isinstance(net, ThalNet):
            net.ops = path
        width = net.outputs if isinstance(net, ThalNet) else net.hidden_size
        self.case, self.net, self.parameters = case, net.to(device), size(net)
        self.head = nn.Linear(width, case.classes).to(device)
        shape: tuple[int, ...]
        self.autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
        if precision == "bf16":
            self.autocast = lambda: torch.autocast(device, torch.bfloat16)
        if case.every_step:
            tokens = torch.randint(case.inputs, (case.batch, case.time), device=device)
            self.xs, shape = one_hot(tokens, case.inputs).float(), (case.batch, case.time)
        else:
            self.xs = torch.rand(case.batch, case.time, case.inputs, device=device)
            shape = (case.batch,)
        self.ys = torch.randint(case.classes, shape, device=device).flatten()
        parameters = [*net.parameters(), *self.head.parameters()]
        adam = torch.optim.Adam(parameters, fused=True, capturable=device == "cuda")
        cudnn = device == "cuda" and isinstance(net, nn.RNNBase)  # cuDNN keeps its own buffer
        self.optimizer = FlatOptimizer(adam, {"": parameters}, [*net.parameters()] if cudnn else [])

    def __call__(self) -> None:
        with self.autocast(), gradients_by_row(self.optimizer.parameter_rows):
            options = () if self.lengths is None else (None, self.lengths)
            ys, _ = self.net(self.xs, *options)
            logits = self.head(ys if self.case.every_step else last_steps(ys, self.lengths))
        self.optimizer.zero_grad([""])
        cross_entropy(logits.flatten(0, -2).float(), self.ys).backward()
        self.optimizer.step()


def graphed(step: Callable[[], None]) -> Callable[[], None]:
    """Capture a whole step as a CUDA graph."""
    for _ in range(WARM):
        step()
    return cuda_recorder()(step)


def steps(
    case: Case, paths: tuple[str, ...], device: str, precision: str
) -> Iterator[tuple[str, int, Callable[[], None]]]:
    """Yield path, parameters and step of all that can run here; baselines come first.

    On CUDA every step is also captured as a graph.
    """
    for path in (*case.baselines, *(path for path in case.paths if path in paths)):
        step = Step(case, path, device, precision)
        if isinstance(step.net, ThalNet):
            with step.autocast():
                if step.net.explain()[path]:
                    continue
        yield path, step.parameters, step
        if device == "cuda":
            yield f"{path} graphed", step.parameters, graphed(step)
