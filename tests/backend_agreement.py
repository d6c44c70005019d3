"""Do all levels train as the definition does? On a machine with a GPU, where CI never is::

    python tests/backend_agreement.py --device cuda --steps 200

Every level and precision that can run trains the paper's net on scikit-learn's digits from the same
weights. After every tenth step its gradients are set against those of the definition in float64, at
the weights that it has come to. What is printed: the loss, and the largest and the median error of
a parameter's gradient, relative L2, over the steps looked at. Then so many equal runs side by side,
each on a stream with a captured step of its own, are set against one alone, which they must equal.
"""

import argparse
import copy
import itertools
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from statistics import mean, median

import torch
from torch.nn import functional as F

from thalnet_mtl.config.load import load_configs
from thalnet_mtl.config.schema import Config
from thalnet_mtl.console import Console
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.ops import BACKENDS
from thalnet_mtl.tasks.base import Batch
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.sampling import next_batches
from thalnet_mtl.training.setup import fetch_with, set_up
from thalnet_mtl.training.stacked import streams
from thalnet_mtl.training.step import StepInputs, TrainStep

PRECISIONS = {"cuda": ("fp32", "tf32", "bf16"), "cpu": ("fp32",)}
DESIGNS = "ff_gru", "gru"  # of those side by side: composed with its reading, and not
SIZES = {"small": {"features": 32}, "wide": {"features": 96}}  # the Triton level has a way for each


def gradients(network: Network, port: str, batch: Batch, autocast: bool) -> list[torch.Tensor]:
    """Of all parameters, by the loss of a batch."""
    network.zero_grad(set_to_none=True)
    way: AbstractContextManager[object] = nullcontext()
    if autocast:
        way = torch.autocast(batch.xs.device.type, torch.bfloat16)
    with way:
        logits, _ = network(port, batch.xs)
    F.cross_entropy(logits.float() if autocast else logits, batch.ys).backward()
    return [p.grad.double() for p in network.parameters() if p.grad is not None]


def errors(run: RunContext, batch: Batch) -> list[float]:
    """How far the gradients are from those of the definition in float64, by parameter."""
    (task,) = run.tasks.values()
    own, exact = copy.deepcopy(run.network), copy.deepcopy(run.network).double()
    assert isinstance(exact.body, ThalNet)
    exact.body.ops = "reference"
    wide = batch._replace(xs=batch.xs.double())
    ours = gradients(own, task.head_name, batch, run.config.train.precision == "bf16")
    pairs = zip(ours, gradients(exact, task.head_name, wide, False), strict=True)
    return [float((one - other).norm() / (other.norm() + 1e-30)) for one, other in pairs]


def trained(config: Config, steps: int) -> str:
    """What a level did, as one line."""
    run = set_up(config, fetch_with(Console()))
    losses, found, train_step = [], [], TrainStep(run)
    for run.state.step in range(steps):
        batches = next_batches(run)
        losses.append(float(train_step(StepInputs(batches, run.learning_rate()))))
        if run.step % 10 == 9:
            found.append(errors(run, next(iter(batches.values()))))
    worst, middle = max(map(max, found)), median(e for of in found for e in of)
    said = " ".join(f"{mean(losses[k : k + 50]):.4f}" for k in range(0, steps, 50))
    return f"loss {said}  error {worst:.1e}, median {middle:.1e}"


def beside(config: Config, steps: int, count: int) -> torch.Tensor:
    """The losses of equal runs that go side by side, (run, step)."""
    runs = [set_up(config, fetch_with(Console())) for _ in range(count)]
    ways = streams(count) if runs[0].device.type == "cuda" else [nullcontext()] * count
    steps_of = [TrainStep(run) for run in runs]
    losses: list[list[torch.Tensor]] = [[] for _ in runs]
    if runs[0].device.type == "cuda":
        torch.cuda.synchronize()
    for step in range(steps):
        for run, train_step, way, own in zip(runs, steps_of, ways, losses, strict=True):
            with way:
                run.state.step = step
                own.append(train_step(StepInputs(next_batches(run), run.learning_rate()))[0])
    if runs[0].device.type == "cuda":
        torch.cuda.synchronize()
    return torch.stack([torch.stack(own) for own in losses])


def main() -> int:
    """All levels on a device; 1 if runs beside others are not what they are alone."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cpu", choices=PRECISIONS)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--beside", type=int, default=8, help="runs side by side")
    options = parser.parse_args()
    base = load_configs(["digits"], {"train.optimizer": "rmsprop", "train.learning_rate": "0.001"})
    for size, sizes in SIZES.items():
        for precision in PRECISIONS[options.device]:
            for level in ("auto", *BACKENDS):
                model = replace(base[""].model, modules=4, budget=0, **sizes)
                how = replace(
                    base[""].train, ops=level, precision=precision, device=options.device,
                    batch=50, steps=options.steps,
                )  # fmt: skip
                try:
                    said = trained(replace(base[""], model=model, train=how), options.steps)
                except UserError as error:
                    said = str(error).partition(". Use one of")[0]
                print(f"{size:6} {precision:5} {level:9} {said}", flush=True)
    differ = 0
    for design, precision in itertools.product(DESIGNS, PRECISIONS[options.device]):
        model = replace(base[""].model, modules=4, budget=0, features=32, module=design)
        how = replace(
            base[""].train, precision=precision, device=options.device, batch=50,
            steps=options.steps,
        )  # fmt: skip
        config = replace(base[""], model=model, train=how)
        alone, others = (beside(config, options.steps, n) for n in (1, options.beside))
        equal = int((others == alone).all(1).sum())
        differ += options.beside - equal
        worst = float((others - alone).abs().max())
        said = f"{equal} of {options.beside} beside others equal one alone, within {worst:.1e}"
        print(f"{design:6} {precision:5} {said}", flush=True)
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
