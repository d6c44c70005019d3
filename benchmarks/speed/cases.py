"""What is measured: nets of equal size on the same inputs, each with its optimizer, as one step."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy, one_hot

from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.ops import BACKENDS
from thalnet_mtl.training.cuda_graphs import WARM, cuda_recorder
from thalnet_mtl.training.flat_optimizer import FlatOptimizer

# Kind and layers; all ratios are to the first.
BASELINES: dict[str, tuple[type[nn.RNNBase], int]] = {
    "gru4": (nn.GRU, 4),
    "gru1": (nn.GRU, 1),
    "lstm4": (nn.LSTM, 4),
}
NARROW = 0.04  # no width comes nearer where nets are small, nor that of an LSTM


@dataclass(frozen=True)
class Case:
    """A task's shape and the ThalNet for it; ``every``: a class at every step, not at the last."""

    time: int
    batch: int
    inputs: int
    net: dict[str, Any] = field(default_factory=dict)
    classes: int = 10
    every: bool = False
    beside: tuple[str, ...] = ("gru4",)
    paths: tuple[str, ...] = ("triton", "cpp", "fused", "batched")
    target: tuple[tuple[str, float], ...] = ()
    within: float = 0.02  # how far the parameters of a baseline may be off

    def thalnet(self) -> ThalNet:
        """The net."""
        return ThalNet(self.inputs, **self.net)

    def baseline(self, name: str) -> nn.RNNBase:
        """The recurrent net of that name whose size is nearest."""
        kind, layers = BASELINES[name]
        within = NARROW if kind is nn.LSTM else self.within
        wanted = size(self.thalnet())
        width = min(
            range(4, 3000),
            key=lambda h: abs(_rnn_size(kind, self.inputs, h, layers) - wanted),
        )
        net = kind(self.inputs, width, layers, batch_first=True)
        assert abs(size(net) - wanted) <= within * wanted, (name, size(net), wanted)
        return net


def size(net: nn.Module) -> int:
    """Parameters."""
    return sum(parameter.numel() for parameter in net.parameters())


def _rnn_size(kind: type[nn.RNNBase], inputs: int, width: int, layers: int) -> int:
    gates = 3 if kind is nn.GRU else 4
    rows = [inputs + width, *[2 * width] * (layers - 1)]
    return sum(gates * width * (row + 2) for row in rows)


def _equal(modules: int, features: int, **more: Any) -> dict[str, Any]:
    return {"modules": modules, "features": features} | more


IMAGE = (*BACKENDS,)
LARGE = {"features": 288, "hidden": 288, "context": 192}
HUGE = {"features": 600, "hidden": 400, "context": 400}

CASES = {
    "mnist50": Case(28, 50, 28, _equal(4, 32), beside=tuple(BASELINES), paths=IMAGE,
                    target=(("cpp", 0.165), ("fused", 0.65))),
    "mnist256": Case(28, 256, 28, _equal(4, 32), beside=tuple(BASELINES), paths=IMAGE,
                     target=(("cpp", 0.24),)),
    "cifar50": Case(32, 50, 96, _equal(4, 32), beside=tuple(BASELINES), paths=IMAGE,
                    target=(("cpp", 0.17), ("fused", 0.65))),
    "text8": Case(100, 100, 256, {"modules": 4} | LARGE, 256, True, tuple(BASELINES),
                  target=(("cpp", 0.76),)),
    "text8-12M": Case(100, 100, 256, {"modules": 4} | HUGE, 256, True, tuple(BASELINES)),
} | {
    f"center256-modules{modules}": Case(28, 50, 28, _equal(modules, 256 // modules))
    for modules in (4, 8, 16, 32, 64)
} | {
    f"features16-modules{modules}": Case(28, 50, 28, _equal(modules, 16), within=NARROW)
    for modules in (4, 16, 64)
} | {
    f"steps{steps}": Case(steps, 50, 28, _equal(4, 32), paths=("cpp", "fused"))
    for steps in (28, 112, 784)
} | {
    f"{reading}-features{features}": Case(28, 50, 28, _equal(4, features, reading=reading),
                                          paths=("cpp", "batched"), within=NARROW)
    for features in (16, 32)
    for reading in ("linear", "fast_softmax", "fast_gaussian")
}  # fmt: skip
HEAVY = "text8-12M"  # for a GPU


class Step:
    """One training step: forward, cross-entropy of a linear head, backward, fused Adam."""

    def __init__(self, case: Case, path: str, device: str, precision: str):
        torch.manual_seed(0)
        net = case.baseline(path) if path in BASELINES else case.thalnet()
        if isinstance(net, ThalNet):
            net.ops = path
        width = net.outputs if isinstance(net, ThalNet) else net.hidden_size
        self.case, self.net, self.parameters = case, net.to(device), size(net)
        self.head = nn.Linear(width, case.classes).to(device)
        self.autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
        if precision == "bf16":
            self.autocast = lambda: torch.autocast(device, torch.bfloat16)
        if case.every:
            tokens = torch.randint(case.inputs, (case.batch, case.time), device=device)
            self.xs, shape = one_hot(tokens, case.inputs).float(), (case.batch, case.time)
        else:
            self.xs = torch.rand(case.batch, case.time, case.inputs, device=device)
            shape = (case.batch,)
        self.ys = torch.randint(case.classes, shape, device=device).flatten()
        learned = [*net.parameters(), *self.head.parameters()]
        adam = torch.optim.Adam(learned, fused=True, capturable=device == "cuda")
        cudnn = device == "cuda" and isinstance(net, nn.RNNBase)  # wants its weights for itself
        self.joined = FlatOptimizer(adam, {"": learned}, net.parameters() if cudnn else ())

    def __call__(self) -> None:
        with self.autocast():
            ys, _ = self.net(self.xs)
            logits = self.head(ys if self.case.every else ys[:, -1])
        self.joined.zero_grad([""])
        cross_entropy(logits.flatten(0, -2).float(), self.ys).backward()
        self.joined.step()


def graphed(step: Callable[[], None]) -> Callable[[], None]:
    """A whole step as one CUDA graph."""
    for _ in range(WARM):
        step()
    return cuda_recorder()(step)


def steps(
    case: Case, paths: tuple[str, ...], device: str, precision: str
) -> Iterator[tuple[str, int, Callable[[], None]]]:
    """Path, parameters and step of all that can run here, baselines first; graphed ones on CUDA."""
    for path in (*case.beside, *(path for path in case.paths if path in paths)):
        step = Step(case, path, device, precision)
        if isinstance(step.net, ThalNet):
            with step.autocast():
                if step.net.explain()[path]:
                    continue
        yield path, step.parameters, step
        if device == "cuda":
            yield f"{path} graphed", step.parameters, graphed(step)
