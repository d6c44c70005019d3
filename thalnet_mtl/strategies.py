"""Strategies that keep what earlier experiences taught, for networks that may grow meanwhile.

Penalties and anchors go by the names of parameters: what a network grows has none, and what was
there keeps its own. Tasks may differ in shape: memories are kept, and gradients taken, by task.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from thalnet_mtl.build import restore
from thalnet_mtl.change import Change
from thalnet_mtl.registry import register
from thalnet_mtl.replay import AGEM, GEM, Replay
from thalnet_mtl.run import Run, equip
from thalnet_mtl.strategy import Naive, learning
from thalnet_mtl.stream import Experience
from thalnet_mtl.tasks import Batch

__all__ = ["AGEM", "GEM", "Naive", "Replay"]  # which register themselves

Named = dict[str, Tensor]
SAMPLES = 200  # sequences from which the Fisher information is taken
LEAST = 0.1  # ξ of synaptic intelligence, as its authors
TEMPERATURE = 2.0  # of the old answers in learning without forgetting, as its authors


class Penalty(Naive):
    """strength / 2 · Σ_a Σ_k Ω_ak (θ_k − θ*_ak)², anchors θ* with an importance Ω each."""

    def __init__(self, run: Run):
        super().__init__(run)
        self.anchors: list[tuple[Named, Named]] = []  # θ*, Ω

    def loss(self, run: Run, batches: Mapping[str, Batch]) -> Tensor | None:
        now = learning(run.network)
        terms = [
            (weight[name] * (now[name] - anchor[name]).square()).sum()
            for anchor, weight in self.anchors
            for name in weight
            if name in now
        ]
        return self.options.strength / 2 * torch.stack(terms).sum() if terms else None

    def follow(self, change: Change) -> None:
        for named in (part for anchor in self.anchors for part in anchor):
            followed(named, change)

    def state_dict(self) -> dict[str, Any]:
        return {"anchors": [list(anchor) for anchor in self.anchors]}

    def load_state_dict(self, run: Run, state: dict[str, Any]) -> None:
        self.anchors = [
            (placed(anchor, run), placed(weight, run)) for anchor, weight in state["anchors"]
        ]


def placed(named: Named, run: Run) -> Named:
    """Tensors by name where the run is."""
    return {name: tensor.to(run.device) for name, tensor in named.items()}


def followed(named: Named, change: Change) -> None:
    """Bring tensors by the name of a parameter along: zero where it has grown."""
    if change.verb in ("detach", "remove_task"):  # what comes later by this name is another
        for name in change.removed:
            named.pop(name, None)
    for name, grown in change.grown.items():
        if name in named:
            named[name] = grown.remap(named[name])


@register("strategy", "ewc")
class EWC(Penalty):
    """Elastic weight consolidation: an anchor and a Fisher information for every experience.

    Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 2017. Ω is the
    diagonal of the Fisher information at the end of an experience, from single sequences, with
    answers drawn from the network's own distribution.
    """

    def end(self, run: Run, experience: Experience) -> None:
        found: Named = {}
        for task in experience.tasks:
            for name, value in fisher(run, task).items():
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


def fisher(run: Run, task: str) -> Named:
    """The mean over sequences of (d log p(y | x) / dθ)², y drawn from p(y | x)."""
    network, port = deepcopy(run.network), run.tasks[task].port
    network.dropout = 0.0
    used = {n: p for n, p in network.used(port).items() if p.requires_grad}
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
        batch = run.tasks[task].batch(step, run.batch_size(task), options.chunk, options.seed)
        for xs in batch.xs[:left].split(1):
            yield xs
            left -= 1
        step += 1


@register("strategy", "si")
class SynapticIntelligence(Penalty):
    """Synaptic intelligence: Ω_k += max(0, ω_k) / (Δ_k² + ξ), with ω_k = −Σ_steps g_k Δθ_k.

    Zenke, Poole, Ganguli, "Continual Learning Through Synaptic Intelligence", ICML 2017. g is the
    gradient of the losses alone, Δ_k how far a weight went in the experience; the penalty is
    strength · Σ Ω (θ − θ*)², of the latest weights.
    """

    def __init__(self, run: Run):
        super().__init__(run)
        self.start: Named = {}  # weights where the experience began
        self.path: Named = {}  # ω
        self.before: Named = {}  # weights and gradients of this step
        self.gradients: Named = {}

    def given(self, run: Run) -> None:
        now = learning(run.network)
        for name, parameter in now.items():
            if name not in self.start:
                self.start[name] = parameter.detach().clone()
                self.path[name] = torch.zeros_like(parameter)
        self.before = {name: p.detach().clone() for name, p in now.items()}
        self.gradients = {n: p.grad.clone() for n, p in now.items() if p.grad is not None}

    def moved(self, run: Run, batches: Mapping[str, Batch]) -> None:
        now = learning(run.network)
        for name, gradient in self.gradients.items():
            self.path[name] -= gradient * (now[name].detach() - self.before[name])

    def end(self, run: Run, experience: Experience) -> None:
        now = learning(run.network)
        old = self.anchors[0][1] if self.anchors else {}
        weight: Named = {}
        for name in self.path:
            if name in now:
                far = now[name].detach() - self.start[name]
                gained = 2 * self.path[name].clamp(min=0) / (far.square() + LEAST)
                weight[name] = gained + old.get(name, 0)
        self.anchors = [({n: now[n].detach().clone() for n in weight}, weight)]
        self.start, self.path = {}, {}

    def follow(self, change: Change) -> None:
        super().follow(change)
        for named in (self.start, self.path):
            followed(named, change)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"start": self.start, "path": self.path}

    def load_state_dict(self, run: Run, state: dict[str, Any]) -> None:
        super().load_state_dict(run, state)
        self.start, self.path = placed(state["start"], run), placed(state["path"], run)


@register("strategy", "lwf")
class LearningWithoutForgetting(Naive):
    """Learning without forgetting: old heads answer new inputs as they did before.

    Li, Hoiem, "Learning without Forgetting", ECCV 2016: strength · T² KL(p_old ‖ p_new) at a
    temperature T = 2, for every older task whose inputs have the shape of the new ones.
    """

    def __init__(self, run: Run):
        super().__init__(run)
        self.teacher: Any = None  # the network before this experience
        self.old: list[str] = []  # its tasks

    def tasks(self, run: Run, batches: Mapping[str, Batch]) -> list[str]:
        new = [run.tasks[name].interface for name in batches]
        return [t for t in self.old if any(alike(run.tasks[t].interface, one) for one in new)]

    def loss(self, run: Run, batches: Mapping[str, Batch]) -> Tensor | None:
        if self.teacher is None:
            return None
        terms = []
        ports = dict.fromkeys(run.tasks[name].port for name in self.old if name in run.awake)
        for name, batch in batches.items():
            mine = run.tasks[name]
            takes = [p for p in ports if alike(run.network.port(p).task, mine.interface)]
            with torch.no_grad():
                before = self.teacher.answers(takes, batch.xs)
            now = run.network.answers(takes, batch.xs)
            for port in takes:
                logits, wanted = (one[port].flatten(0, -2).float() for one in (now, before))
                terms.append(
                    F.kl_div(
                        (logits / TEMPERATURE).log_softmax(-1),
                        (wanted / TEMPERATURE).log_softmax(-1),
                        reduction="batchmean",
                        log_target=True,
                    )
                )
        factor = self.options.strength * TEMPERATURE**2
        return factor * torch.stack(terms).sum() if terms else None

    def end(self, run: Run, experience: Experience) -> None:
        self.teacher = deepcopy(run.network).eval().requires_grad_(False)
        self.old = [*dict.fromkeys([*self.old, *experience.tasks])]

    def state_dict(self) -> dict[str, Any]:
        teacher = self.teacher
        kept = teacher and {"topology": teacher.describe(), "network": teacher.state_dict()}
        return {"teacher": kept, "old": self.old}

    def load_state_dict(self, run: Run, state: dict[str, Any]) -> None:
        self.old = list(state["old"])
        if state["teacher"]:
            self.teacher = restore(state["teacher"]["topology"])
            self.teacher.load_state_dict(state["teacher"]["network"])
            self.teacher.to(run.device).eval().requires_grad_(False)
            equip(self.teacher, run.config.train)


def alike(one: Any, other: Any) -> bool:
    """Whether inputs of one task can be given to another."""
    return (one.inputs, one.tokens, one.target) == (other.inputs, other.tokens, other.target)


ELSEWHERE = "avalanche:"
AVALANCHE = ("naive", "cumulative", "replay", "gdumb", "ewc", "online_ewc", "mas", "rwalk", "lwf",
             "agem", "gem")  # fmt: skip


class Elsewhere(Naive):
    """Avalanche's own, in its loop: what works is in benchmarks/continual/README.md."""


for _name in AVALANCHE:
    register("strategy", f"{ELSEWHERE}{_name}")(Elsewhere)
