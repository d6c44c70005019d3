"""The networks of several runs as one, every tensor of which has a leading axis: the runs.

What a run has of its own, parameters, buffers, moments and carried states, are views into those
tensors. It is scored, logged and saved as if it were alone.
"""

import copy
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from thalnet_mtl.models.body import map_state
from thalnet_mtl.models.build import selected_backend
from thalnet_mtl.tasks.base import Batch
from thalnet_mtl.training.flat_optimizer import ParameterView, gather_state, share_state
from thalnet_mtl.training.optimizers import optimizer_for
from thalnet_mtl.training.state import Run

Request = tuple[dict[str, Batch], float]  # a batch of each task, and the learning rate


class StackedStep:
    """Runs that differ in their seed alone, at the same step; one optimizer moves them all."""

    def __init__(self, runs: Sequence[Run]):
        first, self.runs = runs[0], runs
        for run in runs:
            run.joined = None  # if it took steps alone
        # Copies, as the network of a run goes on being scored by itself.
        self.network = copy.deepcopy(first.network)
        self.combination = copy.deepcopy(first.combination)
        # Beside the kernel, ``torch.vmap`` goes through operations of PyTorch alone.
        levels = {
            selected_backend(first.config, first.network, port) for port in first.network.adapters
        }
        self.level = "cpp" if levels == {"cpp"} else "batched"
        self.network.body.ops = self.level
        for module, own in (
            (self.network, [run.network for run in runs]),
            (self.combination, [run.combination for run in runs]),
        ):
            for name, parameter in module.named_parameters():
                parameter.data = joined([part.get_parameter(name) for part in own])
            for name, buffer in module.named_buffers():
                buffer.data = joined([part.get_buffer(name) for part in own])
        self.tensors = dict(self.network.named_parameters()) | dict(self.network.named_buffers())
        self.optimizer = optimizer_for(first.config, self.network, self.combination)
        by_run = [run.named_parameters() for run in runs]
        names = dict(self.network.named_parameters())
        names |= {f"combination.{n}": p for n, p in self.combination.named_parameters()}
        self.pairs = [
            (
                whole,
                [
                    ParameterView(run.optimizer, there[name], partial(torch.select, dim=0, index=k))
                    for k, (run, there) in enumerate(zip(runs, by_run, strict=True))
                ],
            )
            for name, whole in names.items()
        ]
        for whole, parts in self.pairs:
            gather_state(self.optimizer, whole, parts)
        self.states: dict[str, Any] = {
            task: tree_map(lambda *parts: torch.stack(parts), *(run.states[task] for run in runs))
            for task in first.states
        }

    def step(self, requests: Sequence[Request]) -> list[Tensor]:
        """As ``train_step``, of all runs; returns the losses of each, by task."""
        run, rate = self.runs[0], requests[0][1]
        losses = {
            task: self._losses(task, [batches[task] for batches, _ in requests])
            for task in run.tasks
        }
        self.optimizer.zero_grad()
        # Of the sum over all runs; to the parameters of a run the others are constants.
        self.combination.backward(
            losses, lambda task: self.network.task_parameters(run.tasks[task].head_name)
        )
        if run.config.train.clip:
            clip(self.network.parameters(), run.config.train.clip)
        for optimizer in (self.optimizer, *(run.optimizer for run in self.runs)):
            for group in optimizer.param_groups:
                group["lr"] = rate
        first = not self.optimizer.state
        self.optimizer.step()
        for whole, parts in self.pairs if first else ():
            share_state(self.optimizer, whole, parts)
        return list(torch.stack([loss.detach() for loss in losses.values()], 1).unbind())

    def _losses(self, task: str, batches: Sequence[Batch]) -> Tensor:
        """The loss of every run on its own batch."""
        run, count, port = self.runs[0], len(batches), self.runs[0].tasks[task].head_name
        xs = torch.stack([batch.xs for batch in batches])
        ys = torch.stack([batch.ys for batch in batches])
        state = None if batches[0].starts_sequence else self.states.get(task)
        if state is None:
            nothing = self.network.initial(port, xs.shape[1])
            state = map_state(lambda part: part.expand(count, *part.shape), nothing)

        def forward(tensors: dict[str, Tensor], xs: Tensor, state: Any) -> tuple[Tensor, Any]:
            return torch.func.functional_call(self.network, tensors, (port, xs, state))

        bf16 = run.config.train.precision == "bf16"
        with torch.autocast(run.device.type, dtype=torch.bfloat16, enabled=bf16):
            logits, state = torch.vmap(forward)(self.tensors, xs, state)
        if run.tasks[task].spec.target == "every":
            self.states[task] = map_state(Tensor.detach, state)
            for k, other in enumerate(self.runs):
                own = partial(torch.select, dim=0, index=k)
                other.states[task] = map_state(own, self.states[task])
        each = F.cross_entropy(logits.flatten(0, -2).float(), ys.flatten(), reduction="none")
        return each.unflatten(0, (count, -1)).mean(1)


def joined(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors side by side in one, whose parts they become."""
    whole = torch.stack([tensor.detach() for tensor in tensors])
    for tensor, part in zip(tensors, whole, strict=True):
        tensor.data = part
    return whole


def clip(parameters: Iterable[nn.Parameter], most: float) -> None:
    """As ``clip_grad_norm_``, each run by the norm of its own gradients."""
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    square = torch.stack([grad.reshape(len(grad), -1).square().sum(1) for grad in grads]).sum(0)
    factor = (most / (square.sqrt() + 1e-6)).clamp(max=1)
    for grad in grads:
        grad.mul_(factor.view(-1, *[1] * (grad.ndim - 1)))
