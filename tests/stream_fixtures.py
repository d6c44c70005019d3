"""Runs of a stream without a log, and a plain training loop to compare them with."""

from copy import deepcopy
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from toy_tasks import knobs_of, toy

from thalnet_mtl.models.body import Body
from thalnet_mtl.models.network import Network
from thalnet_mtl.registry import entries, register
from thalnet_mtl.training.checkpoint import save_run
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.growth.base import grow_if_due
from thalnet_mtl.training.sampling import next_batches
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.step import StepInputs, TrainStep

TWO = {
    "tasks": {"a": {"name": "toy_rows"}, "b": {"name": "toy_rows"}},
    "stream": [{"tasks": ["a"], "steps": 12}, {"tasks": ["b"], "steps": 12}],
}
THREE = {
    "tasks": TWO["tasks"] | {"c": {"name": "toy_rows"}},
    "stream": [*TWO["stream"], {"tasks": ["c"], "steps": 12}],
}
MOMENTUM = 0.9
STRATEGIES = [name for name in entries("strategy") if ":" not in name]  # of our own loop


@register("body", "toy_scale")
class Scale(Body):
    """A body that scales every input: with a head, softmax regression on the last row."""

    def __init__(self, features: int, inputs: int, layers: int = 1):
        super().__init__()
        self.inputs = self.outputs = inputs
        self.features, self.layers = features, layers
        self.scale = nn.Parameter(torch.ones(inputs))

    def initial(self, xs):
        return xs.new_zeros(len(xs), 1)

    def run(self, xs, state, lengths=None):
        return xs * self.scale, state


def make_run(
    strategy: str, sections=TWO, body: str = "toy_scale", knobs=None, **options
) -> RunContext:
    """A run in float64 before its first step."""
    options = {"optimizer": "sgd", "learning_rate": 0.05} | options
    config = toy(
        **sections,
        model={"body": body, "features": 5, "layers": 1},
        strategy=knobs_of(strategy, **{"strength": 3.0} | (knobs or {})),
        train=options | {"strategy": strategy},
    )
    run = set_up(config, fetch=print)
    run.network.double()
    with torch.no_grad():  # steep answers, far from uniform
        for name, parameter in run.network.named_parameters():
            if "head" in name:
                parameter.mul_(4)
    return run


def step_until(run: RunContext, until: int) -> None:
    """Take steps as the loop does, without its log."""
    train_step = TrainStep(run)
    while run.step < until:
        if grow_if_due(run):
            train_step.drop_caches()
        now = run.experience
        train_step(StepInputs(next_batches(run), run.learning_rate()))
        run.state.step += 1
        if run.step == now.stop:
            run.state.strategy.after_experience(now)


def save_scored(path: Path, run: RunContext) -> None:
    """Save a run that nobody has scored, as if it had been scored before its first step."""
    scores = run.state.scores
    for name in run.attached_tasks:
        values = dict.fromkeys(["loss", *(m.name for m in run.tasks[name].metrics)], 0.0)
        scores.untrained.setdefault(name, values | {"count": 1.0})
    scores.accuracy_matrix = scores.accuracy_matrix or [{}]
    save_run(path, run, 0)


def batches(run: RunContext, task: str, count: int):
    """The first training batches of a task."""
    return [
        run.tasks[task].training_batch(k, run.config.train.batch, 7, 0)[:2] for k in range(count)
    ]


def cross_entropy(network: Network, port: str, xs, ys):
    return F.cross_entropy(network(port, xs)[0].flatten(0, -2), ys.flatten())


def sgd(network: Network, rate: float = 0.05) -> torch.optim.Optimizer:
    return torch.optim.SGD(network.parameters(), lr=rate, momentum=MOMENTUM)


def train_plainly(network, port, data, extra=None, after=None, optimizer=None):
    """The training loop that everyone would write, with a penalty if there is one."""
    optimizer = optimizer or sgd(network)
    learned = {n: p for n, p in network.named_parameters() if p.requires_grad}
    for xs, ys in data:
        optimizer.zero_grad()
        loss = cross_entropy(network, port, xs, ys)
        before = {n: p.detach().clone() for n, p in learned.items()}
        options = {"retain_graph": True, "materialize_grads": True}
        found = torch.autograd.grad(loss, list(learned.values()), **options)
        (loss if extra is None else loss + extra(network, xs)).backward()
        optimizer.step()
        if after:
            moved = {n: p.detach() - before[n] for n, p in learned.items()}
            after(dict(zip(learned, found, strict=True)), moved)
    return optimizer


def assert_same_weights(run: RunContext, network: Network) -> None:
    """Compare weights, to the rounding of a loss that is computed in float32."""
    for name, weight in run.network.state_dict().items():
        torch.testing.assert_close(weight, network.state_dict()[name], rtol=2e-5, atol=2e-6)


def follow_optimizer(run: RunContext, network) -> torch.optim.Optimizer:
    """SGD with the momentum that a run has."""
    optimizer, known = sgd(network), run.state.named_parameters()
    for name, p in network.named_parameters():
        if known[name] in run.state.optimizer.state:
            optimizer.state[p] = deepcopy(run.state.optimizer.state[known[name]])
    return optimizer


def scripted(monkeypatch, scores):
    """Validation accuracies by task, in order; anything else gets better and better."""
    real, counts = RunContext.score, {}

    def score(run, task, split, batches=None):
        found = real(run, task, split, 1)
        counts[task, split] = k = counts.get((task, split), -1) + 1
        value = k / 1000
        if split == "validation" and task in scores:
            value = scores[task][min(k, len(scores[task]) - 1)]
        return found | {run.tasks[task].metric.name: value}

    monkeypatch.setattr(RunContext, "score", score)
