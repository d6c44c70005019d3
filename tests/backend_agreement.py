"""Check that all backends train like the reference; for machines with a GPU, which CI lacks::

    python tests/backend_agreement.py --device cuda --steps 200

Every supported backend and precision trains the paper's network on scikit-learn's digits from the
same weights. After every tenth step its gradients are compared with those of the reference in
float64 at its current weights. Printed are the loss, and the largest and the median relative L2
error of a parameter's gradient. Then several equal runs train concurrently, each on a CUDA stream
with its own captured step. Each must equal a run that has the GPU to itself.
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
from thalnet_mtl.tasks.batch import Batch
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.sampling import next_batches
from thalnet_mtl.training.setup import fetch_with, set_up
from thalnet_mtl.training.stacked import streams
from thalnet_mtl.training.step import StepInputs, TrainStep

PRECISIONS = {"cuda": ("fp32", "tf32", "bf16"), "cpu": ("fp32",)}
DESIGNS = "ff_gru", "gru"  # of concurrent runs: with and without a composed reading
SIZES = {
    "small": {"features": 32},
    "wide": {"features": 96},
}  # Triton has separate kernels for each


def gradients(network: Network, port: str, batch: Batch, autocast: bool) -> list[torch.Tensor]:
    """Return the gradients of the loss of a batch w.r.t. all parameters."""
    network.zero_grad(set_to_none=True)
    context: AbstractContextManager[object] = nullcontext()
    if autocast:
        context = torch.autocast(batch.xs.device.type, torch.bfloat16)
    with context:
        logits, _ = network(port, batch.xs)
    F.cross_entropy(logits.float() if autocast else logits, batch.ys).backward()
    return [p.grad.double() for p in network.parameters() if p.grad is not None]


def errors(run: RunContext, batch: Batch) -> list[float]:
    """Return the relative L2 error of every gradient against the reference in float64."""
    (task,) = run.tasks.values()
    network, exact = copy.deepcopy(run.network), copy.deepcopy(run.network).double()
    assert isinstance(exact.body, ThalNet)
    exact.body.ops = "reference"
    double = batch._replace(xs=batch.xs.double())
    grads = gradients(network, task.head_name, batch, run.config.train.precision == "bf16")
    pairs = zip(grads, gradients(exact, task.head_name, double, False), strict=True)
    return [float((grad - target).norm() / (target.norm() + 1e-30)) for grad, target in pairs]


def train_line(config: Config, steps: int) -> str:
    """Train with a backend and return losses and errors as one line."""
    run = set_up(config, fetch_with(Console()))
    losses, error_lists, train_step = [], [], TrainStep(run)
    for run.state.step in range(steps):
        batches = next_batches(run)
        losses.append(float(train_step(StepInputs(batches, run.learning_rate()))))
        if run.step % 10 == 9:
            error_lists.append(errors(run, next(iter(batches.values()))))
    worst = max(map(max, error_lists))
    middle = median(error for step_errors in error_lists for error in step_errors)
    means = " ".join(f"{mean(losses[k : k + 50]):.4f}" for k in range(0, steps, 50))
    return f"loss {means}  error {worst:.1e}, median {middle:.1e}"


def concurrent_losses(config: Config, steps: int, count: int) -> torch.Tensor:
    """Return the losses of equal runs that train concurrently, (run, step)."""
    runs = [set_up(config, fetch_with(Console())) for _ in range(count)]
    contexts = streams(count) if runs[0].device.type == "cuda" else [nullcontext()] * count
    train_steps = [TrainStep(run) for run in runs]
    losses: list[list[torch.Tensor]] = [[] for _ in runs]
    if runs[0].device.type == "cuda":
        torch.cuda.synchronize()
    for step in range(steps):
        for k, run in enumerate(runs):
            with contexts[k]:
                run.state.step = step
                inputs = StepInputs(next_batches(run), run.learning_rate())
                losses[k].append(train_steps[k](inputs)[0])
    if runs[0].device.type == "cuda":
        torch.cuda.synchronize()
    return torch.stack([torch.stack(run_losses) for run_losses in losses])


def main() -> int:
    """Check all backends on a device; return 1 if concurrent runs differ from a run alone."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cpu", choices=PRECISIONS)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--concurrent", type=int, default=8, help="number of concurrent runs")
    options = parser.parse_args()
    base = load_configs(["digits"], {"train.optimizer": "rmsprop", "train.learning_rate": "0.001"})
    for size, sizes in SIZES.items():
        for precision in PRECISIONS[options.device]:
            for backend in ("auto", *BACKENDS):
                model = replace(base[""].model, modules=4, budget=0, **sizes)
                training = replace(
                    base[""].train, ops=backend, precision=precision, device=options.device,
                    batch=50, steps=options.steps,
                )  # fmt: skip
                try:
                    line = train_line(replace(base[""], model=model, train=training), options.steps)
                except UserError as error:
                    line = str(error).partition(". Use one of")[0]
                print(f"{size:6} {precision:5} {backend:9} {line}", flush=True)
    differ = 0
    for design, precision in itertools.product(DESIGNS, PRECISIONS[options.device]):
        model = replace(base[""].model, modules=4, budget=0, features=32, module=design)
        training = replace(
            base[""].train, precision=precision, device=options.device, batch=50,
            steps=options.steps,
        )  # fmt: skip
        config = replace(base[""], model=model, train=training)
        alone, concurrent = (
            concurrent_losses(config, options.steps, n) for n in (1, options.concurrent)
        )
        equal = int((concurrent == alone).all(1).sum())
        differ += options.concurrent - equal
        worst = float((concurrent - alone).abs().max())
        line = (
            f"{equal} of {options.concurrent} concurrent runs equal one alone, within {worst:.1e}"
        )
        print(f"{design:6} {precision:5} {line}", flush=True)
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
