"""Elastic weight consolidation: parameters that matter for old tasks stay near their values."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from typing import Annotated

import torch

from thalnet_mtl.config.values import Range
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.modes import evaluation_mode
from thalnet_mtl.registry import register
from thalnet_mtl.signals import interruptible
from thalnet_mtl.strategies.base import TrainingContext, trainable_parameters
from thalnet_mtl.strategies.penalty import (
    INTERVAL,
    Interval,
    NamedTensors,
    QuadraticPenalty,
    Strength,
    check_interval,
    interval_ends,
)
from thalnet_mtl.tasks.batch import Batch
from thalnet_mtl.tasks.stream import Experience

SAMPLES = 200  # sequences from which the Fisher information is estimated


@register("strategy", "ewc")
class EWC(QuadraticPenalty):
    """Elastic weight consolidation: a penalty for each experience, kept as a single sum of all.

    Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 2017. Ω is the
    diagonal of the Fisher information at the end of an experience, from single sequences, with
    targets sampled from the network's own distribution: a class or token from the softmax, each
    label from its sigmoid, a number from N(ŷ, 1/2), whose −log p is the squared error. That of a
    task is multiplied by its weight, as its loss is.

    Up to a constant, Σ_a Ω_a (θ − θ*_a)² = Ω (θ − θ*)², with Ω = Σ_a Ω_a and θ* = Σ_a Ω_a θ*_a / Ω.
    The gradient is the same, and memory and time do not grow with the experiences.

    Args:
        context: of the run.
        strength: factor of the penalty.
    """

    needs_boundaries = "it has a penalty for each experience"

    def __init__(self, context: TrainingContext, strength: Strength = 1.0):
        super().__init__(context, strength)
        for task in context.tasks:
            check_sampled_targets(context, task)

    def after_experience(self, experience: Experience) -> None:
        importance: NamedTensors = {}
        for task in experience.tasks:
            weight = self.context.loss_weight(task)  # the loss of the posterior is weighted as well
            with interruptible():
                information = fisher_information(self.context, task)
            for name, squares in information.items():
                value = weight * squares
                importance[name] = importance[name] + value if name in importance else value
        parameters = trainable_parameters(self.context.network)
        self.add_anchor({n: p.detach().clone() for n, p in parameters.items()}, importance)

    def add_anchor(self, anchor: NamedTensors, importance: NamedTensors) -> None:
        """Add the anchor of an experience and its importance to those of earlier ones."""
        anchors, total = map(dict, self.anchors[0]) if self.anchors else ({}, {})
        for name, added in importance.items():
            if name in total:
                total[name] = total[name] + added
                share = torch.where(total[name] > 0, added / total[name], 1.0)
                anchors[name] = anchors[name].lerp(anchor[name], share)
            else:
                anchors[name], total[name] = anchor[name], added
        self.anchors = [(anchors, total)]


@register("strategy", "online_ewc")
class OnlineEWC(EWC):
    """EWC with a single anchor: the latest weights, and Ω ← decay · Ω + Fisher information.

    Schwarz et al., "Progress & Compress", ICML 2018. With hidden boundaries, every ``interval``
    steps count as an experience, and the Fisher information is that of their last sequences.

    Args:
        context: of the run.
        strength: factor of the penalty.
        decay: factor of the importance of earlier experiences at the end of each one.
        interval: steps after which Ω and the anchor are updated, with hidden boundaries.
    """

    needs_boundaries = ""

    def __init__(
        self,
        context: TrainingContext,
        strength: Strength = 1.0,
        decay: Annotated[float, Range(0.0, 1.0)] = 0.9,
        interval: Interval = INTERVAL,
    ):
        super().__init__(context, strength)
        check_interval(context, interval)
        self.decay, self.interval = decay, interval

    def after_update(self, batches: Mapping[str, Batch]) -> None:
        context = self.context
        if interval_ends(context, self.interval):
            (task,) = context.tasks
            steps = range(context.step, context.step - self.interval, -1)
            information = fisher_information(context, task, steps)
            parameters = trainable_parameters(context.network)
            self.add_anchor({n: p.detach().clone() for n, p in parameters.items()}, information)

    def add_anchor(self, anchor: NamedTensors, importance: NamedTensors) -> None:
        anchors, total = map(dict, self.anchors[0]) if self.anchors else ({}, {})
        for name, value in anchor.items():  # those of frozen parameters stay as they are
            if name in total:
                decayed = self.decay * total[name]
                total[name] = decayed + importance[name] if name in importance else decayed
            elif name in importance:
                total[name] = importance[name]
            anchors[name] = value
        self.anchors = [(anchors, total)]


def fisher_information(
    context: TrainingContext, task: str, steps: Iterable[int] | None = None
) -> NamedTensors:
    """Return the mean over sequences of (d L(y, x) / dθ)², with y sampled from p(y | x).

    L is the loss of the sequence, summed over its steps: −log p(y | x) for the default losses.
    Steps whose target is missing count, because the network has an answer there; those after the
    end of a sequence do not. The network is in evaluation mode, without dropout.

    Args:
        context: of the run.
        task: its name.
        steps: whose training batches are read, in this order; by default the first ones.
    """
    source, network = context.tasks[task], context.network
    head = source.head_name
    parameters = {n: p for n, p in network.task_parameters(head).items() if p.requires_grad}
    if not parameters:  # all were frozen during the experience
        return {}
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    generator = torch.Generator().manual_seed(context.seed)
    drawn = 0
    with evaluation_mode(network):
        for batch in training_sequences(context, task, steps):
            outputs, _ = network(head, batch.xs, None, batch.lengths)
            sampled = source.sample(outputs, batch, generator)
            loss = source.loss(outputs, sampled) * source.count(sampled)
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    total[name] += gradient.square()
            drawn += 1
    return {name: value / drawn for name, value in total.items()}


def check_sampled_targets(context: TrainingContext, task: str) -> None:
    """Raise unless the loss of a task has a gradient where targets are sampled.

    They are sampled from the best constant answer to a training batch.

    Raises:
        UserError: it has none, as a loss of positive numbers that gets a negative one.
    """
    source = context.tasks[task]
    batch = source.training_batch(0, context.batch_size(task), context.chunk, context.seed)
    constant = source.target.constant(batch.ys, source.spec.outputs).nan_to_num(0.0).float()
    outputs = constant.expand(*batch.ys.shape[: 1 + source.spec.every_step], -1).clone()
    outputs.requires_grad_()
    generator = torch.Generator().manual_seed(context.seed)
    loss = source.loss(outputs, source.sample(outputs, batch, generator))
    (gradient,) = torch.autograd.grad(loss, outputs)
    if not (loss.isfinite() and gradient.isfinite().all()):
        raise UserError(
            f"task '{task}': its loss has no gradient at some numbers around the network's answer, "
            f"from which the Fisher information samples. Use another strategy: si, replay, lwf."
        )


def training_sequences(
    context: TrainingContext, task: str, steps: Iterable[int] | None = None
) -> Iterator[Batch]:
    """Yield up to ``SAMPLES`` training batches of a single sequence; always the same ones."""
    remaining = SAMPLES
    for step in count() if steps is None else steps:
        batch = context.tasks[task].training_batch(
            step, context.batch_size(task), context.chunk, context.seed
        )
        for place in range(min(remaining, len(batch.ys))):
            yield batch.slice(place, place + 1)
            remaining -= 1
        if not remaining:
            return
