"""Strategies that keep what earlier experiences taught, for networks that may grow meanwhile.

Penalties and anchors go by the names of parameters: what a network grows has none, and what was
there keeps its own. Tasks may differ in shape: memories are kept, and gradients taken, by task.
"""

from collections.abc import Iterator
from copy import deepcopy

import torch
from torch import Tensor
from torch.nn import functional as F

from thalnet_mtl.registry import register
from thalnet_mtl.strategies.base import learning
from thalnet_mtl.strategies.penalty import Named, QuadraticPenalty
from thalnet_mtl.tasks.stream import Experience
from thalnet_mtl.training.state import Run

SAMPLES = 200  # sequences from which the Fisher information is taken


@register("strategy", "ewc")
class EWC(QuadraticPenalty):
    """Elastic weight consolidation: an anchor and a Fisher information for every experience.

    Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 2017. Ω is the
    diagonal of the Fisher information at the end of an experience, from single sequences, with
    answers drawn from the network's own distribution.
    """

    def after_experience(self, run: Run, experience: Experience) -> None:
        found: Named = {}
        for task in experience.tasks:
            for name, value in fisher_information(run, task).items():
                found[name] = found[name] + value if name in found else value
        self.keep({n: p.detach().clone() for n, p in learning(run.network).items()}, found)

    def keep(self, anchor: Named, weight: Named) -> None:
        """Add what an experience leaves."""
        self.anchors.append((anchor, weight))


@register("strategy", "online_ewc")
class OnlineEWC(EWC):
    """EWC with one anchor: the latest weights, and Ω ← decay · Ω + Fisher information.

    Schwarz et al., "Progress & Compress", ICML 2018.
    """

    def keep(self, anchor: Named, weight: Named) -> None:
        before = self.anchors[0][1] if self.anchors else {}
        for name, value in before.items():
            weight[name] = self.options.decay * value + weight.get(name, torch.zeros_like(value))
        self.anchors = [(anchor, {n: w for n, w in weight.items() if n in anchor})]


def fisher_information(run: Run, task: str) -> Named:
    """The mean over sequences of (d log p(y | x) / dθ)², y drawn from p(y | x)."""
    network, port = deepcopy(run.network), run.tasks[task].head_name
    network.dropout = 0.0
    used = {n: p for n, p in network.task_parameters(port).items() if p.requires_grad}
    total = {name: torch.zeros_like(p) for name, p in used.items()}
    generator = torch.Generator().manual_seed(run.config.train.seed)
    count = 0
    for xs in sequences(run, task):
        logits = network(port, xs)[0].flatten(0, -2).float()
        drawn = torch.multinomial(logits.detach().softmax(-1).cpu(), 1, generator=generator)
        loss = F.cross_entropy(logits, drawn.flatten().to(logits.device), reduction="sum")
        gradients = torch.autograd.grad(loss, list(used.values()), allow_unused=True)
        for name, gradient in zip(used, gradients, strict=True):
            if gradient is not None:
                total[name] += gradient.square()
        count += 1
    return {name: value / count for name, value in total.items()}


def sequences(run: Run, task: str) -> Iterator[Tensor]:
    """Inputs of the training part, one sequence at a time, a fixed choice."""
    left, step = SAMPLES, 0
    options = run.config.train
    while left:
        batch = run.tasks[task].training_batch(
            step, run.batch_size(task), options.chunk, options.seed
        )
        for xs in batch.xs[:left].split(1):
            yield xs
            left -= 1
        step += 1
